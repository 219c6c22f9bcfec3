"""One look at a run: everything the screens draw, frozen, so that it can cross from a thread to the screen.

A part that has not changed since the last look is the very same object, so `is` tells what to redraw.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from nantui.run.events import Event
from nantui.run.points import StepPoint
from nantui.run.results import EpochRow
from nantui.run.status import RunStatus
from nantui.ui.charts.series import Column, Picture
from nantui.ui.model.timeline import Sentence

T = TypeVar("T")


class Kept:
    """Values that stay the very same object while what they are made from is unchanged."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[tuple[object, ...], Any]] = {}

    def get(self, name: str, make: Callable[[], T], *of: object) -> T:
        """Return the value `name`, made anew where one of `of` has changed; what comes out equal stays."""
        known, value = self._values.get(name, (None, None))
        if known != of:
            made = make()
            value = made if made != value else value
            self._values[name] = of, value
        return cast(T, value)


@dataclass(frozen=True)
class Checkpoint:
    """One file in weights/, or a step point: `size` in bytes, `modified` in s since the epoch."""

    path: Path
    size: int
    modified: float
    point: StepPoint | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """How commands name it."""
        return self.point.label if self.point else self.path.name

    @property
    def title(self) -> str:
        """Its name where room is scarce; a step point's epoch stands beside it."""
        return f"step {self.point.batch}" if self.point else self.path.name.removesuffix(".pt")


@dataclass(frozen=True)
class PlanPhases:
    """`begins` is how many epochs come before each phase, `titles` what the phases are called, by number;
    `now` is the current one.
    """

    begins: Mapping[int, int] = field(default_factory=dict)
    titles: Mapping[int, str] = field(default_factory=dict)
    now: int = 1


@dataclass(frozen=True)
class Stretch:
    """Steps of one attempt, `steps` of them an epoch; `epoch`, from 1 in its phase, begins after `x`."""

    attempt: int
    phase: int
    epoch: int
    x: float
    steps: int

    def at(self, epoch: int, step: int) -> float:
        """Return where a step stands; both count from 1."""
        return self.x + (epoch - self.epoch) * self.steps + step


@dataclass(frozen=True)
class StepCurves:
    """Per-step telemetry of the run: for each column, points over the running number of the step, which
    counts on through attempts and phases (`stretches`).

    `columns` maps a name to (xs, ys) over the whole run, `recent` over the newest steps, none left out;
    `skipped` are xs of skipped steps; `note` tells how many steps one point stands for where the history was
    thinned, or that it was read in places only.
    """

    columns: dict[str, Column] = field(default_factory=dict)
    recent: dict[str, Column] = field(default_factory=dict)
    losses: tuple[str, ...] = ()
    skipped: tuple[float, ...] = ()
    stretches: tuple[Stretch, ...] = ()
    note: str = ""
    last: dict[str, float] = field(default_factory=dict)
    steps_per_s: float | None = None


@dataclass(frozen=True)
class RunSnapshot:
    """One look at one run, taken at `taken` (s since the epoch; 0: none yet). Epochs of `rows` count through
    all phases of a plan; everywhere else they count from 1 in each.
    `activity` is what the ranks last said that they do, `waiting` names the settings that are saved for the
    next start; `suspicious`: warnings stand, or the epochs' numbers are judged to be a ruined network's.
    """

    path: Path
    taken: float
    status: RunStatus
    rows: tuple[EpochRow, ...] = ()
    phases: PlanPhases = field(default_factory=PlanPhases)
    steps: StepCurves = field(default_factory=StepCurves)
    journal: tuple[Event, ...] = ()
    events: tuple[Event, ...] = ()
    checkpoints: tuple[Checkpoint, ...] = ()
    activity: str = ""
    started: float | None = None
    log_path: Path | None = None
    log_tail: tuple[str, ...] = ()
    guard: str = ""
    autopilot: bool = False
    suspicious: bool = False
    waiting: tuple[str, ...] = ()
    timeline: tuple[Sentence, ...] = ()
    epoch_charts: tuple[Picture, ...] = ()
    step_charts: tuple[Picture, ...] = ()


UNREAD = RunSnapshot(Path(), 0.0, RunStatus(Path(), ""))
"""What is known of a run before it was looked at."""
