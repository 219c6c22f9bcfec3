"""What became of a command, from the journal: its stages, its outcome, and what is in effect afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from nantui.run import events
from nantui.run.commands import Command
from nantui.run.journal import standing_attempt
from nantui.ui.format import WORDS, clean

Unanswered = dict[str, Command]
"""The commands that were sent and whose outcome is not in the journal yet, by id, oldest first."""


@dataclass(frozen=True)
class CommandProgress:
    """`done` is None while it runs, `effect` until the worker has reported what is in effect of `asked`."""

    stages: tuple[events.Stage, ...] = ()
    done: events.CommandDone | None = None
    asked: Mapping[str, object] = field(default_factory=dict)
    effect: events.InEffect | None = None


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


def settle(sent: Unanswered, journal: Iterable[events.Event]) -> list[CommandOutcome]:
    """Take the commands out of `sent` whose outcomes have come, and return these."""
    return [
        CommandOutcome(sent.pop(event.id), event.ok, event.text)
        for event in journal
        if isinstance(event, events.CommandDone) and event.id in sent
    ]


def follow(command: str, journal: Iterable[events.Event]) -> CommandProgress:
    """Return what the journal says about the command with this id."""
    stages: list[events.Stage] = []
    done: events.CommandDone | None = None
    seen = False
    asked: Mapping[str, object] = {}
    effect: events.InEffect | None = None
    for event in journal:
        match event:
            case events.CommandReceived() if event.command.id == command:
                seen = True
            case events.Stage() if event.command == command:
                seen = True
                stages.append(event)
            case events.CommandDone() if event.id == command:
                done = event
            case events.AttemptStarted() if seen:
                asked, effect = event.asked, None
            case events.InEffect() if seen:
                effect = event
    return CommandProgress(tuple(stages), done, asked, effect)


def newest_change(journal: Sequence[events.Event]) -> events.Event | None:
    """Return the newest event since which other settings may be in effect, none of what was taken back."""
    last = events.newest(journal, events.AttemptStarted, events.InEffect)
    standing = standing_attempt(journal, last.attempt) if last and last.attempt else None
    changes = events.of_kind(journal, events.AttemptStarted, events.InEffect)
    return next((one for one in reversed(changes) if one.attempt == standing), None)


def reported_values(journal: Sequence[events.Event]) -> Mapping[str, object]:
    """Return what the worker of the standing attempt has reported to be in effect, empty before it has."""
    found = newest_change(journal)
    return found.values if isinstance(found, events.InEffect) else {}
