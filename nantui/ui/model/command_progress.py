"""What became of a command, from the journal: its stages, its outcome, and what is in effect afterwards."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nantui.run.commands import Command
from nantui.run.journal import Entry
from nantui.ui.format import clean
from nantui.ui.model.snapshot import RunSnapshot
from nantui.ui.model.timeline import VERBS


@dataclass(frozen=True)
class CommandProgress:
    """`ok` is None while it runs. `values` are what the worker reported of what was `asked`, None until then;
    `notes` are its remarks, e.g. that mosaic is closed.
    """

    command: str
    kind: str
    stages: tuple[tuple[float, str, str], ...] = ()
    ok: bool | None = None
    text: str = ""
    t: float = 0.0
    asked: tuple[tuple[str, Any], ...] = ()
    values: tuple[tuple[str, Any], ...] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CommandOutcome:
    """How a command ended that this cockpit has sent."""

    command: Command
    ok: bool
    text: str

    def refusal(self) -> str:
        """Say what was not done and why, whole."""
        return f"{VERBS.get(self.command.kind, self.command.kind)}: NOT DONE. {clean(self.text, 1200)}"


class Unanswered:
    """The commands that were sent and whose outcome is not in the journal yet."""

    def __init__(self) -> None:
        self._sent: dict[str, Command] = {}

    @property
    def commands(self) -> tuple[Command, ...]:
        """These commands, oldest first."""
        return tuple(self._sent.values())

    def add(self, command: Command) -> None:
        """Take note of a command that was left for the supervisor."""
        self._sent[command.id] = command

    def settle(self, journal: Iterable[Entry]) -> list[CommandOutcome]:
        """Return the outcomes that have come, each once."""
        if not self._sent:
            return []
        return [
            CommandOutcome(
                self._sent.pop(entry["id"]), entry.get("ok") is not False, str(entry.get("text", ""))
            )
            for entry in journal
            if entry["kind"] == "command_done" and entry.get("id") in self._sent
        ]

    def fail(self, id: str, problem: str) -> list[CommandOutcome]:
        """Return the outcome of a command that could not even be left."""
        return [CommandOutcome(self._sent.pop(id), False, problem)] if id in self._sent else []


def follow(command: str, kind: str, snapshot: RunSnapshot) -> CommandProgress:
    """Return what the journal says about `command`."""
    stages: list[tuple[float, str, str]] = []
    done: dict[str, Any] = {}
    seen = False
    asked: dict[str, Any] = {}
    values: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    for entry in snapshot.journal:
        if entry["kind"] == "command" and _id_of(entry) == command:
            seen = True
        if entry["kind"] == "stage" and entry.get("command") == command:
            seen = True
            stages.append((float(entry.get("t", 0)), str(entry.get("stage", "")), str(entry.get("text", ""))))
        if entry["kind"] == "command_done" and entry.get("id") == command:
            done = entry
        if seen and entry["kind"] == "attempt_started" and isinstance(entry.get("asked"), dict):
            asked, values = entry["asked"], None
        if seen and entry["kind"] == "in_effect" and isinstance(entry.get("values"), dict):
            values, notes = entry["values"], tuple(map(str, entry.get("notes") or ()))
    effects = None if values is None else tuple((name, values[name]) for name in asked if name in values)
    return CommandProgress(
        command,
        kind,
        tuple(stages),
        None if not done else done.get("ok") is not False,
        str(done.get("text", "")),
        float(done.get("t", 0)),
        tuple(asked.items()),
        effects,
        notes,
    )


def _id_of(entry: dict[str, Any]) -> str:
    command = entry.get("command")
    return str(command.get("id", "")) if isinstance(command, dict) else str(command or "")
