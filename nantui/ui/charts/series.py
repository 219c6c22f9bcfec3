"""What a chart is given: curves with gaps where a value was not finite, and marks along the x axis."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

MOST_COLUMNS = 600
INKS = ("train", "val", "extra", "good", "warn", "info")
Column = tuple[tuple[float, ...], tuple[float, ...]]
"""xs and ys."""


@dataclass(frozen=True)
class Curve:
    """One line of a chart. `xs` rise; a non-finite y is a gap. `ink` names its colour."""

    name: str
    xs: tuple[float, ...]
    ys: tuple[float, ...]
    ink: str = "train"
    dashed: bool = False
    run: int = 0
    """Of several runs, whose curve it is."""

    @cached_property
    def coarse(self) -> Curve:
        """The curve with no more points than any screen has dots; peaks and gaps stay."""
        if len(self.xs) <= 3 * MOST_COLUMNS:
            return self
        xs, ys = apart(thin(self.xs, self.ys, MOST_COLUMNS))
        return replace(self, xs=xs, ys=ys)


@dataclass(frozen=True)
class Mark:
    """Something that happened at `x`: kind is `incident`, `skip`, `rollback`, `attempt`, or `phase` for one
    that begins there and is called `text`.
    """

    x: float
    kind: str
    text: str = ""


@dataclass(frozen=True)
class View:
    """How to look at curves: the x range (None is all of it), log scale, smoothing, all of the y range.

    `last` says that only so many of the newest points are there (0: all).
    """

    low: float | None = None
    high: float | None = None
    log: bool = False
    smooth: int = 0
    whole: bool = False
    cursor: float | None = None
    last: int = 0


@dataclass(frozen=True)
class Picture:
    """Curves with their marks, ready to be drawn; equal pictures need not be drawn again."""

    title: str
    curves: tuple[Curve, ...]
    marks: tuple[Mark, ...] = ()
    unit: str = ""
    x_name: str = "epoch"
    floor: float | None = None
    empty: str = "nothing yet"
    note: str = ""
    view: View = field(default_factory=View)


def apart(points: Iterable[tuple[float, float]]) -> Column:
    """Return the xs and the ys of points."""
    points = list(points)
    return tuple(x for x, _ in points), tuple(y for _, y in points)


def stroke(side: int) -> tuple[str, bool]:
    """Return the ink of the n-th of several curves, and whether it is dashed."""
    return INKS[side % len(INKS)], side == 1 or side // len(INKS) % 2 == 1


def window(curve: Curve, low: float, high: float) -> Curve:
    """Return the part of `curve` from `low` to `high`, with one point more at either side."""
    first = max(0, bisect_left(curve.xs, low) - 1)
    last = bisect_right(curve.xs, high) + 1
    return replace(curve, xs=curve.xs[first:last], ys=curve.ys[first:last])


def smooth(ys: Sequence[float], strength: int) -> tuple[float, ...]:
    """Return the exponential mean over about `strength` points, corrected at the start; gaps stay gaps."""
    if strength < 2:
        return tuple(ys)
    keep = 1 - 1 / strength
    mean = weight = 0.0
    smoothed = []
    for value in ys:
        if not math.isfinite(value):
            smoothed.append(value)
            continue
        mean = keep * mean + (1 - keep) * value
        weight = keep * weight + (1 - keep)
        smoothed.append(mean / weight)
    return tuple(smoothed)


def thin(xs: Sequence[float], ys: Sequence[float], columns: int) -> list[tuple[float, float]]:
    """Return at most about two points a column, the smallest and the largest, so that peaks stay visible.

    A column that holds a non-finite value also gets a NaN point, so that the gap stays visible too.
    """
    if len(xs) <= 2 * columns or columns < 1 or xs[-1] <= xs[0]:
        return list(zip(xs, ys, strict=True))
    wide = (xs[-1] - xs[0]) / columns
    points: list[tuple[float, float]] = []
    start = 0
    for column in range(1, columns + 1):
        end = bisect_left(xs, xs[0] + wide * column, start) if column < columns else len(xs)
        if start < end:
            points.extend(_extremes(xs[start:end], ys[start:end]))
        start = end
    return points


def _extremes(xs: Sequence[float], ys: Sequence[float]) -> list[tuple[float, float]]:
    if all(map(math.isfinite, ys)):
        first, last = sorted((ys.index(min(ys)), ys.index(max(ys))))
        return [(xs[first], ys[first]), (xs[last], ys[last])][: 1 + (first < last)]
    finite = [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(y)]
    gap = [(xs[-1], math.nan)]
    return [*_extremes(*zip(*finite, strict=True)), *gap] if finite else gap


def nearest(curve: Curve, x: float) -> tuple[float, float] | None:
    """Return the point of `curve` nearest to `x`."""
    if not curve.xs:
        return None
    right = bisect_left(curve.xs, x)
    candidates = [index for index in (right - 1, right) if 0 <= index < len(curve.xs)]
    best = min(candidates, key=lambda index: abs(curve.xs[index] - x))
    return curve.xs[best], curve.ys[best]
