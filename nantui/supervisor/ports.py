"""What a command may ask of the supervisor that carries it out: no more than its part needs.

The supervisor is both ports, and so is whatever a test puts in its place.
"""

from __future__ import annotations

import subprocess
from typing import Any, Protocol

from nantui.machine.process_identity import ProcessRef
from nantui.machine.process_tree import Leftover
from nantui.machine.waiting_process import WaitingProcess
from nantui.run.attempts import Attempt
from nantui.run.endings import Traces
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.supervisor.attempt_watch import Watch
from nantui.supervisor.config import Patience
from nantui.supervisor.hosts.leader import Leading
from nantui.supervisor.outcome import Ending
from nantui.supervisor.state import SupervisorState


class RunPort(Protocol):
    """The run's files, what everybody is shown, and waiting while the supervisor goes on watching; no process
    of the training. `Supervisor` says what each method does.
    """

    layout: RunLayout
    journal: Journal
    state: SupervisorState
    waiting: WaitingProcess | None

    def say(self, text: str) -> None: ...
    def publish(self, **changes: Any) -> None: ...
    def stage(self, command: str, stage: str, text: str) -> None: ...
    def tell(self, event: str, text: str) -> None: ...
    def pump(self, seconds: float) -> None: ...
    def bring_up(self) -> None: ...
    def start_helper(self, child: subprocess.Popen[bytes]) -> None: ...


class CommandPort(RunPort, Protocol):
    """Also the attempt that runs, how it is brought to its end, and the next one."""

    watch: Watch | None
    hosts: Leading
    patience: Patience

    def worker_alive(self) -> bool: ...
    def find_members(self) -> list[ProcessRef]: ...
    def end_members(self, grace_s: float) -> None: ...
    def refuse_leftover(self, left: list[Leftover]) -> None: ...
    def read_watch(self) -> None: ...
    def settle(self, seen: Traces) -> Ending: ...
    def begin(self, attempt: Attempt, cwd: str | None) -> None: ...
