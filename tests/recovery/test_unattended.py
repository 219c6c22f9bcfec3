"""A fault that returns, nobody watching: the supervisor climbs two steps of the ladder, the run finishes."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from nantui.checkpoint.catalog import Catalog
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.results import current, read_results
from nantui.supervise.client import create_run
from nantui.supervise.processes import send
from nantui.supervise.state import read_state
from tests.recovery.conftest import SETTINGS
from tests.supervise import stub_run
from tests.supervise.stub_run import StubRun, eventually


@pytest.fixture
def automatic(room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StubRun]:
    """A real training with --auto that goes NaN in epoch 4 of its first and of its second attempt."""
    for name in ("CONFIG", "CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(stub_run, "PATIENCE_S", 600.0)
    faults = [{"fault": "nan_gradient", "epoch": 4, "batch": 1, "times": 4, "attempt": n} for n in (1, 2)]
    place = {"project": str(tmp_path / "runs"), "name": "auto", "epochs": 6}
    train = {**SETTINGS, **place, "model": str(room / "tiny.yaml"), "data": str(room / "data/data.yaml")}
    run = StubRun(create_run(train, {"max_consecutive_skips": 1}, auto=True, faults=faults))
    yield run
    for ref in run.members():
        send(ref, signal.SIGKILL)


def test_two_levels_of_the_ladder_without_a_terminal(automatic: StubRun) -> None:
    layout = RunLayout(automatic.layout.run)
    eventually(lambda: ended(layout), lambda: f"{automatic.status()}\n{automatic.journal()[-3:]}")
    entries = Journal(layout.journal).entries()
    recoveries = [entry for entry in entries if entry["kind"] == "rollback_begun"]
    assert [(one["restore_point"], one["presets"], one["by"]) for one in recoveries] == [
        ("weights/last.pt", ["nan-safe"], "policy"),
        ("weights/epoch1.pt", ["level1"], "policy"),
    ]
    outcomes = [entry["outcome"] for entry in entries if entry["kind"] == "attempt_ended"]
    assert outcomes == ["diverged", "diverged", "finished"]
    effect = [entry for entry in entries if entry["kind"] == "in_effect"][-1]
    assert (effect["values"]["optimizer"], effect["values"]["lr0"]) == ("SGD", 0.001)
    assert not effect["differences"]
    rows = current(read_results(layout.results_csv))
    assert [row.epoch for row in rows] == [1, 2, 3, 4, 5, 6] and all(row.finite for row in rows)
    catalog = Catalog(layout.weights)
    assert {catalog.verdict(path, crc=True).badge for path in (layout.last, layout.best)} == {"clean"}


def ended(layout: RunLayout) -> bool:
    state = read_state(layout.supervisor)
    if state is not None and "gave up" in state.text:
        raise AssertionError(state.text)
    return state is not None and state.state == "finished"
