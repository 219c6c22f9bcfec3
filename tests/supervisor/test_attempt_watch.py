"""Silence is a standstill only beyond what is usual, and never while the supervisor itself sleeps."""

from __future__ import annotations

import signal

from nantui.machine.process_tree import send
from nantui.supervisor.attempt_watch import Standstill
from nantui.supervisor.config import Patience
from tests.supervisor.stub_run import eventually

PATIENCE = Patience(stall_floor_s=100, stall_factor=10, other_phase_s=1000)


def looks(standstill, clock, seconds, phase="training", usual_s=1.0, step_s=0.5):
    """Return what a look every `step_s` says after so many silent seconds."""
    found = 0.0
    for _ in range(int(seconds / step_s)):
        clock.now += step_s
        found = standstill.look(1, phase, usual_s)
    return found


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def watched():
    clock = Clock()
    standstill = Standstill(PATIENCE, clock)
    standstill.look(1, "training", 1.0)
    return standstill, clock


def test_silence_beyond_the_floor_is_a_standstill():
    standstill, clock = watched()
    assert looks(standstill, clock, 99) == 0
    assert looks(standstill, clock, 2) > 100
    assert standstill.look(2, "training", 1.0) == 0, "something moved"


def test_slow_steps_and_other_phases_are_given_their_time():
    standstill, clock = watched()
    assert looks(standstill, clock, 500, usual_s=60.0) == 0
    standstill, clock = watched()
    assert looks(standstill, clock, 900, phase="validating") == 0
    standstill, clock = watched()
    assert looks(standstill, clock, 900, usual_s=0.0) == 0, "before the first step"


def test_time_in_which_the_supervisor_hung_does_not_count():
    standstill, clock = watched()
    assert looks(standstill, clock, 5000, step_s=500) == 0


def test_a_hanging_rank_is_stalled_with_its_stack(make_run):
    run = make_run(hang_at=[1, 4], stacks=True, epochs=100000)
    status = run.await_state("stalled")
    assert "no step for" in status.text
    note = next(entry for entry in run.journal() if entry["kind"] == "note" and "stalled" in entry["text"])
    stack = note["stacks"][0]
    assert stack["rank"] == 0
    assert any("in hang" in line for line in stack["stack"]), stack
    assert run.do("kill").ok


def test_a_stopped_process_is_stalled_and_runs_again(make_run):
    run = make_run(epochs=100000)
    run.await_step()
    worker = next(ref for ref in run.members() if ref.pid == run.rank_pid(0))
    send(worker, signal.SIGSTOP)
    run.await_state("stalled")
    note = next(entry for entry in run.journal() if entry["kind"] == "note")
    assert note["stacks"][0]["state"] == "T" and note["stacks"][0]["stack"] == []
    send(worker, signal.SIGCONT)
    run.await_state("running")
    eventually(lambda: any(entry.get("text") == "steps again" for entry in run.journal()))


def test_a_rank_that_does_not_catch_the_signal_is_not_killed_by_asking(make_run):
    run = make_run(hang_at=[1, 4], epochs=100000)
    run.await_state("stalled")
    assert run.status().pids
    assert run.do("kill").ok
