"""Stands in for the supervisor where one handler is tried: no process, and it remembers what was said."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

from nantui.machine.process_identity import ProcessRef, ref_of, this_machine
from nantui.machine.process_tree import Leftover
from nantui.run.attempts import Attempt
from nantui.run.endings import Traces
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.supervisor.attempt_watch import Watch
from nantui.supervisor.config import Patience
from nantui.supervisor.hosts.leader import Leading
from nantui.supervisor.outcome import Ending
from nantui.supervisor.state import SupervisorState


class FakePort:
    """A `CommandPort` of a run in `run`, in which nothing trains."""

    def __init__(self, run: Path) -> None:
        self.layout, self.patience = RunLayout(run), Patience()
        self.layout.attempts.mkdir(parents=True, exist_ok=True)
        self.layout.lock.touch()  # whoever acts on a run holds it
        self.journal = Journal(self.layout.journal)
        own = ref_of(os.getpid())
        assert own is not None
        self.state = SupervisorState(own, this_machine(), state="")
        self.watch: Watch | None = None
        self.waiting = None
        self.hosts = Leading(self.layout, self.patience, list)
        self.said: list[str] = []
        self.staged: list[tuple[str, str]] = []
        self.told: list[tuple[str, str]] = []
        self.begun: list[tuple[Attempt, str | None]] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def pump(self, seconds: float) -> None:
        return

    def bring_up(self) -> None:
        return

    def start_helper(self, child: subprocess.Popen[bytes]) -> None:
        return

    def publish(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)

    def stage(self, command: str, stage: str, text: str) -> None:
        self.staged.append((stage, text))

    def tell(self, event: str, text: str) -> None:
        self.told.append((event, text))

    def worker_alive(self) -> bool:
        return False

    def find_members(self) -> list[ProcessRef]:
        return []

    def end_members(self, grace_s: float) -> None:
        return

    def refuse_leftover(self, left: list[Leftover]) -> None:
        assert not left

    def read_watch(self) -> None:
        return

    def settle(self, seen: Traces) -> Ending:
        return Ending("stopped")

    def begin(self, attempt: Attempt, cwd: str | None) -> None:
        self.begun.append((attempt, cwd))
