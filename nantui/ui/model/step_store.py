"""Per-step telemetry kept small: whatever a run's length, at most a few thousand points a column.

A column that is full is thinned as a chart is: of each stretch the smallest and the largest value stay, so
that peaks survive, and one NaN. The newest steps are also kept one by one. A very long file is opened by
samples spread over it: the curve is there at once, and it is said that it was sampled. Incidents come from
the journal, which is whole.
"""

from __future__ import annotations

from collections import deque
from collections.abc import MutableSequence
from pathlib import Path
from typing import Any

from nantui.run.telemetry import Step, StepFollower
from nantui.ui.charts.series import apart, thin
from nantui.ui.model.snapshot import StepCurves
from nantui.ui.model.step_axis import StepAxis

MOST_POINTS = 4096
RECENT_STEPS = 2048
WHOLE_BYTES = 1 << 21
KEPT = ("grad_norm", "lr", "loss_scale", "step_s", "data_s", "images_s", "mem_gb", "mem_peak_gb")


class StepStore:
    """Collects the steps of all attempts of a run."""

    def __init__(self) -> None:
        self.sampled = False
        self.losses: tuple[str, ...] = ()
        self.last: dict[str, float] = {}
        self._columns: dict[str, list[tuple[float, float]]] = {}
        self._recent: deque[tuple[float, dict[str, float]]] = deque(maxlen=RECENT_STEPS)
        self._skipped: list[float] = []
        self._axis = StepAxis()
        self._boundaries: list[float] = []
        self._times: deque[tuple[float, float]] = deque(maxlen=64)

    def begin_attempt(self, number: int = 1, phase: int = 1) -> None:
        """Note that another attempt's steps follow, trained in a phase of the run's plan."""
        self._times.clear()
        self._axis.begin_attempt(number, phase)

    def add(self, step: Step) -> None:
        """Take one step; a repeated stretch replaces the older one."""
        before = self._axis.reached
        x, begins = self._axis.place(step.epoch, step.step, step.steps)
        if begins and self._columns:
            self._boundaries.append(x - step.step)
        if x <= before:
            _cut(self._recent, x)
            for column in self._columns.values():
                _cut(column, x)
        row = {**step.losses, **{name: step.values[name] for name in KEPT if name in step.values}}
        if not self.last or len(step.losses) != len(self.losses):
            self.losses = tuple(step.losses)
        if step.skipped:
            self._skipped.append(x)
        self._times.append((step.t, x))
        self._recent.append((x, row))
        self.last = {**row, "epoch": step.epoch, "step": step.step, "steps": step.steps, "t": step.t}
        for name, value in row.items():
            points = self._columns.setdefault(name, [])
            points.append((x, value))
            if len(points) > MOST_POINTS:
                points[:] = thin(*apart(points), MOST_POINTS // 4)

    def curves(self) -> StepCurves:
        """Return what was collected, frozen."""
        return StepCurves(
            {name: apart(points) for name, points in self._columns.items()},
            # What was not measured is no gap, as a NaN is.
            {
                name: apart([(x, row[name]) for x, row in self._recent if name in row])
                for name in self._columns
            },
            self.losses,
            tuple(self._skipped[-512:]),
            tuple(self._boundaries),
            tuple(self._axis.stretches),
            self._every(),
            self.sampled,
            dict(self.last),
            self._speed(),
        )

    def _every(self) -> int:
        """Return how many steps a point of the fullest column stands for."""
        points = max(self._columns.values(), key=len, default=[])
        return max(1, int(points[-1][0] - points[0][0] + 1) // len(points)) if points else 1

    def _speed(self) -> float | None:
        """Steps a second over the last rows of one epoch or more; None while it cannot be told."""
        if len(self._times) < 2:
            return None
        (t0, x0), (t1, x1) = self._times[0], self._times[-1]
        return (x1 - x0) / (t1 - t0) if t1 > t0 and x1 > x0 else None


def _cut(points: MutableSequence[tuple[float, Any]], x: float) -> None:
    """Take what stands at `x` or after it away."""
    while points and points[-1][0] >= x:
        points.pop()


class StepReader:
    """Feeds the steps of one attempt into a store, a bounded amount a call."""

    def __init__(self, path: Path, store: StepStore, number: int = 1, phase: int = 1) -> None:
        self.path = path
        self._steps = StepFollower(path, whole_bytes=WHOLE_BYTES)
        self._store, self._number, self._phase = store, number, phase

    @property
    def opened(self) -> bool:
        """Whether the file was there and its header whole."""
        return self._steps.opened

    def read(self, limit: int = 1 << 20) -> bool:
        """Read on; returns whether there was anything new."""
        before = self.opened
        steps, more = self._steps.read(limit)
        if self.opened and not before:
            self._store.begin_attempt(self._number, self._phase)
            self._store.sampled = self._store.sampled or self._steps.sampled
        self._take(steps)
        return bool(steps) or more

    def _take(self, steps: list[Step]) -> None:
        for step in steps:
            self._store.add(step)
