"""What a rewind leaves in the journal: an alarm and a mark for people, and nothing to be recovered from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from nantui.recovery.trouble import first_trouble
from nantui.run.attempts import Attempt, write_attempt
from nantui.run.events import Incident, RewindBegun, RewindDone
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from nantui.supervisor.attempt_watch import Watch
from nantui.ui.model.reasons import open_alarm
from nantui.ui.model.run_charts import epoch_marks, step_marks
from nantui.ui.model.snapshot import Stretch
from nantui.ui.model.timeline import sentences
from nantui.worker.telemetry import Recorder

WHERE = {"epoch": 3, "step": 4}
BACK = {**WHERE, "to_epoch": 2, "to_step": 1, "since": [2, 3], "number": 1, "incident": "nan_weight"}
TEXT = "went back in memory to epoch 2 step 1 in 0.01 s"


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    """A run whose rank 0 has reported a rewind, as the supervisor has put it into the journal."""
    layout = RunLayout(tmp_path)
    attempt = Attempt(1, "u", 1.0, "start", None, {}, {}, "python")
    write_attempt(layout, attempt)
    recorder = Recorder(layout.events(1, 0), 0)
    recorder.event("incident", **WHERE, incident="nan_weight", action="rewound", text="bad", evidence={})
    recorder.event("rewind_begun", **BACK)
    recorder.event("rewind_done", **BACK, seconds=0.01, eased=100, text=TEXT)
    recorder.close()
    for event, fields in Watch(layout, attempt).read():
        Journal(layout.journal).append(event.kind, **fields)
    return layout


def test_the_journal_has_it_before_and_after(layout):
    incident, begun, done = Journal(layout.journal).events()
    assert isinstance(incident, Incident) and isinstance(begun, RewindBegun) and isinstance(done, RewindDone)
    assert (begun.epoch, begun.step, begun.to_epoch, begun.to_step, begun.since) == (3, 4, 2, 1, (2, 3))
    assert (done.number, done.incident, done.eased, done.seconds) == (1, "nan_weight", 100, 0.01)
    assert done.attempt == 1


def test_there_is_nothing_to_recover_from(layout):
    assert first_trouble(RunRecord(layout)) is None


def test_it_is_an_alarm_until_somebody_has_seen_it_a_line_and_a_mark(layout):
    journal = tuple(Journal(layout.journal).events())
    steps = SimpleNamespace(skipped=(), stretches=[Stretch(1, 1, 1, 0.0, 10)])
    phases = SimpleNamespace(begins={}, titles={}, now=1)
    status = SimpleNamespace(state="running")
    seen = SimpleNamespace(journal=journal, events=(), rows=(), status=status, phases=phases, steps=steps)
    alarm = open_alarm(seen, 0)
    assert alarm is not None and alarm.action == "rewound"
    assert open_alarm(seen, alarm.t) is None
    assert [(line.text, line.ink) for line in sentences(journal)] == [
        ("NaN in the weights at epoch 3 step 4: went back in memory and trains on; cannot be undone", "bad"),
        (TEXT, "warn"),
    ]
    assert [(mark.x, mark.kind) for mark in step_marks(seen)] == [(24.0, "incident"), (24.0, "rollback")]
    assert [(mark.x, mark.kind) for mark in epoch_marks(seen)] == [(3.0, "incident"), (3.0, "rollback")]
