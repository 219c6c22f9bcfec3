"""The state of a run as everybody shows it: one frozen snapshot, one list of state words.

Also as Prometheus text, for node_exporter's textfile collector.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nantui.run.documents import JsonObject
from nantui.run.events import Incident, parse
from nantui.run.results import Metric

STARTING, RUNNING, STALLED, STOPPING = "starting", "running", "stalled", "stopping"
STOPPED, FINISHED, DIVERGED, RECOVERING = "stopped", "finished", "diverged", "recovering"
FAILED, LOST, FOREIGN, QUEUED = "failed", "lost", "foreign", "queued"
ACTIVE = frozenset({STARTING, RUNNING, STALLED, STOPPING, RECOVERING, QUEUED})
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


Sample = tuple[dict[str, str], float]


def as_prometheus(runs: Sequence[RunStatus]) -> str:
    """Return one sample a run (a state: one for each state, 1 for the run's) in the text format 0.0.4."""
    states = [
        ({"run": str(run.path), "state": state}, float(run.state == state))
        for run in runs
        for state in STATES
    ]
    losses = [
        ({"run": str(run.path), "loss": name}, value) for run in runs for name, value in run.losses.items()
    ]
    families = [
        ("state", "State of the run, 1 for the one it is in.", states),
        ("epoch", "Epoch in progress, from 1.", _of(runs, "epoch")),
        ("epochs", "Epochs asked for.", _of(runs, "epochs")),
        ("step", "Step in the epoch, from 1.", _of(runs, "step")),
        ("eta_seconds", "Seconds to the end, as predicted.", _of(runs, "eta_s")),
        ("attempt", "Number of the newest attempt.", _of(runs, "attempt")),
        ("loss", "Newest training losses.", losses),
    ]
    lines = [
        line for name, text, samples in families for line in _family(f"nantui_run_{name}", text, samples)
    ]
    return "\n".join(lines) + "\n"


def _of(runs: Iterable[RunStatus], name: str) -> list[Sample]:
    values = ((run, getattr(run, name)) for run in runs)
    return [({"run": str(run.path)}, float(value)) for run, value in values if value is not None]


def _family(name: str, text: str, samples: Sequence[Sample]) -> Iterator[str]:
    if samples:
        yield f"# HELP {name} {text}"
        yield f"# TYPE {name} gauge"
    for labels, value in samples:
        told = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"{name}{{{told}}} {_number(value)}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else ("+Inf" if value > 0 else "-Inf")
