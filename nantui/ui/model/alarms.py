"""When to raise the alarm: an incident that ruined or ended something, or a training that died,
and is neither recovered nor acknowledged.
"""

from __future__ import annotations

from typing import TypeGuard

from nantui.run.events import AttemptEnded, Event, Incident, Lost, RollbackDone, UndoDone, newest, of_kind
from nantui.run.status import FAILED, LOST
from nantui.ui.model.snapshot import RunSnapshot

FIRST = 0.5
"""The time of what has none: later than never acknowledged."""
ENDS_ALARM = (RollbackDone, UndoDone)


def open_alarm(snapshot: RunSnapshot, acknowledged: float) -> Incident | None:
    """Return the first incident since the last recovery that is newer than `acknowledged` (s since the
    epoch).

    A step that was skipped cost one step and ruined nothing: it stands in the timeline and on the curves,
    and raises no alarm.
    """
    found: Incident | None = None
    for event in snapshot.journal:
        if isinstance(event, ENDS_ALARM):
            found = None
        elif found is None and _alarming(event, acknowledged):
            found = event
    if found is None:
        found = _from_events(snapshot, acknowledged)
    return found or _from_results(snapshot, acknowledged) or _from_state(snapshot, acknowledged)


def _alarming(event: Event, after: float) -> TypeGuard[Incident]:
    return isinstance(event, Incident) and not event.harmless and event.t > after


def _from_state(snapshot: RunSnapshot, acknowledged: float) -> Incident | None:
    """A training that nobody ended and that has not finished."""
    status = snapshot.status
    if status.state not in (FAILED, LOST):
        return None
    end = newest(snapshot.journal, AttemptEnded, Lost)
    when = end.t if end is not None else FIRST
    told = Incident(
        kind=Incident.KIND, t=when, incident=status.state, action=status.text, epoch=status.epoch,
        step=status.step,
    )  # fmt: skip
    return told if when > acknowledged else None


def _from_events(snapshot: RunSnapshot, acknowledged: float) -> Incident | None:
    """The worker's own words, a moment before the supervisor has put them into the journal."""
    first = next((event for event in snapshot.events if _alarming(event, acknowledged)), None)
    return first if first is not None and first.t > _last_end(snapshot) else None


def _from_results(snapshot: RunSnapshot, acknowledged: float) -> Incident | None:
    """Without a guard there are only the epochs' losses: the first current epoch that is not finite."""
    if acknowledged or of_kind(snapshot.journal, Incident):
        return None
    before = snapshot.phases.begins.get(snapshot.phases.now, 0)
    for row in snapshot.rows:
        if not row.superseded and not row.finite and row.epoch > before:
            return Incident(kind=Incident.KIND, t=FIRST, incident="nan_loss", epoch=row.epoch - before)
    return None


def _last_end(snapshot: RunSnapshot) -> float:
    return max((event.t for event in snapshot.journal if isinstance(event, ENDS_ALARM)), default=0.0)
