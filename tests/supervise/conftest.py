"""Runs whose worker is the stub: real processes, real files, no torch."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nantui.supervise.client import create_run
from nantui.supervise.processes import send
from nantui.supervise.state import read_state
from tests.supervise.stub_run import StubRun

STUB = Path(__file__).with_name("stub_worker.py")
QUICK = """patience: {tick_s: 0.05, heartbeat_s: 0.5, idle_exit_s: 0.5, stop_s: 3, teardown_s: 1,
  terminate_s: 0.5, stall_floor_s: 1.5, stall_factor: 3, other_phase_s: 30}
"""


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep configuration, cache and state of the tests to themselves; supervisors here are quick."""
    for name in ("CONFIG", "CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    config = tmp_path / "config" / "nantui" / "supervise.yaml"
    config.parent.mkdir(parents=True)
    config.write_text(QUICK)
    return tmp_path


@pytest.fixture
def stub_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return an "interpreter" that plays the worker's modules."""
    script = tmp_path / "stub-python"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{STUB}" "$@"\n')
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("STUB_PYTHON", sys.executable)
    return str(script)


@pytest.fixture
def make_run(tmp_path: Path, stub_python: str) -> Iterator[Callable[..., StubRun]]:
    """Return a maker of runs; every process of every run is gone after the test."""
    made: list[StubRun] = []

    def make(
        name: str = "stub", start: bool = True, auto: bool = False, devices: int = 1, **how: Any
    ) -> StubRun:
        train = {
            "project": str(tmp_path / "runs"),
            "name": name,
            "epochs": how.pop("epochs", 500),
            "stub": how,
        }
        train["device"] = ",".join(map(str, range(devices)))
        made.append(StubRun(create_run(train, python=stub_python, start=start, auto=auto)))
        return made[-1]

    yield make
    for run in made:
        for ref in run.members():
            send(ref, 9)
        state = read_state(run.layout.supervisor)
        if state is not None and state.process.pid != os.getpid():
            send(state.process, 9)
