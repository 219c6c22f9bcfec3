"""How far a training came: what a checkpoint's cost is counted from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nantui.run.record import RunRecord
from nantui.run.results import EpochRow, median_epoch_s

TIMED_EPOCHS = 10


@dataclass(frozen=True)
class Reached:
    """How far the training came: `completed` epochs and `part` of the next; `seconds` an epoch, or NaN."""

    completed: int
    part: float
    seconds: float

    @property
    def epoch(self) -> int:
        """The epoch, from 1, in which it stands or stood."""
        return self.completed + (1 if self.part > 0 else 0)


def how_far(record: RunRecord) -> Reached:
    """Return how far the newest attempt (or the foreign run) came."""
    rows = record.epochs
    completed = rows[-1].epoch if rows else 0
    step = record.newest.steps.newest
    running = step is not None and step.epoch == completed + 1
    part = step.step / max(step.steps, 1) if running and step is not None else 0.0
    return Reached(completed, part, seconds_per_epoch(record.results))


def seconds_per_epoch(rows: Sequence[EpochRow]) -> float:
    """Return the median time in s of the last ten epochs, NaN where nothing was measured."""
    return median_epoch_s(rows, last=TIMED_EPOCHS, from_the_start=True)
