"""Judgements on finite numbers: the guard says them as warnings, as it may be wrong about a healthy training.

Where a person has asked that they end the training (`on_suspicion`), they are incidents instead.
"""

from __future__ import annotations

from nantui.run.journal import Entry

SUSPICIONS = frozenset({"loss_exploded", "zero_loss", "scale_collapsed"})
WARNED = "warned"
"""What was done about a suspicion: it was said."""


def is_suspicion(entry: Entry) -> bool:
    """Tell whether an event or a line of the journal is such a warning."""
    return entry["kind"] == "warning" and entry.get("warning") in SUSPICIONS


def as_incident(entry: Entry) -> Entry:
    """Return the warning in the form of an incident, for whoever looks for the cause of either."""
    return {**entry, "kind": "incident", "incident": entry["warning"], "action": WARNED}
