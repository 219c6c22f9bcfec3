"""The journal and the events as sentences: what happened, when, who asked."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from nantui.run import events as kinds
from nantui.run.events import Event
from nantui.run.incidents import INCIDENTS
from nantui.run.points import in_words
from nantui.ui.format import WORDS, clean
from nantui.words import count

NOT_IN_THE_JOURNAL = (
    kinds.Warned, kinds.SaveFailed, kinds.Autopsy, kinds.EpochEnded, kinds.Stopping,
    kinds.ValidationPrecision, kinds.RewindDone,
)  # fmt: skip
Told = tuple[str, str]
"""A text and how grave it is."""
NO_NEWS = ("", "")
IN_ITS_OWN_WORDS: Mapping[type[Event], Told] = {
    kinds.Stage: ("", "muted"), kinds.PhaseBegun: ("", "info"),
    kinds.RollbackDone: ("rollback done: ", "good"),
    kinds.RollbackReverted: ("rollback taken back: ", "warn"), kinds.UndoDone: ("undo done: ", "good"),
    kinds.Adopted: ("adopted: ", "info"), kinds.Lost: ("lost: ", "bad"), kinds.Note: ("", "muted"),
    kinds.ValidationPrecision: ("", "muted"), kinds.RewindDone: ("", "warn"),
}  # fmt: skip
"""What stands before the text of an event that brings its own."""


@dataclass(frozen=True)
class Sentence:
    """One line of the timeline. `ink` tells how grave it is; `event` is what it was made from."""

    text: str
    ink: str
    event: Event

    @property
    def clock(self) -> str:
        """The time of day where the screen is."""
        return time.strftime("%H:%M:%S", time.localtime(self.event.t))


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
    return WORDS["actions"].get(action, " ".join(clean(action).split()))


def incident_sentence(incident: kinds.Incident) -> str:
    """Return an incident in one sentence: what it is, where it was, what was done about it."""
    hosts = ", ".join(clean(host, 24) for host in incident.hosts)
    place = where(incident.epoch, incident.step) + (f" on host {hosts}" if hosts else "")
    return f"{incident_text(incident.incident)}{_at(place)}{_more(action_text(incident.action))}"


def sentences(journal: Iterable[Event], events: Iterable[Event] = ()) -> list[Sentence]:
    """Return the timeline, oldest first: the journal, and those events that the journal does not repeat."""
    journal = tuple(journal)
    known = {(event.kind, event.text) for event in journal}
    own = (
        event
        for event in events
        if isinstance(event, NOT_IN_THE_JOURNAL) and (event.kind, event.text) not in known
    )
    found: list[Sentence] = []
    asked, told = True, ""
    for event in (*journal, *own):
        before = found[-1].event if found else None
        if isinstance(event, kinds.AttemptStarted):
            asked = bool(event.asked)
        elif isinstance(event, (kinds.RollbackDone, kinds.UndoDone)):
            told = event.text
        if isinstance(event, kinds.EpochEnded) and isinstance(before, kinds.EpochEnded):
            if not event.finite:  # neighbouring epochs are one sentence
                span = f"epochs {_known(before.epoch)} to {_known(event.epoch)}"
                found[-1] = replace(found[-1], text=f"{span} have losses that are not finite")
        elif not _says_nothing_new(event, asked, told):
            text, ink = _told(event)
            if isinstance(event, kinds.CommandDone) and event.ok and told:
                text = text.replace(f"{told}; ", "", 1)
            found += [Sentence(clean(text, 600), ink, event)] if text else []
    return sorted(found, key=lambda sentence: sentence.event.t)


def _says_nothing_new(event: Event, asked: bool, told: str) -> bool:
    """Whether an event is no news: nothing was asked for, or the rollback itself has told all of it."""
    if isinstance(event, kinds.InEffect):
        return not (asked or event.differences or event.unreported)
    return isinstance(event, kinds.CommandDone) and event.ok and bool(told) and event.text == told


def _told(event: Event) -> Told:
    match event:
        case kinds.Created():
            return f"run created by {event.by or '?'}", "muted"
        case kinds.AttemptStarted():
            return _attempt_started(event)
        case kinds.AttemptEnded():
            ended = event.outcome or "ended"
            text = f"attempt {_known(event.attempt)} {ended}{_at(where(event.epoch, event.step))}"
            return text + _more(event.text), "good" if ended in ("finished", "stopped") else "bad"
        case kinds.Incident():
            return incident_sentence(event), "warn" if event.harmless else "bad"
        case kinds.InEffect():
            return _in_effect(event)
        case kinds.CommandReceived():
            kind = event.command.kind
            return f"{event.by or 'somebody'} asked to {WORDS['commands'].get(kind, kind)}", "info"
        case kinds.CommandDone():
            text = f"{event.command_kind or 'command'} {'done' if event.ok else 'failed'}{_more(event.text)}"
            return text, "good" if event.ok else "bad"
        case kinds.RollbackBegun():
            cost = f", giving up {count(event.epochs_lost, 'epoch')}" if event.epochs_lost else ""
            return f"rollback to {in_words(_known(event.restore_point), event.epoch)}{cost}", "info"
        case kinds.EpochEnded():
            text = f"epoch {_known(event.epoch)} has losses that are not finite"
            return NO_NEWS if event.finite else (text, "bad")
        case kinds.Stopping():
            return f"stopping{_at(where(event.epoch, event.step))}", "info"
        case kinds.Warned():
            return f"warning: {event.text or event.warning}", "warn"
        case kinds.SaveFailed():
            return f"save failed: {event.text or event.path}", "bad"
        case kinds.Autopsy():
            return f"autopsy: {event.text or event.cause}", "warn"
        case kinds.UndoBegun():
            return f"undo begun: {event.text.replace(' was taken back', ' is taken back', 1)}", "info"
    lead, ink = IN_ITS_OWN_WORDS.get(type(event), NO_NEWS)
    return (lead + event.text, ink) if ink else NO_NEWS


def _attempt_started(event: kinds.AttemptStarted) -> Told:
    mode = WORDS["beginnings"].get(event.mode, event.mode or "started")
    origin = f" from {event.checkpoint}" if event.checkpoint else ""
    epoch = f", epoch {event.epoch}" if event.epoch else ""
    place = f", phase {event.phase.number} of {event.phase.of}" if event.phase else ""
    return f"attempt {_known(event.attempt)} {mode}{origin}{epoch}{place}", "good"


def _in_effect(event: kinds.InEffect) -> Told:
    if event.differences:
        words = (f"{one.name}: asked {one.asked}, in effect {one.in_effect}" for one in event.differences)
        return "not as asked: " + "; ".join(words), "warn"
    if not event.unreported:
        return "every setting asked for is in effect", "good"
    unreported = ", ".join(clean(name, 24) for name in event.unreported)
    notes = "; ".join(clean(note, 100) for note in event.notes)
    why = f" ({notes})" if notes else ""
    return f"in effect as asked, as far as reported; not reported: {unreported}{why}", "info"


def _at(place: str) -> str:
    return f" at {place}" if place else ""


def _more(text: str) -> str:
    return f": {text}" if text else ""


def _known(value: int | str | None) -> str:
    return "?" if value is None else str(value)
