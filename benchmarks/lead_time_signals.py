"""Signals that a training is about to break, each a score per step of what was recorded; higher is worse.

A warning is a step whose score is above a threshold after a while below it, as the guard counts episodes. So
one pass over a training serves every threshold, and the curve is only a matter of counting.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any

import numpy as np

from benchmarks.lead_time_record import Recorded
from nantui.worker.guard.anomaly import CALM, Distribution, Explosion, Growth

NOTHING = -math.inf
LIMIT, PATIENCE = 12.0, 20
"""The guard's own `loss_limit` and `loss_patience`."""
CLOSEST = 4.0
"""The most that one value may add to a sum of surprises: a lone outlier must not fill it."""
Score = Callable[[Recorded], Sequence[float]]
Judge = Callable[[Iterable[float], Sequence[float]], list[float]]


def floors(one: Recorded) -> list[float]:
    """Return the least spread at each step, as the guard takes it: a young network's is wide."""
    explosion, found = Explosion(LIMIT, PATIENCE), []
    for loss in one.column("loss"):
        found.append(explosion.floor)
        if math.isfinite(loss) and loss > 0:
            explosion.add(float(loss))
    return found


def losses(one: Recorded) -> list[float]:
    """Return the losses as the guard's warning sees them: what is learnt by heart counts as a trifle."""
    explosion, found = Explosion(LIMIT, PATIENCE), []
    for loss in one.column("loss"):
        found.append(max(float(loss), explosion.trifle))
        if math.isfinite(loss) and loss > 0:
            explosion.add(float(loss))
    return found


def surprises(values: Iterable[float], least: Sequence[float]) -> list[float]:
    """Return how many spreads each value lies above the highest of what was usual."""
    seen, found = Distribution(), []
    for value, floor in zip(values, least, strict=True):
        found.append(seen.score(value, floor) if value > 0 else 0.0)
        seen.add(value)
    return found


def jump(values: Iterable[float], least: Sequence[float]) -> list[float]:
    """The guard's rule so far: one step far out, or three of five beyond two thirds of that."""
    recent: deque[float] = deque(maxlen=5)
    found = []
    for score in surprises(values, least):
        recent.append(score)
        third = sorted(recent)[-3] if len(recent) >= 3 else 0.0
        found.append(max(score, third * 1.5))
    return found


def stays(count: int) -> Judge:
    """Return the rule that half of the newest `count` values lie beyond what was usual."""

    def judge(values: Iterable[float], least: Sequence[float]) -> list[float]:
        recent: deque[float] = deque([0.0] * count, maxlen=count)
        found = []
        for score in surprises(values, least):
            recent.append(score)
            found.append(median(recent))
        return found

    return judge


def cusum(allowance: float) -> Judge:
    """Return the change-point test: a sum of what lies more than `allowance` spreads above the median."""

    def judge(values: Iterable[float], least: Sequence[float]) -> list[float]:
        seen, total, found = Distribution(0.5), 0.0, []
        for value, floor in zip(values, least, strict=True):
            score = seen.score(value, floor) if value > 0 else 0.0
            total = max(total + min(score, CLOSEST) - allowance, 0.0)
            seen.add(value)
            found.append(total)
        return found

    return judge


def times(values: Iterable[float], least: Sequence[float]) -> list[float]:
    """How many times the highest of what was usual, on its logarithm, whatever the spread was."""
    seen, found = Distribution(), []
    for value in values:
        usual = seen.highest
        found.append(math.log(value / usual) if value > 0 and not math.isnan(usual) else 0.0)
        seen.add(value)
    return found


def plain(values: Iterable[float], least: Sequence[float]) -> list[float]:
    """The value itself, on its logarithm: no history is needed."""
    return [math.log10(value) if value > 0 else NOTHING for value in values]


def growth(values: Iterable[float], least: Sequence[float]) -> list[float]:
    """How many times what the training began with, on its logarithm, as the guard's `Growth` sees it."""
    seen, found = Growth(), []
    for value in values:
        seen.add(value)
        found.append(math.log10(value / seen.usual) if value > 0 else NOTHING)
    return found


def largest(one: Recorded, name: str) -> list[float]:
    """Return the largest of several columns at each step, NaN where there is none."""
    columns = one.columns(name)
    there = np.where(np.isnan(columns), -np.inf, columns).max(axis=1)
    return [float(value) for value in np.where(np.isinf(there) & (there < 0), np.nan, there)]


def judged(judge: Judge, values: Sequence[float], least: Sequence[float], every: int = 1) -> Any:
    """Return the scores of the finite ones among each `every`-th value; elsewhere nothing is said."""
    found = np.full(len(values), NOTHING)
    there = [place for place, value in enumerate(values) if place % every == 0 and math.isfinite(value)]
    found[there] = judge([values[place] for place in there], [least[place] for place in there])
    return found


def scale_slope(one: Recorded, window: int = 100) -> list[float]:
    """Return how many times the loss scale has been halved within the newest steps."""
    scales, found = one.column("scale"), []
    for place, scale in enumerate(scales):
        before = scales[max(place - window, 0) : place + 1]
        known = before[np.isfinite(before) & (before > 0)]
        found.append(float(np.log2(known.max() / scale)) if len(known) and scale > 0 else NOTHING)
    return found


QUANTITIES: dict[str, Callable[[Recorded], list[float]]] = {
    "loss": losses,
    "gradient norm": lambda one: list(one.column("norm")),
    "update ratio": lambda one: largest(one, "ratio"),
    "largest activation": lambda one: largest(one, "activation"),
    "BatchNorm's peak": lambda one: list(one.column("statistics")),
}
JUDGES: dict[str, Judge] = {
    "jump": jump, "stays 5": stays(5), "stays 10": stays(10), "stays 20": stays(20),
    "CUSUM 1": cusum(1.0), "CUSUM 2": cusum(2.0), "CUSUM 3": cusum(3.0), "times": times, "itself": plain,
    "growth": growth,
}  # fmt: skip


def every_score(one: Recorded) -> dict[str, Any]:
    """Return the scores of every signal for a training, by signal."""
    least = floors(one)
    found: dict[str, Any] = {"loss scale, slope": np.array(scale_slope(one))}
    for quantity, values_of in QUANTITIES.items():
        values = values_of(one)
        found |= {f"{quantity}, {name}": judged(judge, values, least) for name, judge in JUDGES.items()}
    activations = largest(one, "activation")
    for every in (10, 50):
        found[f"largest activation each {every}th, jump"] = judged(jump, activations, least, every)
    return found


def warned(scores: Any, threshold: float) -> Any:
    """Return the steps at which somebody is warned: above the threshold, after enough calm steps."""
    high = np.flatnonzero(scores > threshold)
    return high[np.flatnonzero(np.diff(high, prepend=-CALM - 1) > CALM)]
