"""The state of a run as everybody shows it: one frozen snapshot, one list of state words."""

from __future__ import annotations

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
