"""Run directories that 9407e15 made: opened, judged, diagnosed, put right and trained on as it would have.

tests/compat/record.py made them and says what happened in each. To the tests they lie on the host where they
were recorded, which has been rebooted since. What is only read is unpacked once; what changes a run has a
copy of its own.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from nantui.run.events import parse
from nantui.supervisor.status import read_status
from nantui.ui.model.run_reader import RunReader
from tests.compat.recorded import (
    NAMES,
    Recorded,
    alike,
    command_line,
    contents,
    digest_of,
    everything,
)
from tests.screen import Screen
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("quick_start")
Unpacked = Callable[[str], Recorded]
SUPERVISOR = "nantui.supervise.main"


@pytest.fixture(scope="module")
def runs(unpacked: Unpacked) -> Unpacked:
    """Return the runs that are only read, each unpacked once."""
    return cache(unpacked)


@pytest.fixture
def again(unpacked: Unpacked, warm_python: str) -> Unpacked:
    """Return a maker of runs to be changed or trained on."""

    def make(name: str) -> Recorded:
        run = unpacked(name)
        run.train_with(warm_python)
        return run

    return make


# what is only read


@pytest.mark.parametrize("name", NAMES)
def test_a_run_stands_where_it_stood(runs: Unpacked, name: str) -> None:
    status, said = runs(name).said("status")
    status_now, now = runs(name).asked("status")
    assert status == status_now
    assert alike(said, now), now


@pytest.mark.parametrize("name", NAMES)
def test_its_checkpoints_are_worth_what_they_were(runs: Unpacked, name: str) -> None:
    (status, said), (status_now, now) = runs(name).said("check"), runs(name).asked("check", "--crc")
    assert status == status_now
    assert alike(said, now, left_out=("seconds",))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_causes_are_found(runs: Unpacked, name: str) -> None:
    (status, said), (status_now, now) = (
        runs(name).said("diagnose"),
        runs(name).asked("diagnose", "--no-labels"),
    )
    assert (status, said["incidents"]) == (status_now, now["incidents"])
    assert [cause["cause"] for cause in said["causes"]] == [cause["cause"] for cause in now["causes"]]


@pytest.mark.parametrize("name", NAMES)
def test_the_cockpit_reads_all_of_it(runs: Unpacked, name: str) -> None:
    run = runs(name)
    reader = RunReader(run.run, read_status)
    reader.read()
    seen = reader.read()
    assert seen.status.state == run.said("status")[1]["runs"][0]["state"]
    assert list(seen.journal) == [parse(entry) for entry in run.journal()]
    attempts = len(list((run.run / "nantui/attempts").glob("[0-9][0-9][0-9].json")))
    assert sum(len(run.steps(number)) for number in range(1, attempts + 1)) > 0
    assert seen.steps.losses and seen.timeline
    weights = {path.name for path in (run.run / "weights").glob("*.pt")}
    assert {one.path.name for one in seen.checkpoints} == {one for one in weights if one[0] != "."}
    results = run.run / "results.csv"
    assert len(seen.rows) >= (len(results.read_text().splitlines()) - 1 if results.exists() else 0)


def test_the_cockpit_shows_a_run_in_a_terminal(runs: Unpacked, terminal: Callable[..., Screen]) -> None:
    screen = terminal(runs("diverged").run)
    shown = screen.wait_for("diverged", "autopsy", "epoch0", "R recover")
    assert "Traceback" not in shown
    screen.press("q")
    screen.process.wait(30)


def test_two_attempts_of_a_run_are_compared(runs: Unpacked) -> None:
    run = runs("finished").run
    done = command_line("nantui", "compare", f"{run}#1", f"{run}#2", "--json")
    assert done.returncode == 0, done.stderr
    assert "lr0" in json.dumps(json.loads(done.stdout))


@pytest.mark.parametrize("name", NAMES)
def test_looking_changed_nothing(runs: Unpacked, name: str) -> None:
    """Comes after all that look."""
    assert everything(runs(name).run) == runs(name).as_unpacked


# a rollback that was broken off


def test_the_next_supervisor_finishes_what_a_power_cut_broke_off_and_recovers(again: Unpacked) -> None:
    run = again("broken_early")
    before = run.before()
    assert run.tree() != before and run.journal()[-1]["kind"] == "rollback_step"
    asked = run.journal("command")[-1]["command"]["id"]
    assert command_line(SUPERVISOR, str(run.run), "--detach").returncode == 0
    run.ended(2, "finished")
    assert [entry["id"] for entry in run.journal("rollback_begun", "rollback_done")] == [asked, asked]
    assert run.journal("attempt_started")[-1]["command"] == asked
    assert set(before.values()) - {""} <= contents(run.run), "every byte still exists"
    assert {path.name for path in run.run.glob("weights/*.pt")} >= {"last.pt", "best.pt", "epoch5.pt"}
    assert run.asked("check")[0] == 0, "what was moved aside does not count"
    run.nantui("undo", "--yes")
    assert run.tree() == before


def test_one_that_was_almost_done_is_finished_and_then_taken_back_whole(again: Unpacked) -> None:
    run = again("broken_late")
    before = run.before()
    put_right(run, "rollback_done")
    assert run.tree() != before and run.asked("check")[0] == 0
    assert set(before.values()) - {""} <= contents(run.run), "every byte still exists"
    assert "was taken back" in run.nantui("undo", "--yes")
    assert run.tree() == before


def test_one_with_something_in_its_way_is_taken_back(again: Unpacked) -> None:
    run = again("broken_late")
    before = run.before()
    assert not (run.run / "weights/last.pt").exists()
    (run.run / "weights/last.pt").write_bytes(b"somebody else's")
    put_right(run, "rollback_reverted")
    assert run.tree() == before
    assert digest_of(b"somebody else's") in contents(run.run)


def put_right(run: Recorded, kind: str) -> None:
    """Start a supervisor, as any command does; wait until it has closed the transaction, as `kind`."""
    assert command_line(SUPERVISOR, str(run.run), "--detach").returncode == 0
    (begun,) = run.journal("rollback_begun")
    ended = eventually(lambda: run.journal("rollback_done", "rollback_reverted"))
    assert [(entry["kind"], entry["id"]) for entry in ended] == [(kind, begun["id"])]


# trained on


def test_a_stopped_run_goes_on_from_its_stop_point_with_the_edits_and_without_the_images(
    again: Unpacked,
) -> None:
    run = again("stopped")
    assert (run.run / "weights/nantui_stop.pt").is_file()
    left_out = [line for line in _quarantine(run) if not line.startswith("#")]
    assert len(left_out) == 2 and all(Path(image).is_file() for image in left_out)
    run.nantui("resume", "--yes")
    run.ended(2, "finished")
    started = run.journal("attempt_started")[-1]
    assert (started["mode"], started["asked"]) == ("resume", {"lr0": 0.0004, "grad_clip": 5.0})
    effect = run.journal("in_effect")[-1]
    assert (effect["values"]["lr0"], effect["values"]["grad_clip"]) == (0.0004, 5.0)
    assert not effect["differences"]
    images, batch = len(list((run.root / "data/images/train").glob("*.png"))), 4
    assert run.goes_on(2) and run.steps(2)[-1] == (3, -(-(images - 2) // batch))
    assert run.asked("check")[0] == 0 and not run.journal("incident")


def test_a_diverged_run_recovers(again: Unpacked) -> None:
    run = again("diverged")
    trouble = run.journal("incident")[0]
    run.nantui("recover", "--yes")
    run.ended(2, "finished")
    (begun,) = run.journal("rollback_begun")
    assert begun["epoch"] < trouble["epoch"]
    assert run.steps(2)[0] == (begun["epoch"] + 1, 1)
    assert run.asked("check")[0] == 0


def test_a_plan_goes_on_in_its_second_phase(again: Unpacked) -> None:
    run = again("plan")
    phase = run.status()["phase"]
    assert (phase["number"], phase["of"], phase["title"]) == (2, 2, "large")
    first = {path.name for path in run.run.glob("nantui/phases/01/weights/*.pt")}
    assert first == {"last.pt", "best.pt"}
    run.nantui("resume", "--set", f"epochs={run.steps(2)[-1][0] + 1}", "--yes")
    run.ended(3, "finished")
    assert run.status()["phase"]["number"] == 2
    assert run.journal("in_effect")[-1]["values"]["imgsz"] == 64
    assert run.goes_on(3)


def test_a_finished_run_gets_another_phase_and_gives_it_back(again: Unpacked) -> None:
    run = again("finished")
    before = run.tree()
    run.nantui("resume", "--phase", "epochs=1", "--yes")
    run.ended(3, "finished")
    assert (run.status()["phase"]["number"], run.status()["phase"]["epochs_in_all"]) == (2, 5)
    run.nantui("undo", "--yes")
    assert run.tree() == before


def test_a_run_of_two_hosts_goes_on_with_both(again: Unpacked) -> None:
    """What the second host starts dies with its parent: there, the interpreter is a real one."""
    run = again("two_hosts")
    assert _seats(run, 1) == ["recorded", "other"]
    run.nantui("resume", "--yes")
    other = {**os.environ, "NANTUI_HOST": "other"}
    joined = command_line("nantui", "join", str(run.run), "--yes", env=other)
    assert joined.returncode == 0, joined.stderr
    run.ended(2, "finished")
    assert _seats(run, 2) == ["recorded", "other"]
    assert run.journal("in_effect")[-1]["values"]["world_size"] == 2
    exits = sorted((run.run / "nantui/attempts").glob("002.rank*.exit.json"))
    assert [json.loads(exit.read_text())["outcome"] for exit in exits] == ["finished", "finished"]
    assert run.goes_on(2)


def _seats(run: Recorded, attempt: int) -> list[str]:
    """Return the hosts that took part in an attempt, in the order of their ranks."""
    roster = json.loads((run.run / f"nantui/attempts/{attempt:03d}.hosts.json").read_text())
    return [seat["host"] for seat in roster["seats"]]


def _quarantine(run: Recorded) -> list[str]:
    return (run.run / "nantui/quarantine.txt").read_text().splitlines()
