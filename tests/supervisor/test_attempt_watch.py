"""What the ranks write reaches the journal once and whole; silence is a standstill only beyond what is usual,
and never while the supervisor itself sleeps.
"""

from __future__ import annotations

import json
import signal
import time

import pytest

from nantui.machine.process_tree import send
from nantui.run.attempts import Attempt
from nantui.run.events import Incident, parse_all
from nantui.run.layout import RunLayout
from nantui.supervisor.attempt_watch import Silence, Watch, journaled
from nantui.supervisor.config import Patience
from tests.waiting import eventually

PATIENCE = Patience(stall_floor_s=100, stall_factor=10, other_phase_s=1000)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def silent(layout, seconds, phase="training", usual_s=1.0, look_s=0.5, moves_at=None):
    """Tell whether so many silent seconds are a standstill, where somebody looks every `look_s`."""
    clock = Clock()
    watch = Watch(layout, ATTEMPT, activity=phase, silence=Silence(clock))
    watch.usual_step_s = lambda: usual_s
    watch.silent_s()
    for number in range(int(seconds / look_s)):
        clock.now += look_s
        watch.moved += number * look_s == moves_at
        quiet_s = watch.silent_s()
    return quiet_s > watch.allowed_s(PATIENCE)


def test_silence_beyond_the_floor_is_a_standstill(layout):
    assert not silent(layout, 99)
    assert silent(layout, 102)
    assert not silent(layout, 150, moves_at=90)


def test_slow_steps_and_other_phases_are_given_their_time(layout):
    assert not silent(layout, 500, usual_s=60.0)
    assert not silent(layout, 900, phase="validating")
    assert not silent(layout, 900, usual_s=0.0), "before the first step"
    assert not silent(layout, 9000, phase="elsewhere"), "its script trains on in another directory"


def test_time_in_which_the_supervisor_hung_does_not_count(layout):
    assert not silent(layout, 5000, look_s=500)


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


def written(layout, rank, *documents):
    with layout.events(1, rank).open("a") as file:
        file.writelines(json.dumps(document) + "\n" for document in documents)


@pytest.fixture
def layout(tmp_path):
    layout = RunLayout(tmp_path)
    layout.attempts.mkdir(parents=True)
    return layout


ATTEMPT = Attempt(1, "u", 1.0, "start", None, {}, {}, "python", devices=2, asked={"lr0": 0.01, "foo": 1})


def test_the_journal_gets_a_ranks_event_as_it_was_written_once(layout):
    incident = {
        "t": 2.0, "kind": "incident", "incident": "nan_loss", "epoch": 1, "step": None, "by": "guard",
        "evidence": {"ranks": [1]}, "of_a_later_version": "kept",
    }  # fmt: skip
    written(layout, 0, {"t": 1.0, "kind": "registered", "host": "a"}, {"t": 1.5, "kind": "saved"})
    written(layout, 1, {"t": 1.0, "kind": "registered", "host": "b"}, incident)
    watch = Watch(layout, ATTEMPT)
    ((event, fields),) = watch.read()
    assert isinstance(event, Incident) and event.incident == "nan_loss"
    told = {name: value for name, value in incident.items() if name not in ("kind", "by")}
    assert fields == {**told, "hosts": ["b"], "attempt": 1, "rank": 1}
    assert watch.last_incident == {**incident, "hosts": ["b"], "attempt": 1, "rank": 1}
    assert watch.read() == [] and watch.moved == 4


def test_after_an_adoption_what_the_journal_has_is_not_written_again(layout):
    first, second = ({"t": t, "kind": "warning", "warning": "w"} for t in (1.0, 2.0))
    written(layout, 0, first, second)
    journal = parse_all([{**first, "attempt": 1, "rank": 0}])
    assert [event.t for event, _ in Watch(layout, ATTEMPT, journaled(journal)).read()] == [2.0]


def test_what_is_in_effect_is_compared_with_what_was_asked(layout):
    written(layout, 0, {"t": 1.0, "kind": "in_effect", "values": {"lr0": 0.02}, "guarded": True, "notes": []})
    watch = Watch(layout, ATTEMPT)
    ((_, fields),) = watch.read()
    assert fields["differences"] == [{"name": "lr0", "asked": 0.01, "in_effect": 0.02}]
    assert (fields["unreported"], watch.guarded) == (["foo"], True)


def test_a_rank_that_validates_is_not_among_steps(layout):
    watch = Watch(layout, ATTEMPT)
    written(layout, 0, {"kind": "phase", "phase": "setup"})
    watch.read()
    assert (watch.activity, watch.stepping()) == ("setup", False)
    written(layout, 1, {"kind": "phase", "phase": "validating"})
    watch.read()
    assert watch.activity == "setup", "rank 0 tells"
    written(layout, 0, {"kind": "phase", "phase": "training"}, {"kind": "stopping", "epoch": 1, "step": 2})
    watch.read()
    assert (watch.activity, watch.stepping()) == ("saving", True)


def test_a_save_that_failed_is_told_until_a_later_one_has_not(make_run):
    run = make_run()
    run.await_state("running")

    def said(kind, **fields):
        with run.layout.events(1, 0).open("a") as file:
            file.write(json.dumps({"t": time.time(), "kind": kind, **fields}) + "\n")

    said("save_failed", path="weights/last.pt", text="OSError: no space left on device")
    eventually(lambda: run.status().text == "the last save failed: OSError: no space left on device")
    said("saved", paths=["weights/last.pt"], epoch=2)
    eventually(lambda: run.status().text == "")
