"""A fault that returns, nobody watching: the supervisor climbs two steps of the ladder, the run finishes, and
what the second step gave up is won back in a phase that it has appended.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from nantui.checkpoint.catalog import Catalog
from nantui.machine.process_tree import send
from nantui.run.events import AttemptEnded, InEffect, RollbackBegun, of_kind
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.results import current, read_results
from nantui.supervisor.client import create_run
from nantui.supervisor.state import read_state
from tests import waiting
from tests.recovery.conftest import SETTINGS
from tests.supervisor.stub_run import StubRun
from tests.waiting import eventually

LADDER = {"first": ["nan-safe"], "steps": ["nan-safe", "smaller"], "probation_epochs": 3}
SMALLER = {
    "title": "level 2 for images of 64 px",
    "settings": {"imgsz": {"at_most": 32}},
    "then": {"before": ["imgsz"], "epochs": 0.25, "settings": {"lr0": {"at_most": 0.001}}},
}


@pytest.fixture
def automatic(
    room: Path, tmp_path: Path, warm_python: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[StubRun]:
    """A real training with --auto that goes NaN in epoch 3 of its first and of its second attempt."""
    for name in ("CONFIG", "CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    own = tmp_path / "config" / "nantui"
    (own / "presets").mkdir(parents=True)
    (own / "ladder.yaml").write_text(yaml.safe_dump(LADDER))
    (own / "presets/smaller.yaml").write_text(yaml.safe_dump(SMALLER))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(waiting, "PATIENCE_S", 600.0)
    faults = [{"fault": "nan_gradient", "epoch": 3, "batch": 1, "times": 4, "attempt": n} for n in (1, 2)]
    place = {"project": str(tmp_path / "runs"), "name": "auto", "epochs": 4}
    train = {**SETTINGS, **place, "model": str(room / "tiny.yaml"), "data": str(room / "data/data.yaml")}
    run = StubRun(
        create_run(train, {"max_consecutive_skips": 1}, python=warm_python, auto=True, faults=faults)
    )
    yield run
    for ref in run.members():
        send(ref, signal.SIGKILL)


def test_two_levels_of_the_ladder_and_what_follows_them_without_a_terminal(automatic: StubRun) -> None:
    layout = RunLayout(automatic.layout.run)
    eventually(lambda: ended(layout), lambda: f"{automatic.status()}\n{automatic.journal()[-3:]}")
    journal = Journal(layout.journal).events()
    recoveries = of_kind(journal, RollbackBegun)
    assert [(one.restore_point, one.presets, one.by) for one in recoveries] == [
        ("weights/last.pt", ("nan-safe",), "policy"),
        ("weights/epoch0.pt", ("smaller",), "policy"),
    ]
    outcomes = [event.outcome for event in of_kind(journal, AttemptEnded)]
    assert outcomes == ["diverged", "diverged", "finished", "finished"]
    effect = of_kind(journal, InEffect)
    seen = [tuple(one.values[name] for name in ("optimizer", "imgsz", "lr0", "epochs")) for one in effect]
    assert seen[:2] == [("AdamW", 64, 0.01, 4), ("SGD", 64, 0.003, 4)]
    assert seen[2:] == [("SGD", 32, 0.003, 4), ("SGD", 64, 0.001, 1)], "what follows is the old size again"
    assert not any(one.differences for one in effect)
    before = layout.home / "phases/01"
    for results, epochs in ((before / "results.csv", [1, 2, 3, 4]), (layout.results_csv, [1])):
        rows = current(read_results(results))
        assert [row.epoch for row in rows] == epochs and all(row.finite for row in rows)
    for weights in (layout.weights, before / "weights"):
        verdicts = [Catalog(weights).verdict(weights / name, crc=True) for name in ("last.pt", "best.pt")]
        assert {verdict.badge for verdict in verdicts} == {"clean"}


def ended(layout: RunLayout) -> bool:
    state = read_state(layout.supervisor)
    if state is not None and ("gave up" in state.text or "could not begin" in state.text):
        raise AssertionError(state.text)
    return state is not None and state.state == "finished"
