"""The journal and the events as sentences: what happened, when, who asked."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nantui.run.incidents import INCIDENTS
from nantui.run.journal import Entry
from nantui.ui.format import clean, count

ACTIONS = {
    "skipped": "step skipped, weights untouched",
    "observed": "only observed, weights may be ruined",
    "ended": "training ended",
    "warned": "only a warning, the training goes on",
}
ONLY_EVENTS = frozenset({"warning", "save_failed", "autopsy", "epoch", "stopping", "validation_precision"})
VERBS = {
    "start": "start", "stop": "stop", "kill": "kill", "rollback": "roll back", "undo": "undo the rollback",
    "resume": "resume", "recover": "recover", "set": "change settings",
    "quarantine": "change which images are left out",
}  # fmt: skip
MODES = {"start": "started", "resume": "resumed", "restart": "restarted from scratch"}


@dataclass(frozen=True)
class Sentence:
    """One line of the timeline. `ink` tells how grave it is; `entry` is what it was made from."""

    t: float
    text: str
    ink: str
    entry: Entry

    @property
    def clock(self) -> str:
        """The time of day where the screen is."""
        return time.strftime("%H:%M:%S", time.localtime(self.t))


def incident_text(entry: dict[str, Any]) -> str:
    """Return what an incident is, in words."""
    kind = str(entry.get("incident", entry.get("kind", "")))
    known = INCIDENTS.get(kind)
    return known.title if known else clean(kind.replace("_", " ")) or "something is wrong"


def where(entry: dict[str, Any]) -> str:
    """Return `epoch 4 step 7`, as far as it is known."""
    words = [f"{name} {clean(entry[name], 12)}" for name in ("epoch", "step") if entry.get(name) is not None]
    return " ".join(words)


def action_text(entry: dict[str, Any]) -> str:
    """Return what was done about an incident."""
    action = str(entry.get("action", ""))
    return ACTIONS.get(action, " ".join(clean(action).split()))


def sentences(journal: Iterable[Entry], events: Iterable[Entry] = ()) -> list[Sentence]:
    """Return the timeline, oldest first: the journal, and those events that the journal does not repeat."""
    journal = tuple(journal)
    known = {(entry["kind"], str(entry.get("text"))) for entry in journal}
    own = [
        entry
        for entry in events
        if entry["kind"] in ONLY_EVENTS and (entry["kind"], str(entry.get("text"))) not in known
    ]
    found = [_sentence(entry) for entry in (*journal, *_ill_epochs(own))]
    return sorted((sentence for sentence in found if sentence is not None), key=lambda sentence: sentence.t)


def _ill_epochs(events: list[Entry]) -> list[Entry]:
    """Put neighbouring epochs whose losses are not finite into one entry; healthy ones are no news."""
    kept: list[Entry] = []
    for entry in events:
        if entry["kind"] != "epoch":
            kept.append(entry)
        elif entry.get("finite") is False:
            if kept and kept[-1]["kind"] == "epoch":
                kept[-1] = {**kept[-1], "until": entry.get("epoch")}
            else:
                kept.append(entry)
    return kept


def _sentence(entry: Entry) -> Sentence | None:
    make = _MAKERS.get(str(entry["kind"]))
    if make is None:
        return None
    text, ink = make(entry)
    t = entry.get("t")
    return (
        Sentence(float(t) if isinstance(t, (int, float)) else 0.0, clean(text, 600), ink, entry)
        if text
        else None
    )


def _created(entry: Entry) -> tuple[str, str]:
    return f"run created by {entry.get('by', '?')}", "muted"


def _attempt_started(entry: Entry) -> tuple[str, str]:
    mode = MODES.get(str(entry.get("mode")), str(entry.get("mode", "started")))
    origin = f" from {entry['checkpoint']}" if entry.get("checkpoint") else ""
    epoch = f", epoch {entry['epoch']}" if entry.get("epoch") else ""
    phase = entry.get("phase")
    where = f", phase {phase.get('number')} of {phase.get('of')}" if isinstance(phase, dict) else ""
    return f"attempt {entry.get('attempt', '?')} {mode}{origin}{epoch}{where}", "good"


def _attempt_ended(entry: Entry) -> tuple[str, str]:
    outcome = str(entry.get("outcome", "ended"))
    place = where(entry)
    text = f"attempt {entry.get('attempt', '?')} {outcome}{f' at {place}' if place else ''}"
    more = f": {entry['text']}" if entry.get("text") else ""
    return text + more, "good" if outcome in ("finished", "stopped") else "bad"


def _incident(entry: Entry) -> tuple[str, str]:
    done = action_text(entry)
    hosts = ", ".join(clean(host, 24) for host in entry.get("hosts") or ())
    place = where(entry) + (f" on host {hosts}" if hosts else "")
    text = f"{incident_text(entry)} at {place}" + (f": {done}" if done else "")
    return text, "warn" if entry.get("action") == "skipped" else "bad"


def _in_effect(entry: Entry) -> tuple[str, str]:
    differences = entry.get("differences") or []
    unreported = ", ".join(clean(name, 24) for name in entry.get("unreported") or ())
    if not differences and unreported:
        notes = "; ".join(clean(note, 100) for note in entry.get("notes") or ())
        why = f" ({notes})" if notes else ""
        return f"in effect as asked, as far as reported; not reported: {unreported}{why}", "info"
    if not differences:
        return "every setting asked for is in effect", "good"
    words = [
        f"{d.get('name')}: asked {d.get('asked')}, in effect {d.get('in_effect')}"
        for d in differences
        if isinstance(d, dict)
    ]
    return "not as asked: " + "; ".join(words), "warn"


def _command(entry: Entry) -> tuple[str, str]:
    command = entry.get("command")
    kind = str(command.get("kind", "")) if isinstance(command, dict) else ""
    return f"{entry.get('by', 'somebody')} asked to {VERBS.get(kind, kind)}", "info"


def _command_done(entry: Entry) -> tuple[str, str]:
    kind = str(entry.get("command_kind", "command"))
    ok = entry.get("ok") is not False
    text = str(entry.get("text", ""))
    return f"{kind} {'done' if ok else 'failed'}{f': {text}' if text else ''}", "good" if ok else "bad"


def _rollback_begun(entry: Entry) -> tuple[str, str]:
    lost = entry.get("epochs_lost")
    cost = f", giving up {count(lost, 'epoch')}" if isinstance(lost, int) else ""
    return f"rollback to {entry.get('restore_point', '?')} (epoch {entry.get('epoch', '?')}){cost}", "info"


def _epoch(entry: Entry) -> tuple[str, str]:
    if entry.get("until"):
        return f"epochs {entry.get('epoch', '?')} to {entry['until']} have losses that are not finite", "bad"
    return f"epoch {entry.get('epoch', '?')} has losses that are not finite", "bad"


def _texted(prefix: str, ink: str) -> Any:
    def make(entry: Entry) -> tuple[str, str]:
        text = entry.get("text") or entry.get("cause") or entry.get("warning") or entry.get("path") or ""
        return (f"{prefix}{text}", ink) if text or prefix else ("", "")

    return make


_MAKERS: dict[str, Any] = {
    "created": _created,
    "attempt_started": _attempt_started,
    "attempt_ended": _attempt_ended,
    "incident": _incident,
    "in_effect": _in_effect,
    "command": _command,
    "command_done": _command_done,
    "stage": _texted("", "muted"),
    "rollback_begun": _rollback_begun,
    "phase_begun": _texted("", "info"),
    "rollback_done": _texted("rollback done: ", "good"),
    "rollback_reverted": _texted("rollback taken back: ", "warn"),
    "undo_begun": _texted("undo begun ", "info"),
    "undo_done": _texted("undo done ", "good"),
    "adopted": _texted("adopted: ", "info"),
    "lost": _texted("lost: ", "bad"),
    "note": _texted("", "muted"),
    "warning": _texted("warning: ", "warn"),
    "save_failed": _texted("save failed: ", "bad"),
    "autopsy": _texted("autopsy: ", "warn"),
    "validation_precision": _texted("", "muted"),
    "epoch": _epoch,
    "stopping": lambda entry: (f"stopping at {where(entry)}", "info"),
}
