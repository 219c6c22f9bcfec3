"""Every kind of incident in one table: its name on a screen, what the guard says of it, what may be done.

A kind with advice is judged from finite numbers. The guard may be wrong about it, so it is said as a warning
and ends nothing; only where a person asked for that (`on_suspicion`) is it an incident.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from nantui.run.events import Event, Incident, Warned, told

SKIPPED, OBSERVED, ENDED, WARNED, REWOUND = "skipped", "observed", "ended", "warned", "rewound"
"""What was done about an incident: its step was undone, nothing, the training was ended, it was said, or the
training went back in memory and on."""


@dataclass(frozen=True)
class IncidentKind:
    """`title` stands on screens, `said` is the guard's sentence ("": the guard does not report this kind)."""

    title: str
    said: str = ""
    advice: str = ""


INCIDENTS: Mapping[str, IncidentKind] = {
    "nan_gradient": IncidentKind("NaN in the gradient", "the gradient is not finite"),
    "nan_loss": IncidentKind("NaN in the loss", "the loss is not finite"),
    "nan_buffer": IncidentKind(
        "NaN in the BatchNorm statistics", "the running statistics of BatchNorm are not finite"
    ),
    "nan_weight": IncidentKind("NaN in the weights", "weights are not finite"),
    "nan_ema": IncidentKind("NaN in the EMA weights", "the averaged weights (EMA) are not finite"),
    "nan_validation": IncidentKind("NaN in the validation losses", "the validation loss is not finite"),
    "unsound_save": IncidentKind(
        "an unsound checkpoint", "the averaged weights, as they are saved (in fp16), are not sound"
    ),
    "too_many_skips": IncidentKind("too many steps were skipped", "too many steps had to be skipped"),
    "loss_exploded": IncidentKind(
        "the loss exploded",
        "the loss has left its range for good",
        "where it stays up and the metrics fall, go back and lower lr0",
    ),
    "zero_loss": IncidentKind(
        "the loss is zero",
        "all losses are zero",
        "where the metrics are zero too, the network is dead: go back and lower lr0",
    ),
    "scale_collapsed": IncidentKind(
        "the loss scale collapsed",
        "the loss scale has collapsed",
        "gradients overflow fp16 all the time: amp=False or bf16 helps",
    ),
    "val_loss_exploded": IncidentKind("the validation losses exploded"),
    "metrics_lost": IncidentKind("the metrics fell to zero for good"),
    "failed": IncidentKind("the training has died"),
    "lost": IncidentKind("the training is gone without a word"),
}
EARLY_WARNINGS: Mapping[str, str] = {
    "loss_climbing": "21 of 45 broke, half of them within 93 steps; 0 warnings in 40,005 healthy steps",
    "statistics_climbing": "29 of 71 broke, half of them within 93 steps; 0 warnings in 40,005 healthy steps",
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
