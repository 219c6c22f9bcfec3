"""A plan's phases run one after another, and stopping, killing and resuming work inside each of them."""

from __future__ import annotations

import signal

import pytest

from nantui.machine.process_tree import send
from nantui.run.plan import PlanPhase, new_plan
from nantui.supervisor.client import create_run
from tests.supervisor.stub_run import StubRun
from tests.waiting import eventually


@pytest.fixture
def start(tmp_path, stub_python):
    """Start a plan of two phases; `how` says what the stub of each does wrong."""
    made = []

    def begin(first=None, second=None, epochs=(3, 3)):
        phases = [
            PlanPhase(title, {"epochs": number, "stub": how or {}})
            for title, number, how in zip(("small", "large"), epochs, (first, second), strict=True)
        ]
        train = {"project": str(tmp_path / "runs"), "name": "plan"}
        asked = {**train, **phases[0].settings}
        run = create_run(asked, python=stub_python, plan=lambda args: new_plan("two", phases, train, {}))
        made.append(StubRun(run))
        return made[-1]

    yield begin
    for run in made:
        for ref in run.members():
            send(ref, signal.SIGKILL)


def place(run):
    phase = run.status().phase
    return tuple(phase[name] for name in ("number", "of", "title"))


def phases_begun(run):
    entries = [entry for entry in run.journal() if entry["kind"] == "attempt_started"]
    return [entry["phase"]["number"] for entry in entries]


def test_one_phase_follows_the_other_and_the_run_is_finished_once(start):
    run = start()
    run.await_state("finished")
    assert place(run) == (2, 2, "large")
    assert phases_begun(run) == [1, 2]
    assert (run.layout.home / "phases/01/weights/last.pt").is_file()
    seen = [entry for entry in run.journal() if entry["kind"] in ("phase_done", "attempt_ended")]
    assert [entry["kind"] for entry in seen] == ["attempt_ended", "phase_done", "attempt_ended"]
    assert [entry["by"] for entry in run.journal() if entry["kind"] == "command"][1:] == ["plan"]


def test_a_phase_that_was_stopped_is_resumed_and_one_killed_before_its_first_epoch_begins_again(start):
    run = start(second={"pace": 0.05, "steps": 20}, epochs=(1, 100))
    eventually(lambda: phases_begun(run) == [1, 2] and run.status().step, lambda: str(run.journal()[-3:]))
    assert run.do("kill").ok
    assert run.status().state == "stopped" and not run.layout.last.exists()
    outcome = run.do("resume")
    assert outcome.ok and "(start)" in outcome.text, outcome.text
    eventually(run.layout.last.exists)
    assert run.do("stop").ok
    outcome = run.do("resume")
    assert outcome.ok and "(resume from" in outcome.text, outcome.text
    assert phases_begun(run) == [1, 2, 2, 2]
    assert run.do("kill").ok


def test_a_phase_that_ended_while_nobody_looked_is_followed_by_the_next_once(start):
    run = start(first={"pace": 0.05}, epochs=(2, 3))
    run.await_step()
    run.kill_supervisor()
    eventually(lambda: not run.members())
    outcome = run.do("resume")
    assert outcome.ok, outcome.text
    run.await_state("finished")
    assert phases_begun(run) == [1, 2]


def test_a_phase_that_cannot_begin_is_a_failure_that_says_why(start, monkeypatch):
    run = start(first={"pace": 0.05}, epochs=(2, 3))
    run.await_step()
    (run.layout.home / "phases").write_text("in the way")
    status = run.await_state("failed")
    assert "the next phase could not begin" in status.text
    (run.layout.home / "phases").unlink()
    assert run.do("resume").ok
    run.await_state("finished")


def test_a_finished_run_trains_on_in_a_phase_that_is_appended(make_run):
    run = make_run(epochs=2)
    run.await_state("finished")
    outcome = run.do("resume", phase={"epochs": 1, "lr0": 0.002})
    assert outcome.ok, outcome.text
    run.await_state("finished")
    assert phases_begun_or_none(run) == [None, 2]
    assert place(run) == (2, 2, "epochs=1, lr0=0.002")


def phases_begun_or_none(run):
    entries = [entry for entry in run.journal() if entry["kind"] == "attempt_started"]
    return [entry["phase"]["number"] if entry["phase"] else None for entry in entries]


def test_a_phase_cannot_be_appended_to_a_run_that_has_not_finished(make_run):
    run = make_run(epochs=100000)
    run.await_step()
    assert run.do("kill").ok
    outcome = run.do("resume", phase={"epochs": 1})
    assert not outcome.ok and "once the training has finished" in outcome.text
