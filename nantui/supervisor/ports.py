"""What a command may ask of the supervisor that carries it out: no more than its part needs.

Each port adds something to the one before, `CommandPort` has it all. The supervisor is every one of them, and
so is whatever a test puts in its place.
"""

from __future__ import annotations

import subprocess
from typing import Any, Protocol

from nantui.machine.process_identity import ProcessRef
from nantui.machine.process_tree import Leftover
from nantui.run.attempts import Attempt
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.supervisor.attempt_watch import Watch
from nantui.supervisor.config import Patience
from nantui.supervisor.hosts.leader import Leading
from nantui.supervisor.outcome import Ending
from nantui.supervisor.state import SupervisorState


class RunPort(Protocol):
    """The run: its files, its journal, its supervisor.log."""

    layout: RunLayout
    journal: Journal

    def say(self, text: str) -> None:
        """Write a line into supervisor.log."""


class WaitPort(RunPort, Protocol):
    """Waiting, alone or for a helper process, while the supervisor goes on watching."""

    def pump(self, seconds: float) -> None:
        """Wait, doing the chores."""

    def start_helper(self, child: subprocess.Popen[bytes]) -> None:
        """Remember what was started beside the worker: it is never taken for a part of the training."""


class StatusPort(RunPort, Protocol):
    """What everybody is shown."""

    state: SupervisorState

    def publish(self, **changes: Any) -> None:
        """Change the published state and write it."""

    def stage(self, command: str, stage: str, text: str) -> None:
        """Say how far a long command is, in the journal and in the published state."""

    def tell(self, event: str, text: str) -> None:
        """Notify whoever the user's configuration names."""


class HelperPort(WaitPort, StatusPort, Protocol):
    """A helper process, and what is shown of it."""


class StopPort(HelperPort, Protocol):
    """The attempt that runs, and how it is brought to its end."""

    watch: Watch | None
    hosts: Leading

    @property
    def patience(self) -> Patience:
        """How long each part of an end may take."""

    def worker_alive(self) -> bool:
        """Tell whether the process that was started for the attempt lives, or is yet to be started."""

    def find_members(self) -> list[ProcessRef]:
        """Return every living process of the current attempt."""

    def end_members(self, grace_s: float) -> list[Leftover]:
        """SIGTERM, then SIGKILL every process of the attempt; returns what does not die."""

    def refuse_leftover(self, left: list[Leftover]) -> None:
        """Raise UserError when processes are left."""

    def read_watch(self) -> None:
        """Take over what the ranks have written into the journal and the published state."""

    def settle(self, *, stopped_by: str = "", because: str = "", told: str = "", hung: str = "") -> Ending:
        """After the worker's end: end what it left, find out how it ended, tell everybody."""


class CommandPort(StopPort, Protocol):
    """All of it, and the next attempt."""

    @property
    def attempt(self) -> Attempt | None:
        """The attempt that is watched."""

    def begin(self, attempt: Attempt, cwd: str | None) -> None:
        """Start the worker of `attempt` and publish it."""
