"""Kills at random moments, and many starts and stops: real processes around the stub worker."""

from __future__ import annotations

import random
import time
from pathlib import Path

from nantui.run.commands import Command
from nantui.supervisor.client import submit
from tests.screen import Screen
from tests.soak.harness import Kind
from tests.soak.worlds import world
from tests.supervisor.chaos import assert_gone, chaos
from tests.waiting import eventually

KEYS = ("", "x", "xy", "X", "Xy", "s", "R", "o", "?", "cj", "xyq")


def kill_of(victim: str):  # type: ignore[no-untyped-def]
    def trial(folder: Path, dice: random.Random) -> None:
        with world(folder) as runs:
            chaos(runs.make(devices=dice.choice((1, 2)), epochs=100000), dice, victim)

    return trial


def kill_the_cockpit(folder: Path, dice: random.Random) -> None:
    """SIGKILL or a closed terminal, also in the middle of what a key began; the training is still in hand."""
    with world(folder) as runs:
        run = runs.make(devices=dice.choice((1, 2)), epochs=100000)
        run.await_step()
        screen = Screen([run.path])
        try:
            screen.wait_for("checkpoints")
            for key in dice.choice(KEYS):
                screen.press(key)
                time.sleep(dice.random() * 0.5)
            time.sleep(dice.random())
            if dice.random() < 0.5:
                screen.hang_up()
                assert screen.process.wait(timeout=30) is not None
        finally:
            if screen.process.poll() is None:
                screen.kill()
        eventually(lambda: not list(run.layout.commands.glob("*.json")))
        assert run.status().state in {"running", "starting", "stopping", "stopped"}, run.status()
        assert run.do("kill").ok
        assert_gone(run)


def kill_in_a_recovery(folder: Path, dice: random.Random) -> None:
    """The supervisor dies in the middle of stop, roll back, resume: the next carries it on, once."""
    with world(folder) as runs:
        run = runs.make(epochs=100000)
        run.await_step()
        command = Command("recover", {"set": {"act_s": 0.3}})
        submit(run.path, command)
        time.sleep(dice.random() * 1.5)
        if run.supervisor_alive():
            run.kill_supervisor()
        assert run.do("set", set={"lr0": 0.1}).ok
        done = [entry for entry in run.journal() if entry.get("id") == command.id]
        assert [entry["ok"] for entry in done if entry["kind"] == "command_done"] == [True], done
        assert run.do("kill").ok
        assert run.layout.attempt_numbers() == [1, 2]
        assert_gone(run)


def start_and_stop(folder: Path, dice: random.Random) -> None:
    """A life, stopped or killed at a random moment: no process, lock or shared memory is left."""
    with world(folder) as runs:
        run = runs.make(devices=dice.choice((1, 1, 2)), epochs=dice.choice((3, 100000)))
        if dice.random() < 0.5:
            run.await_step()
        time.sleep(dice.random() * 0.5)
        pids = [ref.pid for ref in run.members()]
        outcome = run.do(dice.choice(("stop", "kill")))
        assert outcome.ok, outcome.text
        assert not [path for pid in pids for path in Path("/dev/shm").glob(f"torch_{pid}_*")]
        assert_gone(run)


KINDS = (
    Kind("start and stop", "a start, then a stop or a kill at any moment", start_and_stop, 100, 5.0),
    Kind("kill the cockpit", "SIGKILL or a closed terminal while keys act", kill_the_cockpit, 200),
    Kind("kill the supervisor", "then stop or kill the run", kill_of("supervisor"), 200),
    Kind("kill the worker", "then stop or kill the run", kill_of("worker"), 200),
    Kind("kill a rank", "or a data loader, then stop or kill the run", kill_of("rank"), 200),
    Kind("kill in a recovery", "the supervisor, while it recovers", kill_in_a_recovery, 200),
)
