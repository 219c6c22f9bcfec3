"""What the supervisor sees of a running attempt: the ranks' events and rank 0's telemetry, as they grow.

Only new bytes are read. What matters goes to the journal as the ranks wrote it; the rest (activity, last
step, usual step time) stays here for the standstill check and the stop's deadline.
"""

from __future__ import annotations

import os
import statistics
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from nantui.run.attempts import Attempt
from nantui.run.events import (
    Activity,
    Autopsy,
    Event,
    Incident,
    InEffect,
    Registered,
    RewindBegun,
    RewindDone,
    SaveFailed,
    Stopping,
    Warned,
    documents,
    of_kind,
    parse,
    relayed,
)
from nantui.run.growing_files import LineFollower
from nantui.run.layout import RunLayout
from nantui.run.telemetry import Step, StepFollower

TRAINING, SAVING = "training", "saving"
BEFORE_STEPS = frozenset({"", "importing", "setup"})
KEPT = (Incident, Warned, SaveFailed, Autopsy, RewindBegun, RewindDone)
"""What the journal keeps of the ranks' own events, beside the settings in effect."""
Relayed = tuple[Event, dict[str, object]]
"""An event, and the fields that it has in the journal."""
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
    last_incident: dict[str, object] | None = None
    guarded: bool | None = None
    moved: int = 0
    """Counts everything new; whoever watches for a standstill compares two readings."""

    def __post_init__(self) -> None:
        self._steps = StepFollower(self.layout.steps(self.attempt.attempt))
        self._events: dict[int, LineFollower] = {}
        self._durations: deque[float] = deque(maxlen=100)
        self._phase_since = 0.0
        self.longest_s: dict[str, float] = {}
        """The longest time that rank 0 has spent in each phase so far."""
        self.ranks = self.attempt.devices
        self._hosts: dict[int, str] = {}

    def read(self) -> list[Relayed]:
        """Return what is new for the journal: each event with its fields there."""
        if steps := self._steps.read_all():
            self.last_step = steps[-1]
            self.moved += len(steps)
            self._durations.extend(s for step in steps if (s := step.value("step_s")) > 0)
        # A script of the user's own may start more ranks than was asked for.
        while os.path.exists(self.layout.events(self.attempt.attempt, self.ranks)):
            self.ranks += 1
        new: list[Relayed] = []
        for rank in range(self.ranks):
            path = self.layout.events(self.attempt.attempt, rank)
            for document in documents(self._events.setdefault(rank, LineFollower(path)).read_all()):
                if (event := parse(document)) is not None:
                    self._take_in(rank, event, document)
                    new += self._for_the_journal(rank, event, document)
        return new

    def stepping(self) -> bool:
        """Tell whether the ranks have got as far as agreeing on a step."""
        return self.last_step is not None or self.activity not in BEFORE_STEPS

    def usual_step_s(self) -> float:
        """Return the median of the last steps' times in s, 0 before the first."""
        return statistics.median(self._durations) if self._durations else 0.0

    def _take_in(self, rank: int, event: Event, document: Mapping[str, object]) -> None:
        """Keep what one event tells of the attempt; what it is doing is told by rank 0."""
        self.moved += 1
        if isinstance(event, Registered):
            self._hosts[rank] = event.host
        elif isinstance(event, Incident):
            about = {"attempt": self.attempt.attempt, "rank": rank}
            self.last_incident = {**document, **self._hosts_of(event), **about}
        elif rank:
            return
        elif isinstance(event, Activity):
            spent_s, self._phase_since = event.t - self._phase_since, event.t
            if self.activity:
                self.longest_s[self.activity] = max(spent_s, self.longest_s.get(self.activity, 0.0))
            self.activity = event.phase
        elif isinstance(event, Stopping):
            self.activity = SAVING
        elif isinstance(event, InEffect):
            self.guarded = bool(event.guarded)

    def _for_the_journal(self, rank: int, event: Event, document: Mapping[str, object]) -> list[Relayed]:
        if (rank, event.t) in self.known:
            return []
        if isinstance(event, InEffect) and rank == 0:
            return [(event, self._in_effect(event))]
        if not isinstance(event, KEPT):
            return []
        hosts = self._hosts_of(event) if isinstance(event, Incident) else {}
        return [(event, relayed(document, **hosts, attempt=self.attempt.attempt, rank=rank))]

    def _hosts_of(self, event: Incident) -> dict[str, object]:
        """Name the hosts whose batches were bad, where the ranks are on several."""
        if len(set(self._hosts.values())) < 2 or not event.ranks:
            return {}
        return {"hosts": sorted({self._hosts.get(rank, "?") for rank in event.ranks})}

    def _in_effect(self, event: InEffect) -> dict[str, object]:
        return {
            "t": event.t,
            "attempt": self.attempt.attempt,
            "rank": 0,
            "values": event.values,
            "differences": differences(self.attempt.asked, event.values),
            "unreported": [name for name in self.attempt.asked if name not in event.values],
            "guarded": event.guarded,
            "notes": event.notes,
        }


def differences(asked: Mapping[str, object], in_effect: Mapping[str, object]) -> list[dict[str, object]]:
    """Return where the worker does not do what it was asked: [{"name", "asked", "in_effect"}]."""
    return [
        {"name": name, "asked": value, "in_effect": in_effect[name]}
        for name, value in asked.items()
        if name in in_effect and not same(value, in_effect[name])
    ]


def same(asked: object, in_effect: object) -> bool:
    """Compare two settings as people would: 1e-3 and 0.001 are the same, so are 0.1 and its float32."""
    if isinstance(asked, bool) or isinstance(in_effect, bool):
        return asked is in_effect
    if isinstance(asked, (int, float)) and isinstance(in_effect, (int, float)):
        return abs(asked - in_effect) <= 1e-6 * max(abs(asked), abs(in_effect))
    return str(asked).lower() == str(in_effect).lower()


def journaled(events: Iterable[Event]) -> set[tuple[int, float]]:
    """Return (rank, t) of those among the journal's events that come from the ranks."""
    return {(event.rank or 0, event.t) for event in of_kind(events, InEffect, *KEPT)}
