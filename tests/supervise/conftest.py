"""Runs whose worker is the stub: real processes, real files, no torch."""

from __future__ import annotations

import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.spool import Command
from nantui.run.status import RunStatus
from nantui.supervise.client import Outcome, carry_out, create_run
from nantui.supervise.identity import alive
from nantui.supervise.processes import members, send
from nantui.supervise.state import read_state
from nantui.supervise.status import read_status

STUB = Path(__file__).with_name("stub_worker.py")
QUICK = """patience: {tick_s: 0.05, heartbeat_s: 0.5, idle_exit_s: 0.5, stop_s: 5, teardown_s: 1,
  terminate_s: 0.5, stall_floor_s: 1.5, stall_factor: 3, other_phase_s: 30}
"""
PATIENCE_S = 30.0


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


class StubRun:
    """A run of the stub, and what tests want to know of it."""

    def __init__(self, path: Path) -> None:
        self.path, self.layout = path, RunLayout(path)

    def do(self, kind: str, **options: Any) -> Outcome:
        return carry_out(self.path, Command(kind, options))

    def status(self) -> RunStatus:
        return read_status(self.path)

    def journal(self) -> list[dict[str, Any]]:
        return Journal(self.layout.journal).entries()

    def uuid(self) -> str:
        state = read_state(self.layout.supervisor)
        return state.attempt_uuid if state else ""

    def members(self) -> list[Any]:
        return members(self.uuid()) if self.uuid() else []

    def supervisor_alive(self) -> bool:
        state = read_state(self.layout.supervisor)
        return state is not None and alive(state.process)

    def kill_supervisor(self) -> None:
        state = read_state(self.layout.supervisor)
        assert state is not None and send(state.process, 9)
        eventually(lambda: not alive(state.process))

    def await_state(self, *states: str) -> RunStatus:
        eventually(lambda: self.status().state in states, lambda: str(self.status()))
        return self.status()

    def await_step(self) -> RunStatus:
        eventually(lambda: self.status().step is not None, lambda: str(self.status()))
        return self.status()


def eventually(look: Callable[[], Any], what: Callable[[], str] = lambda: "") -> Any:
    """Wait until `look` is true; fail with `what` it is instead."""
    until = time.monotonic() + PATIENCE_S
    while not (found := look()):
        assert time.monotonic() < until, what()
        time.sleep(0.02)
    return found


@pytest.fixture
def make_run(tmp_path: Path, stub_python: str) -> Iterator[Callable[..., StubRun]]:
    """Return a maker of runs; every process of every run is gone after the test."""
    made: list[StubRun] = []

    def make(name: str = "stub", start: bool = True, devices: int = 1, **how: Any) -> StubRun:
        train = {
            "project": str(tmp_path / "runs"),
            "name": name,
            "epochs": how.pop("epochs", 500),
            "stub": how,
        }
        train["device"] = ",".join(map(str, range(devices)))
        made.append(StubRun(create_run(train, python=stub_python, start=start)))
        return made[-1]

    yield make
    for run in made:
        for ref in run.members():
            send(ref, 9)
        state = read_state(run.layout.supervisor)
        if state is not None and state.process.pid != os.getpid():
            send(state.process, 9)
