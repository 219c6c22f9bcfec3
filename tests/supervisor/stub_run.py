"""A run whose worker is the stub, and what tests want to know of it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from nantui import entry_points
from nantui.machine.process_identity import ProcessRef, alive
from nantui.machine.process_tree import members, send
from nantui.run.atomic_files import read_text
from nantui.run.commands import Command
from nantui.run.events import documents
from nantui.run.layout import RunLayout
from nantui.run.status import RunStatus
from nantui.supervisor.client import CommandResult, carry_out, create_run
from nantui.supervisor.state import read_state
from nantui.supervisor.status import read_status
from tests.waiting import eventually

PYTHON = sys.executable
STUB = Path(__file__).with_name("stub_worker.py")
QUICK = """patience: {tick_s: 0.05, heartbeat_s: 0.5, idle_exit_s: 0.5, stop_s: 3, teardown_s: 1,
  terminate_s: 0.5, stall_floor_s: 1.5, stall_factor: 3, hung_s: 1, other_phase_s: 30}
"""


class StubRun:
    """A run of the stub, and what tests want to know of it."""

    def __init__(self, path: Path) -> None:
        self.path, self.layout = path, RunLayout(path)

    def do(self, kind: str, **options: Any) -> CommandResult:
        return carry_out(self.path, Command(kind, options))

    def status(self) -> RunStatus:
        return read_status(self.path)

    def journal(self) -> list[dict[str, Any]]:
        """Return the journal as it lies on disk: what it says to whoever reads the file."""
        return list(documents((read_text(self.layout.journal) or "").split("\n")))

    def kinds(self) -> list[str]:
        return [entry["kind"] for entry in self.journal()]

    def outcome_of(self, command: Command) -> Any:
        """Return how the one outcome of a command is journaled, None before it is."""
        done = [one for one in self.journal() if one["kind"] == "command_done" and one["id"] == command.id]
        assert len(done) < 2
        return done[0] if done else None

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

    def await_leave(self) -> None:
        """Wait until its supervisor has left, and end what an alarm has it keep for 20 s: the next worker."""

        def left() -> bool:
            state = read_state(self.layout.supervisor)
            if state is not None and state.waiting is not None:
                send(state.waiting, 9)
            return not self.supervisor_alive()

        eventually(left, lambda: str(self.status()))

    def await_state(self, *states: str) -> RunStatus:
        eventually(lambda: self.status().state in states, lambda: str(self.status()))
        return self.status()

    def await_step(self) -> RunStatus:
        eventually(lambda: self.status().step is not None, lambda: str(self.status()))
        return self.status()


def own_home(place: Path) -> dict[str, str]:
    """Return an environment with configuration, cache and state in `place`; supervisors there are quick."""
    config = place / "config" / "nantui" / "supervise.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(QUICK)
    homes = {f"XDG_{name}_HOME": str(place / name.lower()) for name in ("CONFIG", "CACHE", "STATE")}
    return {**homes, "STUB_PYTHON": PYTHON}


def stub_interpreter(place: Path, helpers: str = PYTHON) -> str:
    """Return an "interpreter" that plays the worker's modules; `helpers` runs those that do not train."""
    light = f"{entry_points.CHECK_ARGUMENTS}|{entry_points.RECOVERY}|{entry_points.DATA_SET_DIGEST}"
    script = place / "stub-python"
    script.write_text(
        f'#!/bin/sh\ncase "$2" in {light}) exec "{helpers}" "{STUB}" "$@";; esac\n'
        f'exec "{PYTHON}" "{STUB}" "$@"\n'
    )
    script.chmod(0o755)
    return str(script)


class Runs:
    """Makes runs below `place`; `end` leaves no process of any of them."""

    def __init__(self, place: Path, python: str) -> None:
        self.place, self.python = place, python
        self.made: list[StubRun] = []

    def make(
        self, name: str = "stub", start: bool = True, auto: bool = False, devices: int = 1, **how: Any
    ) -> StubRun:
        train = {
            "project": str(self.place / "runs"),
            "name": name,
            "epochs": how.pop("epochs", 500),
            "stub": how,
            "device": ",".join(map(str, range(devices))),
        }
        self.made.append(StubRun(create_run(train, python=self.python, start=start, auto=auto)))
        return self.made[-1]

    def end(self) -> None:
        for run in self.made:
            state = read_state(run.layout.supervisor)
            if state is not None and state.process.pid != os.getpid():
                send(state.process, 9)
            for ref in run.members():
                send(ref, 9)
