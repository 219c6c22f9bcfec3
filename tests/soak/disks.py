"""Disks that are full, may not be written or read, are slow or hang; clocks that jump."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nantui.errors import UserError
from nantui.recovery.rollback import roll_back
from nantui.recovery.undo import undo
from nantui.run.commands import Command
from nantui.run.spec import read_spec
from nantui.supervisor.client import submit
from tests.recovery import fakes
from tests.recovery.test_crash import lines_of, put_right
from tests.soak.harness import Kind, run_trial
from tests.soak.worlds import Disturbance, small_disk, without_override, world
from tests.supervisor.stub_run import StubRun
from tests.waiting import eventually

SUPERVISOR = "nantui.supervisor"


def full_disk(folder: Path, dice: random.Random) -> None:
    """The disk fills up while a training runs, and is emptied again."""
    with small_disk(folder, 4) as disk, world(folder, disk) as runs:
        run = runs.make(epochs=100000)
        run.await_step()
        time.sleep(dice.random())
        filler = disk / "filler"
        fill(filler)
        asked(run, dice)
        time.sleep(dice.random() * 2)
        filler.unlink()
        still_in_hand(run)


def fill(path: Path) -> None:
    """Write until nothing more fits, to the last byte."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 10, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


def full_in_a_rollback(folder: Path, dice: random.Random) -> None:
    """The disk fills up at any line of a rollback or undo, but for a few bytes; then there is room again.

    No byte is lost, a refusal is one line, and the next start makes it as before or as after.
    """
    from tests.soak import checkpoints  # which imports torch

    with pytest.MonkeyPatch.context() as monkeypatch, small_disk(folder, dice.choice((2, 3, 6))) as disk:
        fakes.without_torch(monkeypatch)
        undoes, left = dice.random() < 0.4, dice.choice((0, 0, 1, 100, 4096, 20000, 200000))
        total, after = checkpoints.whole_undo() if undoes else checkpoints.whole_rollback()
        layout = checkpoints.rolled_back(disk / "run") if undoes else fakes.make_run(disk / "run")
        plan = fakes.make_plan(layout, checkpoints.ASKED)
        before, everything = fakes.tree(layout), fakes.contents(layout)
        filler, line = disk / "filler", dice.randrange(1, total + 1)

        def full(*_: object) -> None:
            fill(filler)
            os.truncate(filler, max(filler.stat().st_size - left, 0))

        signal.signal(signal.SIGUSR1, full)
        action = (lambda: undo(layout, by="me")) if undoes else (lambda: roll_back(plan, by="me"))
        try:
            lines_of(action, line, signal.SIGUSR1)
        except (UserError, OSError) as error:
            assert "\n" not in str(error), error
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        assert everything <= fakes.contents(layout), f"a byte was lost at line {line}"
        filler.unlink(missing_ok=True)
        put_right(layout, before, after, line)


def asked(run: StubRun, dice: random.Random) -> None:
    """Ask for something that may be refused, in one line; reading must work."""
    run.status()
    if dice.random() < 0.5:
        try:
            submit(run.path, Command("set", {"set": {"lr0": 0.5}}))
        except UserError as error:
            assert "\n" not in str(error), error


def still_in_hand(run: StubRun) -> None:
    """Once the trouble is over the run can be stopped, and what is on disk is whole."""
    outcome = run.do("stop")
    assert outcome.ok, outcome.text
    spec = read_spec(run.layout.spec)
    assert spec is not None and spec.train["epochs"] == 100000
    assert run.members() == []
    eventually(lambda: not run.supervisor_alive())
    assert not run.layout.lock.exists()
    assert run.kinds().count("attempt_started") == run.kinds().count("attempt_ended"), run.kinds()
    outcomes = [entry for entry in run.journal() if entry["kind"] == "command_done"]
    assert len({entry["id"] for entry in outcomes}) == len(outcomes), "carried out twice"


def modes_of(mode: int):  # type: ignore[no-untyped-def]
    """Return a trial in which nantui/ loses its permissions for a while, all of them or those to write."""

    def trial(folder: Path, dice: random.Random) -> None:
        with world(folder) as runs:
            run = runs.make(epochs=100000)
            run.await_step()
            time.sleep(dice.random())
            places = [
                path for path in (run.layout.home, run.layout.attempts, run.layout.commands) if path.is_dir()
            ]
            before = {path: path.stat().st_mode for path in places}
            for path in reversed(places):
                path.chmod(mode)
            try:
                asked(run, dice)
                time.sleep(dice.random() * 2)
            finally:
                for path in places:
                    path.chmod(before[path])
            still_in_hand(run)

    return trial


def permissions_count(folder: Path) -> bool:
    """Tell whether a mode keeps this very process out."""
    closed = folder / "closed"
    closed.mkdir()
    closed.chmod(0)
    try:
        (closed / "x").touch()
    except PermissionError:
        return True
    finally:
        closed.chmod(0o700)
    return False


def slow_disk(folder: Path, dice: random.Random) -> None:
    """Every file call of the supervisor takes up to 0.4 s, most much less."""
    disturbance = Disturbance(folder, folder / "runs", dice, SUPERVISOR, late_s=0.4)
    with world(folder, **disturbance.variables) as runs:
        run = runs.make(epochs=100000)
        run.await_step()
        time.sleep(dice.random() * 2)
        still_in_hand(run)


def hanging_disk(folder: Path, dice: random.Random) -> None:
    """The supervisor's file calls hang for seconds, as on a mount whose server is away: no false alarm."""
    disturbance = Disturbance(folder, folder / "runs", dice, SUPERVISOR)
    with world(folder, **disturbance.variables) as runs:
        run = runs.make(epochs=100000)
        run.await_state("running")
        time.sleep(dice.random())
        disturbance.hang(True)
        asked(run, dice)
        time.sleep(2.0 + dice.random() * 3)
        disturbance.hang(False)
        still_in_hand(run)
        assert not [entry for entry in run.journal() if "stalled" in str(entry.get("text"))]


def clock_jumps(folder: Path, dice: random.Random) -> None:
    """The supervisor's clock is set by hours and years: nothing is stalled, lost, or taken for another."""
    disturbance = Disturbance(folder, folder / "runs", dice, SUPERVISOR)
    with world(folder, **disturbance.variables) as runs:
        run = runs.make(epochs=100000)
        run.await_state("running")
        for _ in range(3):
            disturbance.jump(dice.choice((1, -1)) * 10 ** dice.uniform(0, 8))
            time.sleep(0.2 + dice.random())
            assert run.status().state == "running", run.status()
            assert run.do("set", set={"lr0": 0.1}).ok
        still_in_hand(run)
        assert not [entry for entry in run.journal() if "stalled" in str(entry.get("text"))]


def under_permissions(kind: Kind) -> Kind:
    """For root: the same trials in a process that permissions do keep out."""

    def trial(folder: Path, dice: random.Random) -> None:
        if permissions_count(folder):
            kind.trial(folder, dice)
            return
        words = without_override()
        seed = dice.randrange(1 << 30)
        words += ["-m", "tests.soak.disks", kind.name, str(seed)]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]

    return Kind(kind.name, kind.what, trial, kind.most, kind.share)


KINDS = (
    Kind("full disk", "a small tmpfs fills up under a running training", full_disk, 200),
    Kind(
        "full disk in a rollback", "or undo: at any line, but for a few bytes", full_in_a_rollback, 1000, 2.0
    ),
    under_permissions(Kind("read-only", "nantui/ may not be written for a while", modes_of(0o500), 200)),
    under_permissions(Kind("no permission", "nantui/ may not even be read for a while", modes_of(0), 200)),
    Kind("slow disk", "file calls of the supervisor take up to 0.4 s", slow_disk, 100),
    Kind("hanging disk", "file calls of the supervisor hang for seconds", hanging_disk, 100),
    Kind("clock jumps", "its clock is set by up to three years, both ways", clock_jumps, 100),
)


def main(name: str, seed: str) -> int:
    """Run one trial, for a process that was started without the rights of root."""
    kind = next(kind for kind in KINDS if kind.name == name)
    why = run_trial(kind, int(seed), 1)
    print(why)
    return 1 if why else 0


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
