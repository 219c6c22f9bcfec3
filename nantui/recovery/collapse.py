"""A training that died with finite numbers, as results.csv tells: the epoch in which that began.

Three things tell: all training losses are zero, the validation losses left their history by orders of
magnitude, or the metrics fell to zero for good. None counts where a later epoch is sound again, for healthy
trainings stumble too: in warm-up, when mosaic is closed, or for one validation in fp16.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from nantui.run.results import EpochRow
from nantui.run.zero import practically_zero

ZERO, EXPLODED, LOST = "zero_loss", "val_loss_exploded", "metrics_lost"
HISTORY = 50
"""Earlier epochs that a new one is compared with."""
FEW = 5
FACTOR_OF_FEW, FACTOR = 1000.0, 300.0
"""Times the median of the earlier epochs that no healthy validation loss is: with few of them, with more."""
SPREADS, SPREAD_FLOOR = 10.0, 0.5
"""And so many robust spreads of its logarithm, a spread being at least so large."""
BACK = 10.0
"""A validation loss below so many times the median is back."""
LEARNT = 0.01
"""A metric (mAP, accuracy) below this proves nothing: of a young network it comes and goes."""
FOR_GOOD = 3
"""Epochs with metrics of zero, up to the newest, that are for good."""


@dataclass(frozen=True)
class Collapse:
    """The first epoch, from 1, of a training that has not recovered; `kind` as an incident's."""

    epoch: int
    kind: str
    text: str


@dataclass(frozen=True)
class Seen:
    """An epoch in brief: the sums of its losses (0.0 without any), the metric that decides about best.pt."""

    epoch: int
    train: float
    val: float
    metric: float
    finite: bool


def first_collapse(rows: Iterable[EpochRow]) -> Collapse | None:
    """Return where the training died, None for a sound one; `rows` are one an epoch, in epoch order.

    Rows without training losses (not Ultralytics') tell nothing.
    """
    seen = [in_brief(row) for row in rows if row.losses("train")]
    for at, one in enumerate(seen):
        before, after = seen[max(at - HISTORY, 0) : at], seen[at + 1 :]
        for kind, text in _evidence(before, one, after):
            if not any(_sound(before, one, later) for later in after):
                return Collapse(one.epoch, kind, text)
    return None


def in_brief(row: EpochRow) -> Seen:
    """Return what is compared of an epoch."""
    train, val = (sum(row.losses(split).values()) for split in ("train", "val"))
    return Seen(row.epoch, train, val, quality(row), row.finite)


def quality(row: EpochRow) -> float:
    """Return the metric that decides about best.pt, as far as results.csv has it; 0 without any.

    mAP50-95 of boxes, masks or keypoints, top-1 accuracy, else the mean of all metrics.
    """
    metrics = {name: value for name, value in row.values.items() if name.startswith("metrics/")}
    for deciding in ("metrics/mAP50-95", "metrics/accuracy_top1", "metrics/"):
        found = [value for name, value in metrics.items() if name.startswith(deciding)]
        if found:
            mean = sum(found) / len(found)
            return mean if math.isfinite(mean) else 0.0
    return 0.0


def _evidence(before: Sequence[Seen], one: Seen, after: Sequence[Seen]) -> Iterator[tuple[str, str]]:
    """Yield (kind, text) of what speaks against an epoch."""
    if _zero(before, one):
        usual = _usual(seen.train for seen in before)
        where = f" where {usual:.3g} was usual" if usual > 0 else ""
        yield ZERO, f"all training losses are zero ({one.train:.3g}{where})"
    if text := _exploded(before, one):
        yield EXPLODED, text
    best = _best(before)
    dead = all(later.val > 0 and later.metric == 0 for later in (one, *after))
    if best >= LEARNT and dead and len(after) >= FOR_GOOD - 1:
        yield LOST, f"the metrics fell to 0 for good, the best before was {best:.3g}"


def _sound(before: Sequence[Seen], bad: Seen, later: Seen) -> bool:
    """Tell whether an epoch after the bad one shows a training that is well again."""
    if not later.finite or _zero(before, later):
        return False
    if later.metric >= _good_enough(before):
        return True
    had_metrics, usual = _best([*before, bad]) > 0, _usual(seen.val for seen in before)
    back = math.isnan(usual) or 0 < later.val <= BACK * usual
    return back and (later.metric > 0 or not had_metrics)


def _zero(before: Sequence[Seen], one: Seen) -> bool:
    return practically_zero(one.train, _usual(seen.train for seen in before))


def _exploded(before: Sequence[Seen], one: Seen) -> str:
    """Return how far the validation losses left their history, "" where they did not.

    With good metrics they did not: a single image can spoil the loss, and so can fp16.
    """
    earlier = _levels(seen.val for seen in before)
    if not earlier or not 0 < one.val < math.inf or one.metric >= _good_enough(before):
        return ""
    usual = median(earlier)
    if one.val < usual * (FACTOR_OF_FEW if len(earlier) < FEW else FACTOR):
        return ""
    deviation = median(abs(math.log(level / usual)) for level in earlier)
    if math.log(one.val / usual) < SPREADS * max(1.4826 * deviation, SPREAD_FLOOR):
        return ""
    return f"the validation losses are {one.val:.3g} where {usual:.3g} was usual, and did not come back"


def _best(seen: Iterable[Seen]) -> float:
    return max((one.metric for one in seen), default=0.0)


def _good_enough(before: Sequence[Seen]) -> float:
    return max(LEARNT, _best(before) / 2)


def _levels(values: Iterable[float]) -> list[float]:
    return [value for value in values if 0 < value < math.inf]


def _usual(values: Iterable[float]) -> float:
    """Return the median level, NaN without any."""
    return median(_levels(values) or [math.nan])
