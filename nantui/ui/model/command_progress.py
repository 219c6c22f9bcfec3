"""What became of a command, from the journal: its stages, its outcome, and what is in effect afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from nantui.run.commands import Command
from nantui.run.events import (
    AttemptStarted,
    CommandDone,
    CommandReceived,
    Event,
    InEffect,
    Stage,
    newest,
    of_kind,
)
from nantui.run.journal import standing_attempt
from nantui.ui.format import WORDS, clean

Unanswered = dict[str, Command]
"""The commands that were sent and whose outcome is not in the journal yet, by id, oldest first."""


@dataclass(frozen=True)
class CommandProgress:
    """`done` is None while it runs. `effect` is what the worker reported of what was `asked`, None until
    then.
    """

    stages: tuple[Stage, ...] = ()
    done: CommandDone | None = None
    asked: Mapping[str, object] = field(default_factory=dict)
    effect: InEffect | None = None


@dataclass(frozen=True)
class CommandOutcome:
    """How a command ended that this cockpit has sent."""

    command: Command
    ok: bool
    text: str

    def refusal(self) -> str:
        """Say what was not done and why, whole."""
        kind = self.command.kind
        return f"{WORDS['commands'].get(kind, kind)}: NOT DONE. {clean(self.text, 1200)}"


def settle(sent: Unanswered, journal: Iterable[Event]) -> list[CommandOutcome]:
    """Take the commands out of `sent` whose outcomes have come, and return these."""
    return [
        CommandOutcome(sent.pop(event.id), event.ok, event.text)
        for event in journal
        if isinstance(event, CommandDone) and event.id in sent
    ]


def follow(command: str, journal: Iterable[Event]) -> CommandProgress:
    """Return what the journal says about the command with this id."""
    stages: list[Stage] = []
    done: CommandDone | None = None
    seen = False
    asked: Mapping[str, object] = {}
    effect: InEffect | None = None
    for event in journal:
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
    return CommandProgress(tuple(stages), done, asked, effect)


def newest_change(journal: Sequence[Event]) -> Event | None:
    """Return the newest event after which other settings may be in effect, without what was taken back; None
    without one.
    """
    last = newest(journal, AttemptStarted, InEffect)
    standing = standing_attempt(journal, last.attempt) if last and last.attempt else None
    changes = of_kind(journal, AttemptStarted, InEffect)
    return next((one for one in reversed(changes) if one.attempt == standing), None)


def reported_values(journal: Sequence[Event]) -> Mapping[str, object]:
    """Return what the worker of the standing attempt has reported to be in effect, empty before it has."""
    found = newest_change(journal)
    return found.values if isinstance(found, InEffect) else {}
