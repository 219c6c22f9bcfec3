"""Rewind in place: the guard gives up, the training goes back in memory and on, in the same process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nantui.run.layout import RunLayout
from nantui.run.spec import Spec, write_spec
from tests.worker.runs import Outcome, Trainings

ALWAYS = {"step_points": 0.0}


def unattended(run: Path) -> Path:
    """Ask for a run that recovers by itself."""
    write_spec(RunLayout(run).spec, Spec({}, auto=True))
    return run


def test_weights_that_are_not_finite_go_back(trainings: Trainings, tmp_path):
    bad = {"fault": "nan_weight", "epoch": 2, "batch": 3}
    outcome = trainings(unattended(tmp_path / "run"), ours=ALWAYS, faults=[bad])
    print(outcome.code, outcome.exit, outcome.incidents, outcome.of("rewind_begun"), outcome.of("rewind_done"))
    assert outcome.code == 0
