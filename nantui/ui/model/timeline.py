"""The journal and the events as sentences: what happened, when, who asked."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from nantui.run.events import (
    Adopted,
    AttemptEnded,
    AttemptStarted,
    Autopsy,
    CommandDone,
    CommandReceived,
    Created,
    EpochEnded,
    Event,
    Incident,
    InEffect,
    Lost,
    Note,
    PhaseBegun,
    RewindDone,
    RollbackBegun,
    RollbackDone,
    RollbackReverted,
    SaveFailed,
    Stage,
    Stopping,
    UndoBegun,
    UndoDone,
    ValidationPrecision,
    Warned,
)
from nantui.run.incidents import INCIDENTS
from nantui.run.points import in_words
from nantui.ui.format import clean
from nantui.words import ACTIONS, BEGINNINGS, COMMANDS, count

ONLY_EVENTS = (Warned, SaveFailed, Autopsy, EpochEnded, Stopping, ValidationPrecision, RewindDone)
Told = tuple[str, str]
"""A text and how grave it is; ("", "") for what is no news."""
IN_ITS_OWN_WORDS: Mapping[type[Event], Told] = {
    Stage: ("", "muted"),
    PhaseBegun: ("", "info"),
    RollbackDone: ("rollback done: ", "good"),
    RollbackReverted: ("rollback taken back: ", "warn"),
    UndoBegun: ("undo begun: ", "info"),
    UndoDone: ("undo done: ", "good"),
    Adopted: ("adopted: ", "info"),
    Lost: ("lost: ", "bad"),
    Note: ("", "muted"),
    Warned: ("warning: ", "warn"),
    SaveFailed: ("save failed: ", "bad"),
    Autopsy: ("autopsy: ", "warn"),
    ValidationPrecision: ("", "muted"),
    RewindDone: ("", "warn"),
}
"""What stands before the text of an event that brings its own."""


@dataclass(frozen=True)
class Sentence:
    """One line of the timeline. `ink` tells how grave it is; `event` is what it was made from."""

    t: float
    text: str
    ink: str
    event: Event

    @property
    def clock(self) -> str:
        """The time of day where the screen is."""
        return time.strftime("%H:%M:%S", time.localtime(self.t))


def incident_text(incident: str) -> str:
    """Return what a kind of incident is, in words."""
    known = INCIDENTS.get(incident)
    return known.title if known else clean(incident.replace("_", " ")) or "something is wrong"


def where(epoch: int | None, step: int | None) -> str:
    """Return `epoch 4 step 7`, as far as it is known."""
    places = (("epoch", epoch), ("step", step))
    return " ".join(f"{name} {number}" for name, number in places if number is not None)


def action_text(action: str) -> str:
    """Return what was done about an incident."""
    return ACTIONS.get(action, " ".join(clean(action).split()))


def sentences(journal: Iterable[Event], events: Iterable[Event] = ()) -> list[Sentence]:
    """Return the timeline, oldest first: the journal, and those events that the journal does not repeat."""
    journal = tuple(journal)
    known = {(event.kind, event.text) for event in journal}
    own = (
        event for event in events if isinstance(event, ONLY_EVENTS) and (event.kind, event.text) not in known
    )
    found: list[Sentence] = []
    asked, told = True, ""
    for event in (*journal, *own):
        before = found[-1].event if found else None
        if isinstance(event, AttemptStarted):
            asked = bool(event.asked)
        elif isinstance(event, (RollbackDone, UndoDone)):
            told = event.text
        if isinstance(event, EpochEnded) and isinstance(before, EpochEnded):
            found[-1] = _until(event, found[-1], before)
        elif not _says_nothing_new(event, asked, told) and (sentence := _sentence(event)) is not None:
            again = f"{told}; " if isinstance(event, CommandDone) and event.ok and told else ""
            found.append(replace(sentence, text=sentence.text.replace(again, "", 1)) if again else sentence)
    return sorted(found, key=lambda sentence: sentence.t)


def _says_nothing_new(event: Event, asked: bool, told: str) -> bool:
    """Whether an event is no news: nothing was asked for, or the rollback itself has told all of it."""
    if isinstance(event, InEffect):
        return not (asked or event.differences or event.unreported)
    return isinstance(event, CommandDone) and event.ok and bool(told) and event.text == told


def _until(event: EpochEnded, sentence: Sentence, first: EpochEnded) -> Sentence:
    """Put neighbouring epochs whose losses are not finite into one sentence; healthy ones are no news."""
    if event.finite or event.epoch is None:
        return sentence
    text = f"epochs {_known(first.epoch)} to {event.epoch} have losses that are not finite"
    return replace(sentence, text=text)


def _sentence(event: Event) -> Sentence | None:
    text, ink = _told(event)
    return Sentence(event.t, clean(text, 600), ink, event) if text else None


def _told(event: Event) -> Told:
    match event:
        case Created():
            return f"run created by {event.by or '?'}", "muted"
        case AttemptStarted():
            return _attempt_started(event)
        case AttemptEnded():
            return _attempt_ended(event)
        case Incident():
            return _incident(event)
        case InEffect():
            return _in_effect(event)
        case CommandReceived():
            kind = event.command.kind
            return f"{event.by or 'somebody'} asked to {COMMANDS.get(kind, kind)}", "info"
        case CommandDone():
            return _command_done(event)
        case RollbackBegun():
            return _rollback_begun(event)
        case EpochEnded():
            text = f"epoch {_known(event.epoch)} has losses that are not finite"
            return ("", "") if event.finite else (text, "bad")
        case Stopping():
            return f"stopping at {where(event.epoch, event.step)}", "info"
    lead, ink = IN_ITS_OWN_WORDS.get(type(event), ("", ""))
    return (lead + _own_words(event), ink) if ink else ("", "")


def _own_words(event: Event) -> str:
    match event:
        case Warned():
            return event.text or event.warning
        case SaveFailed():
            return event.text or event.path
        case Autopsy():
            return event.text or event.cause
        case UndoBegun():
            return event.text.replace(" was taken back", " is taken back", 1)
    return event.text


def _attempt_started(event: AttemptStarted) -> Told:
    mode = BEGINNINGS.get(event.mode, event.mode or "started")
    origin = f" from {event.checkpoint}" if event.checkpoint else ""
    epoch = f", epoch {event.epoch}" if event.epoch else ""
    place = f", phase {event.phase.number} of {event.phase.of}" if event.phase else ""
    return f"attempt {_known(event.attempt)} {mode}{origin}{epoch}{place}", "good"


def _attempt_ended(event: AttemptEnded) -> Told:
    place = where(event.epoch, event.step)
    text = f"attempt {_known(event.attempt)} {event.outcome or 'ended'}{f' at {place}' if place else ''}"
    more = f": {event.text}" if event.text else ""
    return text + more, "good" if event.outcome in ("finished", "stopped") else "bad"


def _incident(event: Incident) -> Told:
    done = action_text(event.action)
    hosts = ", ".join(clean(host, 24) for host in event.hosts)
    place = where(event.epoch, event.step) + (f" on host {hosts}" if hosts else "")
    text = f"{incident_text(event.incident)} at {place}" + (f": {done}" if done else "")
    return text, "warn" if event.harmless else "bad"


def _in_effect(event: InEffect) -> Told:
    if event.differences:
        words = (f"{one.name}: asked {one.asked}, in effect {one.in_effect}" for one in event.differences)
        return "not as asked: " + "; ".join(words), "warn"
    if not event.unreported:
        return "every setting asked for is in effect", "good"
    unreported = ", ".join(clean(name, 24) for name in event.unreported)
    notes = "; ".join(clean(note, 100) for note in event.notes)
    why = f" ({notes})" if notes else ""
    return f"in effect as asked, as far as reported; not reported: {unreported}{why}", "info"


def _command_done(event: CommandDone) -> Told:
    text = f"{event.command_kind or 'command'} {'done' if event.ok else 'failed'}"
    return text + (f": {event.text}" if event.text else ""), "good" if event.ok else "bad"


def _rollback_begun(event: RollbackBegun) -> Told:
    cost = "" if not event.epochs_lost else f", giving up {count(event.epochs_lost, 'epoch')}"
    return f"rollback to {in_words(_known(event.restore_point), event.epoch)}{cost}", "info"


def _known(value: int | str | None) -> str:
    return "?" if value is None else str(value)
