"""A run with a plan in its status: the epochs of all phases, and the time to the end of the last one."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from nantui.errors import UserError
from nantui.run.files import Identity, identity
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.plan_progress import CURRENT, epochs_in_all, read_parts, waiting_seconds
from nantui.run.spec import read_spec
from nantui.run.status import RunStatus


def with_plan(layout: RunLayout, status: RunStatus) -> RunStatus:
    """Return the status of a run with a plan: `phase` says more, `eta_s` counts to the end of the last phase
    and is None where the time of one that waits is not known. A spec that cannot be read changes nothing.
    """
    seen = tuple(map(identity, (layout.spec, layout.journal, layout.results_csv)))
    phase, seconds = _phase(layout.run, status.epochs, seen)
    if phase is None or phase["number"] != (status.phase or {}).get("number"):
        return status
    whole = None if status.eta_s is None or phase["unknown"] else status.eta_s + seconds
    return replace(status, phase={**phase, "eta_s": status.eta_s}, eta_s=whole)


@lru_cache(maxsize=512)
def _phase(run: Path, epochs: int | None, seen: tuple[Identity, ...]) -> tuple[dict[str, Any] | None, float]:
    """Return the current phase, None where there is none, and the seconds of those that wait.

    Asked every second; read again only when the files are no longer those that were `seen`.
    """
    layout = RunLayout(run)
    try:
        spec = read_spec(layout.spec)
    except UserError:
        return None, 0.0
    parts = read_parts(layout, spec, Journal(layout.journal).entries(), epochs) if spec else []
    now = next((part for part in parts if part.state == CURRENT), None)
    if now is None:
        return None, 0.0
    seconds, unknown = waiting_seconds(parts)
    phase = {
        "number": now.number,
        "of": len(parts),
        "title": now.title,
        "epochs_before": now.begins,
        "epochs_in_all": epochs_in_all(parts),
        "unknown": unknown,
    }
    return phase, seconds
