"""Every kind of incident: its name on a screen, what the guard says of it, what may be done.

The kinds themselves are in configs/tables/incidents.json. A kind with advice is judged from finite
numbers. The guard may be wrong about it, so it is said as a warning and ends nothing; only where a person
asked for that (`on_suspicion`) is it an incident.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nantui.run.documents import table
from nantui.run.events import Event, Incident, Warned, told

SKIPPED, OBSERVED, ENDED, WARNED, REWOUND = "skipped", "observed", "ended", "warned", "rewound"
"""What was done about an incident: its step was undone, nothing, the training was ended, it was said, or the
training went back in memory and on."""


@dataclass(frozen=True)
class IncidentKind:
    """`title` stands on screens, `said` is the guard's sentence ("": the guard does not report this kind);
    `before` is what a proposal from before it is called.
    """

    title: str
    said: str = ""
    advice: str = ""
    before: str = ""


INCIDENTS: Mapping[str, IncidentKind] = {
    name: IncidentKind(**row) for name, row in table("incidents").items()
}
EARLY_WARNINGS: Mapping[str, str] = {
    "loss_climbing": "16 of 36 broke, half within 98 steps; 0 warnings in 36,089 healthy steps",
    "statistics_climbing": "23 of 62 broke, half within 94 steps; 0 warnings in 36,089 healthy steps",
    "statistics_climbing, fp16": "22 of 25 broke, half within 27 steps; 0 warnings in 7,148 healthy steps",
}
"""What came of the guard's early warnings, in the words of docs/lead-time.md, where it was measured."""
SUSPICIONS = frozenset(kind for kind, known in INCIDENTS.items() if known.advice)


def is_suspicion(event: Event) -> bool:
    """Tell whether an event is the warning of a judgement on finite numbers."""
    return isinstance(event, Warned) and event.warning in SUSPICIONS


def as_incident(event: Warned) -> Incident:
    """Return such a warning in the form of an incident, for whoever looks for the cause of either."""
    same = {name: value for name, value in told(event).items() if name not in ("kind", "warning")}
    return Incident(**same, incident=event.warning, action=WARNED)
