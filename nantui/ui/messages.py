"""What threads tell the screens. A newer snapshot replaces one that waits,
so a slow screen never falls behind.
"""

from __future__ import annotations

from typing import Any

from textual.message import Message

from nantui.run.status import RunStatus
from nantui.ui.data.snapshot import Checkpoint, RunSnapshot


class SnapshotTaken(Message):
    """A new look at the run, or None and what went wrong."""

    def __init__(self, snapshot: RunSnapshot | None, problem: str = "") -> None:
        super().__init__()
        self.snapshot, self.problem = snapshot, problem

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, SnapshotTaken)


class MachineMeasured(Message):
    """A sample of GPUs and host."""

    def __init__(self, machine: Any) -> None:
        super().__init__()
        self.machine = machine

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, MachineMeasured)


class VerdictsFound(Message):
    """What the scan says about checkpoints; `waiting` are still to be looked at."""

    def __init__(self, verdicts: dict[Checkpoint, Any], waiting: frozenset[Checkpoint]) -> None:
        super().__init__()
        self.verdicts, self.waiting = verdicts, waiting

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, VerdictsFound)


class Answer(Message):
    """What a thread found out for a dialog: `value`, or the text of what went wrong."""

    def __init__(self, about: str, value: Any = None, problem: str = "") -> None:
        super().__init__()
        self.about, self.value, self.problem = about, value, problem


class FleetRead(Message):
    """Where every run below a directory stands; not `whole` while more are being read."""

    def __init__(self, statuses: list[RunStatus], whole: bool = True) -> None:
        super().__init__()
        self.statuses, self.whole = statuses, whole

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, FleetRead)


class LogRead(Message):
    """New lines of a log."""

    def __init__(self, lines: list[str], restarted: bool) -> None:
        super().__init__()
        self.lines, self.restarted = lines, restarted


class Counted(Message):
    """How far a long look has come."""

    def __init__(self, done: int, total: int) -> None:
        super().__init__()
        self.done, self.total = done, total

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, Counted)


class Stumbled(Message):
    """A watching thread met something unexpected; it goes on."""

    def __init__(self, who: str, problem: str) -> None:
        super().__init__()
        self.who, self.problem = who, problem
