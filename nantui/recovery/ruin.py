"""The one judgement on finite numbers that an unattended recovery acts on: worse than before it learned.

A network is ruined where all of this is in the files, up to the newest epoch: it had learned something; since
then, over several validations that differ, its metrics are gone *and* its validation losses are far above the
highest that it had before it had learned anything; and each of these validations was done in fp32, so that no
overflow of half precision speaks. A healthy training shows nothing of the kind; a network that never learned
is not ruined either, nor one whose metrics fell while its losses stayed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from nantui.recovery.judgement import LEARNT, SHARE_LOST, Seen, in_brief, last_good, lasting, settling
from nantui.run.events import EpochEnded, InEffect, ValidationPrecision
from nantui.run.record import RunRecord
from nantui.run.results import EpochRow

FP32 = "fp32"
MARGIN = 10.0
"""Times the highest validation loss of the young network. By itself it proves nothing: a healthy training of
tests/recovery/data was at 460 times for a while, with metrics that had not gone."""


@dataclass(frozen=True)
class Ruin:
    """`epoch`, from 1, in which it began, `epochs` long up to the newest; losses are a validation's sums."""

    epoch: int
    epochs: int
    loss: float
    untrained: float
    metric: float
    best: float

    @property
    def text(self) -> str:
        """The evidence in one line."""
        return (
            f"worse than untrained since epoch {self.epoch} ({self.epochs} epochs, validated in fp32): "
            f"validation losses of at least {self.loss:.3g}, before it learned at most {self.untrained:.3g}; "
            f"metrics of at most {self.metric:.3g}, the best before was {self.best:.3g}"
        )


def proven_ruin(rows: Iterable[EpochRow], in_fp32: Collection[int], mosaic_closes: int = 0) -> Ruin | None:
    """Return the ruin that the rows (one an epoch, in epoch order) prove, None where they do not.

    `in_fp32` are the epochs, from 1, that were validated in fp32; `mosaic_closes` as in `judge_numbers`.
    """
    rows = [row for row in rows if row.losses("train")]
    if not rows or rows[0].epoch != 1 or not rows[-1].finite:
        return None
    unsettled, seen = settling(rows, mosaic_closes), [in_brief(row) for row in rows if row.finite]
    learnt = last_good(seen)
    untrained = untrained_loss(seen)
    if learnt is None or untrained <= 0:
        return None
    best = max(one.metric for one in seen[: learnt + 1])

    def ruined(one: Seen) -> bool:
        return one.epoch in in_fp32 and one.metric <= SHARE_LOST * best and one.val > MARGIN * untrained

    def validation(one: Seen) -> object:
        return None if one.epoch in unsettled else (one.val, one.metric)

    run = lasting(seen[learnt + 1 :], ruined, validation)
    if not run:
        return None
    loss, metric = min(one.val for one in run), max(one.metric for one in run)
    return Ruin(run[0].epoch, len(run), loss, untrained, metric, best)


def untrained_loss(seen: Iterable[Seen]) -> float:
    """Return the highest validation loss from before the network had learned anything, 0 without one."""
    highest = 0.0
    for one in seen:
        if one.metric >= LEARNT:
            break
        highest = max(highest, one.val)
    return highest


def validated_in_fp32(record: RunRecord) -> frozenset[int]:
    """Return the epochs, from 1, whose newest validation is known to have been done in fp32.

    Ultralytics (8.4.190, `BaseValidator.__call__`) validates in half precision where the device is no CPU and
    `trainer.amp` is on, whatever kind of amp that is; the guard says from which epoch on it validates in
    fp32 instead, and from which on no more.
    """
    found: dict[int, bool] = {}
    for attempt in record.attempts:
        exact = by_guard = False
        for event in attempt.events():
            if isinstance(event, InEffect):
                exact = _exact(event.values)
            elif isinstance(event, ValidationPrecision) and event.epoch is not None:
                by_guard = event.precision == FP32
            elif isinstance(event, EpochEnded) and event.epoch is not None:
                found[event.epoch] = exact or by_guard
    return frozenset(epoch for epoch, exact in found.items() if exact)


def _exact(values: Mapping[str, object]) -> bool:
    return str(values.get("device", "")).startswith("cpu") or values.get("amp") is False
