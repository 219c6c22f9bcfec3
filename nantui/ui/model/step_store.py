"""Per-step telemetry kept small: whatever a run's length, at most a few thousand points a column.

A point is kept for every `every` steps, the one farthest from the one before it, so that peaks survive;
when the store is full every second point goes. The newest steps are also kept one by one. A very long file
is opened by samples spread over it: the curve is there at once, and it is said that it was sampled.
Incidents come from the journal, which is whole.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from pathlib import Path

from nantui.run.telemetry import Step, StepFollower
from nantui.ui.model.snapshot import Column, StepCurves
from nantui.ui.model.step_axis import StepAxis

MOST_POINTS = 4096
RECENT_STEPS = 2048
WHOLE_BYTES = 1 << 21
KEPT = ("grad_norm", "lr", "loss_scale", "step_s", "data_s", "images_s", "mem_gb", "mem_peak_gb")


class StepStore:
    """Collects the steps of all attempts of a run."""

    def __init__(self) -> None:
        self.every = 1
        self.sampled = False
        self.losses: tuple[str, ...] = ()
        self.last: dict[str, float] = {}
        self._xs: list[float] = []
        self._columns: dict[str, list[float | None]] = {}
        self._recent: deque[tuple[float, dict[str, float]]] = deque(maxlen=RECENT_STEPS)
        self._skipped: list[float] = []
        self._axis = StepAxis()
        self._boundaries: list[float] = []
        self._pending: dict[str, float] = {}
        self._waiting = 0
        self._times: deque[tuple[float, float]] = deque(maxlen=64)

    def begin_attempt(self, number: int = 1, phase: int = 1) -> None:
        """Note that another attempt's steps follow, trained in a phase of the run's plan."""
        self._times.clear()
        self._axis.begin_attempt(number, phase)

    def add(self, step: Step) -> None:
        """Take one step."""
        x, begins = self._axis.place(step.epoch, step.step, step.steps)
        if begins and self._xs:
            self._boundaries.append(x - step.step)
        row = {**step.losses, **{name: step.values[name] for name in KEPT if name in step.values}}
        if not self.last or len(step.losses) != len(self.losses):
            self.losses = tuple(step.losses)
        if step.skipped:
            self._skipped.append(x)
        self._times.append((step.t, x))
        self._recent.append((x, row))
        self.last = {**row, "epoch": step.epoch, "step": step.step, "steps": step.steps, "t": step.t}
        self._keep(x, row)

    def _keep(self, x: float, row: dict[str, float]) -> None:
        if self.every > 1:
            for name, value in row.items():
                waiting = self._pending.get(name, math.nan)
                if name not in self._pending or self._tells_more(name, value, waiting):
                    self._pending[name] = value
            self._waiting += 1
            if self._waiting < self.every:
                return
            row, self._pending, self._waiting = self._pending, {}, 0
        if row.keys() != self._columns.keys():
            for name in row.keys() - self._columns.keys():
                self._columns[name] = [None] * len(self._xs)
        self._xs.append(x)
        for name, column in self._columns.items():
            column.append(row.get(name))
        if len(self._xs) > MOST_POINTS:
            self._halve()

    def _tells_more(self, name: str, value: float, waiting: float) -> bool:
        """A non-finite value outlives others, then the one farther from the last kept point."""
        if not math.isfinite(waiting):
            return name == "grad_norm" and math.isnan(waiting)
        column = self._columns.get(name)
        before = column[-1] if column and column[-1] is not None else waiting
        return not math.isfinite(value) or abs(value - before) > abs(waiting - before)

    def _halve(self) -> None:
        """Of two neighbours the one that tells more stays."""
        for name, column in self._columns.items():
            self._columns[name] = [column[0], *map(_farther, column[0::2], column[1::2], column[2::2])]
        self._xs = [self._xs[0], *self._xs[2::2]]
        self.every *= 2

    def curves(self) -> StepCurves:
        """Return what was collected, frozen."""
        order = _rising(self._xs)
        columns = {
            name: _known((self._xs[index], column[index]) for index in order)
            for name, column in self._columns.items()
        }
        return StepCurves(
            columns,
            self._newest(),
            self.losses,
            tuple(self._skipped[-512:]),
            tuple(self._boundaries),
            tuple(self._axis.stretches),
            self.every,
            self.sampled,
            dict(self.last),
            self._speed(),
        )

    def _newest(self) -> dict[str, Column]:
        """Return the newest steps one by one, those of a repeated stretch once."""
        rows = list(self._recent)
        order = _rising([x for x, _ in rows])
        return {
            name: _known((rows[index][0], rows[index][1].get(name)) for index in order)
            for name in self._columns
        }

    def _speed(self) -> float | None:
        """Steps a second over the last rows of one epoch or more; None while it cannot be told."""
        if len(self._times) < 2:
            return None
        (t0, x0), (t1, x1) = self._times[0], self._times[-1]
        return (x1 - x0) / (t1 - t0) if t1 > t0 and x1 > x0 else None


def _farther(before: float | None, one: float | None, other: float | None) -> float | None:
    """Return which of two values differs more from the one before; what is not finite outlives others."""
    if one is None or other is None:
        return other if one is None else one
    if not math.isfinite(one):
        return one
    base = one if before is None else before
    return one if math.isfinite(other) and abs(one - base) > abs(other - base) else other


def _known(points: Iterable[tuple[float, float | None]]) -> Column:
    """Return the points that were measured: what was not is no gap, as a NaN is."""
    known = [(x, y) for x, y in points if y is not None]
    return tuple(x for x, _ in known), tuple(y for _, y in known)


def _rising(xs: list[float]) -> list[int]:
    """Return the indices of the points that still count, x rising:
    a repeated stretch replaces the older one.
    """
    kept: list[int] = []
    for index, x in enumerate(xs):
        while kept and xs[kept[-1]] >= x:
            kept.pop()
        kept.append(index)
    return kept


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
