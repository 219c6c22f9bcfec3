"""What the supervisor sees of a running attempt: the ranks' events and rank 0's telemetry, as they grow.

Only new bytes are read. What matters goes to the journal as the ranks wrote it; the rest (activity, last
step, usual step time) stays here: it tells a standstill, and when a stop is late.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nantui.run import events
from nantui.run.attempts import Attempt
from nantui.run.growing_files import LineFollower
from nantui.run.layout import RunLayout
from nantui.run.status import UNSAVED
from nantui.run.telemetry import Step, StepFollower
from nantui.supervisor.config import Patience
from nantui.supervisor.directories import other_place

TRAINING, SAVING = "training", "saving"
BEFORE_STEPS = frozenset({"", "importing", "setup"})
KEPT = (
    events.Incident, events.Warned, events.SaveFailed, events.Autopsy, events.RewindBegun, events.RewindDone,
)  # fmt: skip
"""What the journal keeps of the ranks' own events, beside the settings in effect."""
Relayed = tuple[events.Event, dict[str, object]]
"""An event, and the fields that it has in the journal."""
ELSEWHERE = "elsewhere"
"""The run's own training is over, its script trains on in another directory."""
LONGEST_GAP_S, TIMES_LONGEST = 1.0, 10.0


class Silence:
    """For how long something has been the same, such as a heartbeat: no clock of another host is read.

    Only time in which this process itself was awake counts: one whose own reads hang on a dead NFS server, or
    that was suspended with its laptop, must not call anything silent.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._heard: dict[str, tuple[float, float, float]] = {}

    def quiet_s(self, name: str, heartbeat: float) -> float:
        now = self._clock()
        beat, quiet, looked = self._heard.get(name, (heartbeat, 0.0, now))
        quiet = quiet + min(now - looked, LONGEST_GAP_S) if beat == heartbeat else 0.0
        self._heard[name] = heartbeat, quiet, now
        return quiet


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
    unsaved: str | None = None
    """That the last save failed, "" once a later one has not; None where none ever did."""
    rewind: events.RewindDone | events.Warned | None = None
    """The newest rewind, or why one that was asked for could not be."""
    moved: int = 0
    """Counts everything new."""
    silence: Silence = field(default_factory=Silence)

    def __post_init__(self) -> None:
        self._steps = StepFollower(self.layout.steps(self.attempt.attempt))
        self._events: dict[int, LineFollower] = {}
        self._durations: deque[float] = deque(maxlen=100)
        self._phase_since = 0.0
        self._longest_s: dict[str, float] = {}
        """The longest time that rank 0 has spent in each phase so far."""
        self.ranks = self.attempt.devices
        self._unseen = bool(other_place(self.layout.run, self.attempt))
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
            for document in events.documents(self._events.setdefault(rank, LineFollower(path)).read_all()):
                if (event := events.parse(document)) is not None:
                    told = self._take_in(rank, event, document)
                    new += [] if (rank, event.t) in self.known else told
        return new

    def stepping(self) -> bool:
        """Tell whether the ranks have got as far as agreeing on a step."""
        return self.last_step is not None or self.activity not in BEFORE_STEPS

    def usual_step_s(self) -> float:
        """Return the median of the last steps' times in s, 0 before the first."""
        return statistics.median(self._durations) if self._durations else 0.0

    def silent_s(self) -> float:
        """Return for how many seconds nothing has moved."""
        return self.silence.quiet_s("", self.moved)

    def allowed_s(self, patience: Patience) -> float:
        """Return how much silence is normal now; more is a standstill."""
        if self.activity == ELSEWHERE or self._unseen:  # renamed: it writes on under the old name
            return math.inf
        if self.activity == TRAINING and (usual_s := self.usual_step_s()) > 0:
            return max(patience.stall_floor_s, patience.stall_factor * usual_s)
        before_s = TIMES_LONGEST * self._longest_s.get(self.activity, 0.0) or patience.other_phase_s
        return max(patience.stall_floor_s, min(patience.other_phase_s, before_s))

    def _take_in(self, rank: int, event: events.Event, document: Mapping[str, object]) -> list[Relayed]:
        """Keep what one event tells of the attempt (what it is doing is told by rank 0); returns what the
        journal gets of it.
        """
        self.moved += 1
        about: dict[str, Any] = {"attempt": self.attempt.attempt, "rank": rank}
        if isinstance(event, events.Registered):
            self._hosts[rank] = event.host
        elif isinstance(event, events.Incident):
            if event.ranks and len(set(self._hosts.values())) > 1:  # whose batches were bad
                about["hosts"] = sorted({self._hosts.get(one, "?") for one in event.ranks})
            self.last_incident = {**document, **about}
        elif isinstance(event, events.RewindDone) or (
            isinstance(event, events.Warned) and event.warning == "not_rewound"
        ):
            self.rewind = event
        elif isinstance(event, events.SaveFailed):
            self.unsaved = f"{UNSAVED}: {event.text}"
        elif isinstance(event, events.Saved):
            self.unsaved = None if self.unsaved is None else ""
        elif rank == 0 and isinstance(event, events.Activity):
            spent_s, self._phase_since = event.t - self._phase_since, event.t
            if self.activity:
                self._longest_s[self.activity] = max(spent_s, self._longest_s.get(self.activity, 0.0))
            self.activity = event.phase
        elif rank == 0 and isinstance(event, events.Stopping):
            self.activity = SAVING
        elif rank == 0 and isinstance(event, events.InEffect):
            self.guarded = bool(event.guarded)
            return [(event, {"t": event.t, **about, **self._in_effect(event)})]
        return [(event, events.relayed(document, **about))] if isinstance(event, KEPT) else []

    def _in_effect(self, event: events.InEffect) -> dict[str, object]:
        return {
            "values": event.values, "differences": differences(self.attempt.asked, event.values),
            "unreported": [name for name in self.attempt.asked if name not in event.values],
            "guarded": event.guarded, "notes": event.notes,
        }  # fmt: skip


def differences(asked: Mapping[str, object], in_effect: Mapping[str, object]) -> list[dict[str, object]]:
    """Return where the worker does not do what it was asked: [{"name", "asked", "in_effect"}]. A device is
    said otherwise (cuda:0 for "0,1"); one that is not there is refused.
    """
    return [
        {"name": name, "asked": value, "in_effect": in_effect[name]}
        for name, value in asked.items()
        if name in in_effect and name != "device" and not same(value, in_effect[name])
    ]


def same(asked: object, in_effect: object) -> bool:
    """Compare two settings as people would: 1e-3 and 0.001 are the same, so are 0.1 and its float32."""
    if isinstance(asked, bool) or isinstance(in_effect, bool):
        return asked is in_effect
    if isinstance(asked, (int, float)) and isinstance(in_effect, (int, float)):
        return abs(asked - in_effect) <= 1e-6 * max(abs(asked), abs(in_effect))
    return str(asked).lower() == str(in_effect).lower()


def journaled(found: Iterable[events.Event]) -> set[tuple[int, float]]:
    """Return (rank, t) of those among the journal's events that come from the ranks."""
    return {(event.rank or 0, event.t) for event in events.of_kind(found, events.InEffect, *KEPT)}
