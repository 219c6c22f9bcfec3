"""A run whose worker is the stub, and what tests want to know of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nantui.run.identity import ProcessRef, alive
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.spool import Command
from nantui.run.status import RunStatus
from nantui.supervise.client import Outcome, carry_out
from nantui.supervise.processes import members, send
from nantui.supervise.state import read_state
from nantui.supervise.status import read_status

PATIENCE_S = 30.0


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

    def kinds(self) -> list[str]:
        return [entry["kind"] for entry in self.journal()]

    def rank_pid(self, rank: int) -> int:
        """Return the pid that a rank registered, once it has."""
        path = self.layout.events(self.status().attempt or 0, rank)
        eventually(lambda: path.is_file() and path.read_text().count("\n"))
        return int(json.loads(path.read_text().splitlines()[0])["pid"])

    def uuid(self) -> str:
        state = read_state(self.layout.supervisor)
        return state.attempt_uuid if state else ""

    def members(self) -> list[ProcessRef]:
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
