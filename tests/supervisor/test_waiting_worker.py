"""The next worker is brought up early, used where it is the one that is wanted, and else nothing is left."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from nantui.errors import UserError
from nantui.machine.process_identity import ProcessRef, alive
from nantui.machine.process_tree import MARK, send
from nantui.run.attempts import read_attempt
from nantui.run.layout import RunLayout
from nantui.run.spec import Spec
from nantui.supervisor import launch
from nantui.supervisor.client import want_worker
from nantui.supervisor.directories import strays_of, variables_of
from nantui.supervisor.state import read_state
from tests.supervisor.stub_run import StubRun
from tests.waiting import eventually


def waiting_of(run: StubRun) -> ProcessRef | None:
    state = read_state(run.layout.supervisor)
    return state.waiting if state and alive(state.waiting) else None


def wanted(run: StubRun) -> ProcessRef:
    """Open a dialog, so to say; returns the process that was brought up for it."""
    want_worker(run.path, True)
    eventually(lambda: waiting_of(run) is not None)
    waiting = waiting_of(run)
    assert waiting is not None
    return waiting


@pytest.fixture
def stopped(make_run) -> StubRun:
    run = make_run()
    run.await_step()
    assert run.do("stop").ok
    return run


def test_it_becomes_the_worker_with_the_attempts_own_mark(stopped: StubRun) -> None:
    waiting = wanted(stopped)
    assert f"the next worker waits (process {waiting.pid}," in stopped.status().text
    assert variables_of(waiting.pid)[MARK] and not strays_of(stopped.path), "nobody takes it for a left-over"
    outcome = stopped.do("recover")
    assert outcome.ok, outcome.text
    stopped.await_step()
    attempt, state = read_attempt(stopped.layout, 2), read_state(stopped.layout.supervisor)
    assert attempt and state and state.worker == waiting and state.waiting is None
    assert variables_of(waiting.pid)[MARK] == attempt.uuid, "so that it is found by its mark"
    assert stopped.do("kill").ok
    assert not alive(waiting) and stopped.members() == []


def test_with_the_dialog_it_goes(stopped: StubRun) -> None:
    waiting = wanted(stopped)
    want_worker(stopped.path, False)
    eventually(lambda: not alive(waiting))
    eventually(lambda: not stopped.supervisor_alive())
    assert not stopped.layout.wish.exists() and "waits" not in stopped.status().text
    assert stopped.layout.attempt_numbers() == [1]


def test_killed_with_its_supervisor_it_goes(stopped: StubRun) -> None:
    waiting = wanted(stopped)
    stopped.kill_supervisor()
    eventually(lambda: not alive(waiting))


def test_one_that_is_dead_or_another_than_wanted_costs_nothing(stopped: StubRun, tmp_path: Path) -> None:
    waiting = wanted(stopped)
    send(waiting, signal.SIGKILL)
    outcome = stopped.do("recover")
    assert outcome.ok, outcome.text
    stopped.await_step()
    assert stopped.do("stop").ok
    before = wanted(stopped)
    python = tmp_path / "other-python"
    python.symlink_to(read_attempt(stopped.layout, 2).python)
    outcome = stopped.do("recover", python=str(python))
    assert outcome.ok, outcome.text
    stopped.await_step()
    state = read_state(stopped.layout.supervisor)
    assert state and alive(state.worker) and state.worker != before and not alive(before)
    assert read_attempt(stopped.layout, 3).python == str(python)
    assert "is not used" in stopped.layout.supervisor_log.read_text()


def test_an_alarm_brings_it_up_before_anybody_asks(make_run) -> None:
    run = make_run(diverge_at=[1, 3])
    run.await_state("diverged")
    waiting = waiting_of(run)
    assert waiting is not None and run.supervisor_alive(), "it waits for a while"
    outcome = run.do("recover")
    assert outcome.ok, outcome.text
    assert read_state(run.layout.supervisor).worker == waiting


def test_no_run_is_taken_up_for_a_dialog(make_run) -> None:
    run = make_run()
    run.await_step()
    run.kill_supervisor()
    want_worker(run.path, True)
    assert not run.supervisor_alive() and not run.layout.wish.exists()
    assert run.do("kill").ok


def test_without_memory_to_spare_none_is_brought_up(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(launch, "ROOM", 1 << 60)
    with pytest.raises(UserError, match="GB of memory are free"):
        launch.next_worker(RunLayout(tmp_path), Spec({}), None)
