"""A warning about finite numbers throws nothing away and hides nothing, and its cause can be asked for."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nantui.diagnosis.causes import diagnose
from nantui.recovery.trouble import first_trouble
from nantui.run.incidents import INCIDENTS, SUSPICIONS, is_suspicion
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from nantui.ui.model.reasons import open_alarm
from nantui.ui.model.timeline import sentences

ATTEMPT = {"attempt": 1, "uuid": "u", "created": 1.0, "mode": "start", "train": {}, "ours": {}}


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    layout = RunLayout(tmp_path)
    layout.attempts.mkdir(parents=True)
    layout.weights.mkdir()
    (tmp_path / "args.yaml").write_text("task: detect\nmodel: yolov8n.yaml\nepochs: 9\nlr0: 0.01\n")
    layout.attempt(1).write_text(json.dumps(ATTEMPT))
    return layout


def journal(layout: RunLayout, kind: str, **fields: Any) -> None:
    Journal(layout.journal).append(kind, attempt=1, rank=0, **fields)


def warn(layout: RunLayout, warning: str, epoch: int = 3) -> None:
    journal(layout, "warning", warning=warning, text=f"{warning}: seen", evidence={}, epoch=epoch, step=2)


@pytest.mark.parametrize("kind", sorted(SUSPICIONS))
def test_a_suspicion_costs_no_epochs_and_raises_no_alarm(layout, kind):
    warn(layout, kind)
    assert first_trouble(RunRecord(layout)) is None
    events = tuple(Journal(layout.journal).events())
    assert [is_suspicion(event) for event in events] == [True]
    phases, status = SimpleNamespace(begins={}, now=1), SimpleNamespace(state="running")
    seen = SimpleNamespace(journal=events, events=events, rows=(), status=status, phases=phases)
    assert open_alarm(seen, 0) is None
    assert [(line.text, line.ink) for line in sentences(events)] == [(f"warning: {kind}: seen", "warn")]


def test_why_it_looks_bad_can_be_asked(layout):
    warn(layout, "loss_exploded")
    found = diagnose(layout.run, labels=False, costs=False)
    assert found.incident is not None and found.causes
    assert (found.incident.incident, found.incident.action) == ("loss_exploded", "warned")


def test_a_warning_that_nothing_came_of_hides_no_real_trouble(layout):
    journal(layout, "incident", incident="nan_loss", epoch=2, step=1, action="skipped", text="")
    warn(layout, "loss_exploded", epoch=9)
    found = diagnose(layout.run, labels=False, costs=False)
    assert found.incident is not None and found.incident.incident == "nan_loss"
    assert found.incidents == 1


def test_what_led_to_the_end_is_where_the_trouble_began(layout):
    warn(layout, "loss_exploded")
    journal(layout, "incident", incident="nan_weight", epoch=3, step=9, action="ended", text="")
    found = diagnose(layout.run, labels=False, costs=False)
    assert found.incident is not None and found.incident.incident == "loss_exploded"
    trouble = first_trouble(RunRecord(layout))
    assert trouble is not None and trouble.kind == "nan_weight"


def test_every_suspicion_has_words_for_the_screen():
    assert set(INCIDENTS) >= SUSPICIONS
