"""Runs whose worker is the stub: real processes, real files, no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.supervisor import stub_run
from tests.supervisor.stub_run import Runs, StubRun


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_start: None) -> Path:
    """Keep configuration, cache and state of the tests to themselves; supervisors here are quick."""
    for name, value in stub_run.own_home(tmp_path).items():
        monkeypatch.setenv(name, value)
    return tmp_path


@pytest.fixture
def stub_python(tmp_path: Path, nantui_python: str) -> str:
    """Return an "interpreter" that plays the worker's modules."""
    return stub_run.stub_interpreter(tmp_path, nantui_python)


@pytest.fixture
def make_run(tmp_path: Path, stub_python: str) -> Iterator[Callable[..., StubRun]]:
    """Return a maker of runs; every process of every run is gone after the test."""
    runs = Runs(tmp_path, stub_python)
    yield runs.make
    runs.end()
