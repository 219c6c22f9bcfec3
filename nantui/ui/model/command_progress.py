"""What became of a command, from the journal: its stages, its outcome, and what is in effect afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from nantui.run.commands import Command
from nantui.run.events import AttemptStarted, CommandDone, CommandReceived, Event, InEffect, Stage
from nantui.ui.format import clean
from nantui.ui.model.snapshot import RunSnapshot
from nantui.words import COMMANDS


@dataclass(frozen=True)
class CommandProgress:
    """`ok` is None while it runs. `values` are what the worker reported of what was `asked`, None until then;
    `notes` are its remarks, e.g. that mosaic is closed.
    """

    command: str
    kind: str
    stages: tuple[tuple[str, str], ...] = ()
    ok: bool | None = None
    text: str = ""
    asked: tuple[tuple[str, object], ...] = ()
    values: tuple[tuple[str, object], ...] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class CommandOutcome:
    """How a command ended that this cockpit has sent."""

    command: Command
    ok: bool
    text: str

    def refusal(self) -> str:
        """Say what was not done and why, whole."""
        return f"{COMMANDS.get(self.command.kind, self.command.kind)}: NOT DONE. {clean(self.text, 1200)}"


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

    def settle(self, journal: Iterable[Event]) -> list[CommandOutcome]:
        """Return the outcomes that have come, each once."""
        if not self._sent:
            return []
        return [
            CommandOutcome(self._sent.pop(event.id), event.ok, event.text)
            for event in journal
            if isinstance(event, CommandDone) and event.id in self._sent
        ]

    def fail(self, id: str, problem: str) -> list[CommandOutcome]:
        """Return the outcome of a command that could not even be left."""
        return [CommandOutcome(self._sent.pop(id), False, problem)] if id in self._sent else []


def follow(command: str, kind: str, snapshot: RunSnapshot) -> CommandProgress:
    """Return what the journal says about `command`."""
    stages: list[Stage] = []
    done: CommandDone | None = None
    seen = False
    asked: Mapping[str, object] = {}
    effect: InEffect | None = None
    for event in snapshot.journal:
        match event:
            case CommandReceived() if event.command.id == command:
                seen = True
            case Stage() if event.command == command:
                seen = True
                stages.append(event)
            case CommandDone() if event.id == command:
                done = event
            case AttemptStarted() if seen:
                asked, effect = event.asked, None
            case InEffect() if seen:
                effect = event
    values = effect.values if effect is not None else {}
    return CommandProgress(
        command,
        kind,
        tuple((event.stage, event.text) for event in stages),
        None if done is None else done.ok,
        "" if done is None else done.text,
        tuple(asked.items()),
        None if effect is None else tuple((name, values[name]) for name in asked if name in values),
        () if effect is None else effect.notes,
    )
