"""Per-step telemetry kept small: whatever a run's length, at most a few thousand points a column.

A column that is full is thinned as a chart is: of each stretch the smallest and the largest value stay, so
that peaks survive, and one NaN. The newest steps are also kept one by one. A very long file is opened by
samples spread over it: the curve is there at once, and it is said that it was sampled. Incidents come from
the journal, which is whole.

Steps count on through the whole run. An attempt that repeats an epoch begins where that epoch began before;
with another batch size an epoch has more or fewer steps from there on; the first attempt of a phase begins
where the phase before has ended.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, MutableSequence
from typing import Any

from nantui.run.telemetry import Step, StepFollower
from nantui.ui.charts.series import apart, thin
from nantui.ui.model.snapshot import StepCurves, Stretch

MOST_POINTS = 4096
RECENT_STEPS, RECENT_SKIPS = 2048, 512
WHOLE_BYTES = 1 << 21
MEMORY = ("mem_gb", "mem_peak_gb", "alloc_peak_gb")
KEPT = ("grad_norm", "lr", "loss_scale", "step_s", "data_s", "images_s", *MEMORY)


class StepAxis:
    """Places the attempts of a run one after another, in the order in which their steps are added."""

    def __init__(self) -> None:
        self.stretches: list[Stretch] = []
        self.reached = 0.0
        self._attempt, self._phase = 0, 1
        self._now: Stretch | None = None

    def begin_attempt(self, attempt: int, phase: int) -> None:
        """Note whose steps follow."""
        self._attempt, self._phase, self._now = attempt, phase, None

    def place(self, epoch: int, step: int, steps: int) -> float:
        """Return where the next step stands."""
        if self._now is None or self._now.steps != steps:
            self._now = Stretch(self._attempt, self._phase, epoch, self._start_of(epoch, steps), steps)
            last = self.stretches[-1] if self.stretches else None
            if last is not None and (last.attempt, last.epoch) == (self._attempt, epoch):
                self.stretches.pop()
            self.stretches.append(self._now)
        self.reached = self._now.at(epoch, step)
        return self.reached

    def _start_of(self, epoch: int, steps: int) -> float:
        """Return where an epoch begins: where it began before, if this phase has been trained."""
        if not self.stretches:
            return float((epoch - 1) * steps)
        if self._phase > self.stretches[-1].phase:
            return self.reached
        known = [stretch for stretch in self.stretches if stretch.phase == self._phase]
        before = [stretch for stretch in known if stretch.epoch <= epoch] or known[:1]
        return before[-1].at(epoch, 0) if before else self.reached


def place_of(stretches: Iterable[Stretch], attempt: object, epoch: int, step: int) -> float | None:
    """Return where a step of an attempt stands, None where nothing of it is known."""
    own = [stretch for stretch in stretches if stretch.attempt == attempt and stretch.epoch <= epoch]
    return own[-1].at(epoch, step) if own else None


class StepStore:
    """Collects the steps of all attempts of a run."""

    def __init__(self) -> None:
        self._sampled = False
        self.losses: tuple[str, ...] = ()
        self.last: dict[str, float] = {}
        self._columns: dict[str, list[tuple[float, float]]] = {}
        self._recent: deque[tuple[float, dict[str, float]]] = deque(maxlen=RECENT_STEPS)
        self._skipped: deque[float] = deque(maxlen=RECENT_SKIPS)
        self._axis = StepAxis()
        self._times: deque[tuple[float, float]] = deque(maxlen=64)

    def read(self, steps: StepFollower, attempt: int = 1, phase: int = 1) -> bool:
        """Read on in an attempt's file, a bounded amount; returns whether there was anything new."""
        opened = steps.opened
        new, more = steps.read()
        if steps.opened and not opened:
            self._times.clear()
            self._axis.begin_attempt(attempt, phase)
            self._sampled = self._sampled or steps.sampled
        for step in new:
            self.add(step)
        return bool(new) or more

    def add(self, step: Step) -> None:
        """Take one step; a repeated stretch replaces the older one."""
        before, x = self._axis.reached, self._axis.place(step.epoch, step.step, step.steps)
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
        names, recent = self._columns, self._recent
        return StepCurves(
            {name: apart(points) for name, points in names.items()},
            # What was not measured is no gap, as a NaN is.
            {name: apart((x, row[name]) for x, row in recent if name in row) for name in names}, self.losses,
            tuple(self._skipped), tuple(self._axis.stretches), self._note(), dict(self.last), self._speed(),
        )  # fmt: skip

    def _note(self) -> str:
        """Say what part of the steps the curves show: the fullest column tells."""
        points = max(self._columns.values(), key=len, default=[])
        every = int(points[-1][0] - points[0][0] + 1) // len(points) if points else 1
        return "sampled" if self._sampled else f"1 in {every}" if every > 1 else ""

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
