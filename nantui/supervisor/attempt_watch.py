"""What the supervisor sees of a running attempt: the ranks' events and rank 0's telemetry, as they grow.

Only new bytes are read. What matters goes to the journal as (kind, fields) pairs; the rest (phase, last step,
usual step time) stays here for the standstill check and the stop's deadline.

When silence is a standstill: much longer than usual, with set-up, validation and saves allowed for.

Only time in which this process itself was awake counts: a supervisor whose own reads hang on a dead NFS
server, or that was suspended with its laptop, must not call the training stalled.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nantui.run.attempts import Attempt
from nantui.run.growing_files import LineFollower
from nantui.run.journal import Entry, parse
from nantui.run.layout import RunLayout
from nantui.run.telemetry import Step, StepFollower
from nantui.supervisor.config import Patience

TRAINING, SAVING = "training", "saving"
BEFORE_STEPS = frozenset({"", "importing", "setup"})
KEPT = {"incident": "incident", "warning": "warning", "save_failed": "save_failed", "autopsy": "autopsy"}
LONGEST_GAP_S = 1.0
ELSEWHERE = "elsewhere"
"""The run's own training is over, its script trains on in another directory."""


@dataclass
class Watch:
    """Follows one attempt. `known` holds (rank, t) of events that the journal has already, after an
    adoption.
    """

    layout: RunLayout
    attempt: Attempt
    known: set[tuple[int, float]] = field(default_factory=set)
    activity: str = ""
    last_step: Step | None = None
    last_incident: dict[str, Any] | None = None
    guarded: bool | None = None
    moved: int = 0
    """Counts everything new; whoever looks for a standstill compares two looks."""

    def __post_init__(self) -> None:
        self._steps = StepFollower(self.layout.steps(self.attempt.attempt))
        self._events: dict[int, LineFollower] = {}
        self._durations: deque[float] = deque(maxlen=100)
        self.ranks = self.attempt.devices
        self._hosts: dict[int, str] = {}

    def read(self) -> list[tuple[str, dict[str, Any]]]:
        """Return what is new for the journal."""
        self._read_steps()
        new: list[tuple[str, dict[str, Any]]] = []
        # A script of the user's own may start more ranks than was asked for.
        while os.path.exists(self.layout.events(self.attempt.attempt, self.ranks)):
            self.ranks += 1
        for rank in range(self.ranks):
            for event in self._read_events(rank):
                new += self._see(rank, event)
        return new

    def stepping(self) -> bool:
        """Tell whether the ranks have got as far as agreeing on a step."""
        return self.last_step is not None or self.activity not in BEFORE_STEPS

    def usual_step_s(self) -> float:
        """Return the median of the last steps' times in s, 0 before the first."""
        return statistics.median(self._durations) if self._durations else 0.0

    def _read_steps(self) -> None:
        more = True
        while more:
            steps, more = self._steps.read()
            if steps:
                self.last_step = steps[-1]
                self.moved += len(steps)
                self._durations.extend(s for step in steps if (s := step.value("step_s")) > 0)

    def _read_events(self, rank: int) -> list[Entry]:
        follower = self._events.setdefault(rank, LineFollower(self.layout.events(self.attempt.attempt, rank)))
        lines: list[str] = []
        more = True
        while more:
            new = follower.read()
            lines, more = lines + new.lines, new.more
        return parse(lines)

    def _see(self, rank: int, event: Entry) -> list[tuple[str, dict[str, Any]]]:
        kind = event["kind"]
        self.moved += 1
        if kind == "registered":
            self._hosts[rank] = str(event.get("host") or "")
        if kind == "incident":
            event = self._with_hosts(event)
        if kind == "phase" and rank == 0:
            self.activity = str(event.get("phase", ""))
        if kind == "stopping" and rank == 0:
            self.activity = SAVING
        if kind == "incident":
            self.last_incident = {**event, "attempt": self.attempt.attempt, "rank": rank}
        if kind == "in_effect" and rank == 0:
            self.guarded = bool(event.get("guarded"))
            return [] if self._is_known(rank, event) else [("in_effect", self._in_effect(event))]
        if kind not in KEPT or self._is_known(rank, event):
            return []
        return [(KEPT[kind], {**_without_kind(event), "attempt": self.attempt.attempt, "rank": rank})]

    def _with_hosts(self, event: Entry) -> Entry:
        """Name the hosts whose batches were bad, where the ranks are on several."""
        ranks = (event.get("evidence") or {}).get("ranks") or []
        if len(set(self._hosts.values())) < 2 or not ranks:
            return event
        return {**event, "hosts": sorted({self._hosts.get(rank, "?") for rank in ranks})}

    def _in_effect(self, event: Entry) -> dict[str, Any]:
        values = event.get("values") or {}
        return {
            "t": event.get("t"),
            "attempt": self.attempt.attempt,
            "rank": 0,
            "values": values,
            "differences": differences(self.attempt.asked, values),
            "unreported": [name for name in self.attempt.asked if name not in values],
            "guarded": event.get("guarded"),
            "notes": event.get("notes") or [],
        }

    def _is_known(self, rank: int, event: Entry) -> bool:
        return (rank, event.get("t")) in self.known


def differences(asked: dict[str, Any], in_effect: dict[str, Any]) -> list[dict[str, Any]]:
    """Return where the worker does not do what it was asked: [{"name", "asked", "in_effect"}]."""
    return [
        {"name": name, "asked": value, "in_effect": in_effect[name]}
        for name, value in asked.items()
        if name in in_effect and not same(value, in_effect[name])
    ]


def same(asked: Any, in_effect: Any) -> bool:
    """Compare two settings as people would: 1e-3 and 0.001 are the same, so are 0.1 and its float32."""
    if isinstance(asked, bool) or isinstance(in_effect, bool):
        return asked is in_effect
    if isinstance(asked, (int, float)) and isinstance(in_effect, (int, float)):
        return abs(asked - in_effect) <= 1e-6 * max(abs(asked), abs(in_effect))
    return str(asked).lower() == str(in_effect).lower()


def journaled(entries: list[Entry], attempt: int) -> set[tuple[int, float]]:
    """Return (rank, t) of the events of `attempt` that the journal has already."""
    kinds = {*KEPT.values(), "in_effect"}
    ours = (entry for entry in entries if entry["kind"] in kinds and entry.get("attempt") == attempt)
    return {(int(entry.get("rank") or 0), entry["t"]) for entry in ours}


def _without_kind(event: Entry) -> dict[str, Any]:
    return {name: value for name, value in event.items() if name not in {"kind", "by"}}


class Standstill:
    """Adds up the time without anything new."""

    def __init__(self, patience: Patience, clock: Callable[[], float] = time.monotonic) -> None:
        self._patience, self._clock = patience, clock
        self.reset()

    def reset(self) -> None:
        """Begin anew, with a new attempt."""
        self._looked = self._clock()
        self._moved = -1
        self._quiet_s = 0.0

    def look(self, moved: int, activity: str, usual_step_s: float) -> float:
        """Return for how many seconds nothing moved once that is a standstill, else 0.0.

        `moved` counts everything new that the ranks wrote; `usual_step_s` is 0 before the first step.
        """
        now = self._clock()
        gap, self._looked = now - self._looked, now
        if moved != self._moved:
            self._moved, self._quiet_s = moved, 0.0
        else:
            self._quiet_s += min(gap, LONGEST_GAP_S)
        return self._quiet_s if self._quiet_s > self.allowed_s(activity, usual_step_s) else 0.0

    def allowed_s(self, activity: str, usual_step_s: float) -> float:
        """Return how long silence is normal in this phase."""
        if activity == ELSEWHERE:
            return math.inf
        if activity == TRAINING and usual_step_s > 0:
            return max(self._patience.stall_floor_s, self._patience.stall_factor * usual_step_s)
        return max(self._patience.stall_floor_s, self._patience.other_phase_s)
