"""The state of a run as everybody shows it: one frozen snapshot, one list of state words.

Also as Prometheus text, for node_exporter's textfile collector.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nantui.run.documents import JsonObject
from nantui.run.events import Incident, parse
from nantui.run.results import Metric

STARTING, RUNNING, STALLED, STOPPING = "starting", "running", "stalled", "stopping"
STOPPED, FINISHED, DIVERGED, RECOVERING = "stopped", "finished", "diverged", "recovering"
FAILED, LOST, FOREIGN, QUEUED = "failed", "lost", "foreign", "queued"
ACTIVE = frozenset({STARTING, RUNNING, STALLED, STOPPING, RECOVERING, QUEUED})
UNSAVED = "the last save failed"
STATES = (*sorted(ACTIVE), STOPPED, FINISHED, DIVERGED, FAILED, LOST, FOREIGN)


@dataclass(frozen=True)
class HostStatus:
    """One host of a run on several: `ranks` of the newest attempt; `state` as its agent says, or `leads`."""

    host: str
    state: str
    ranks: tuple[int, ...] = ()
    text: str = ""


@dataclass(frozen=True)
class RunStatus:
    """Where a run stands. `epoch` and `step` count from 1 and are None before the first step; of a run with a
    plan `epoch` and `epochs` are those of the current phase, `eta_s` counts to the end of the last one.
    """

    path: Path
    state: str
    epoch: int | None = None
    epochs: int | None = None
    step: int | None = None
    steps_per_epoch: int | None = None
    losses: dict[str, float] = field(default_factory=dict)
    eta_s: float | None = None
    attempt: int | None = None
    pids: tuple[int, ...] = ()
    last_incident: dict[str, object] | None = None
    text: str = ""
    doing: JsonObject | None = None
    host: str = ""
    guarded: bool | None = None
    ending: str = ""
    """The kind of the newest attempt's ending, see `nantui.run.endings`; empty while it trains."""
    phase: JsonObject | None = None
    """Of a run with a plan: {"number", "of", "title"} and, once the phase trains, {"epochs_before",
    "epochs_in_all", "eta_s": of this phase alone, "unknown": later phases whose time is not known}."""
    hosts: tuple[HostStatus, ...] = ()
    metric: Metric | None = None
    place: int | None = None
    """In the queue, from 1, while it waits there."""

    @property
    def incident(self) -> Incident | None:
        """The last incident as an event, None where there was none."""
        event = parse(self.last_incident)
        return event if isinstance(event, Incident) else None

    def to_json(self) -> dict[str, object]:
        """Return the row of `nantui status --json`."""
        return {**asdict(self), "path": str(self.path)}


GAUGES = {
    "epoch": ("epoch", "Epoch in progress, from 1."),
    "epochs": ("epochs", "Epochs asked for."),
    "step": ("step", "Step in the epoch, from 1."),
    "eta_seconds": ("eta_s", "Seconds to the end, as predicted."),
    "attempt": ("attempt", "Number of the newest attempt."),
}
"""What Prometheus is told of each run: the field of RunStatus, and what it means."""


def as_prometheus(runs: Sequence[RunStatus]) -> str:
    """Return one sample a run (a state: one for each state, 1 for the run's) in the text format 0.0.4."""
    states = [
        ({"run": str(run.path), "state": state}, run.state == state) for run in runs for state in STATES
    ]
    lines = _family("state", "State of the run, 1 for the one it is in.", states)
    for name, (value, text) in GAUGES.items():
        lines += _family(name, text, [({"run": str(run.path)}, getattr(run, value)) for run in runs])
    losses = [
        ({"run": str(run.path), "loss": name}, loss) for run in runs for name, loss in run.losses.items()
    ]
    lines += _family("loss", "Newest training losses.", losses)
    return "\n".join(lines) + "\n"


def _family(name: str, text: str, samples: Iterable[tuple[dict[str, str], float | None]]) -> list[str]:
    lines = []
    for labels, value in samples:
        told = ",".join(f'{label}="{_escaped(word)}"' for label, word in labels.items())
        if value is not None:
            lines.append(f"nantui_run_{name}{{{told}}} {_number(float(value))}")
    return [f"# HELP nantui_run_{name} {text}", f"# TYPE nantui_run_{name} gauge", *lines] if lines else []


def _escaped(text: str) -> str:
    text = text.encode(errors="replace").decode()  # a name on the disk may be no UTF-8
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else ("+Inf" if value > 0 else "-Inf")
