"""Where runs stand, as Prometheus text for node_exporter's textfile collector."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

from nantui.run.status import STATES, RunStatus

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
