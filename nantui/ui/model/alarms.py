"""When to raise the alarm: an incident that ruined or ended something, or a training that died,
and is neither recovered nor acknowledged.
"""

from __future__ import annotations

from typing import Any

from nantui.run.journal import Entry
from nantui.run.status import FAILED, LOST
from nantui.ui.model.snapshot import RunSnapshot

FIRST = 0.5
"""The time of what has none: later than never acknowledged."""
ENDS_ALARM = {"rollback_done", "undo_done"}


def open_alarm(snapshot: RunSnapshot, acknowledged: float) -> Entry | None:
    """Return the first incident since the last recovery that is newer than `acknowledged` (s since the
    epoch).

    A step that was skipped cost one step and ruined nothing: it stands in the timeline and on the curves,
    and raises no alarm.
    """
    found: Entry | None = None
    for entry in snapshot.journal:
        if entry["kind"] in ENDS_ALARM:
            found = None
        elif (
            entry["kind"] == "incident"
            and entry.get("action") != "skipped"
            and found is None
            and _t(entry) > acknowledged
        ):
            found = entry
    if found is None:
        found = _from_events(snapshot, acknowledged)
    return found or _from_results(snapshot, acknowledged) or _from_state(snapshot, acknowledged)


def _from_state(snapshot: RunSnapshot, acknowledged: float) -> Entry | None:
    """A training that nobody ended and that has not finished."""
    status = snapshot.status
    if status.state not in (FAILED, LOST):
        return None
    ends = [_t(entry) for entry in snapshot.journal if entry["kind"] in ("attempt_ended", "lost")]
    when = ends[-1] if ends else FIRST
    place = {"epoch": status.epoch, "step": status.step}
    told = {"kind": "incident", "incident": status.state, "t": when, "action": status.text, **place}
    return told if when > acknowledged else None


def _from_events(snapshot: RunSnapshot, acknowledged: float) -> Entry | None:
    """The worker's own words, a moment before the supervisor has put them into the journal."""
    for entry in snapshot.events:
        if entry["kind"] == "incident" and entry.get("action") != "skipped" and _t(entry) > acknowledged:
            return entry if _t(entry) > _last_end(snapshot) else None
    return None


def _from_results(snapshot: RunSnapshot, acknowledged: float) -> Entry | None:
    """Without a guard there are only the epochs' losses: the first current epoch that is not finite."""
    if acknowledged or any(entry["kind"] == "incident" for entry in snapshot.journal):
        return None
    before = snapshot.phases.begins.get(snapshot.phases.now, 0)
    for row in snapshot.rows:
        if not row.superseded and not row.finite and row.epoch > before:
            place = {"epoch": row.epoch - before}
            return {"kind": "incident", "incident": "nan_loss", **place, "t": FIRST, "action": ""}
    return None


def _last_end(snapshot: RunSnapshot) -> float:
    return max((_t(entry) for entry in snapshot.journal if entry["kind"] in ENDS_ALARM), default=0.0)


def _t(entry: dict[str, Any]) -> float:
    t = entry.get("t")
    return float(t) if isinstance(t, (int, float)) else 0.0
