"""Where a step stands on one axis for the whole run: steps count on through resumes, batch sizes and phases.

An attempt that repeats an epoch begins where that epoch began before; with another batch size an epoch has
more or fewer steps from there on; the first attempt of a phase begins where the phase before has ended.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


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

    def place(self, epoch: int, step: int, steps: int) -> tuple[float, bool]:
        """Return where the next step stands, and whether it is the first of its attempt."""
        begins = self._now is None
        if self._now is None or self._now.steps != steps:
            self._now = Stretch(self._attempt, self._phase, epoch, self._start_of(epoch, steps), steps)
            last = self.stretches[-1] if self.stretches else None
            if last is not None and (last.attempt, last.epoch) == (self._attempt, epoch):
                self.stretches.pop()
            self.stretches.append(self._now)
        self.reached = self._now.at(epoch, step)
        return self.reached, begins

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
