"""Where values land on an axis: limits that one outlier cannot ruin, and few, round ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from nantui.ui.format import number

STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
ROOMS = 16
"""Axes end at multiples of a round sixteenth of their range: few of their numbers move when a value comes."""


@dataclass(frozen=True)
class Scale:
    """Maps values from `low`..`high` to 0..1; with `log`, by their logarithm (both limits positive)."""

    low: float
    high: float
    log: bool = False

    def place(self, value: float) -> float:
        """Return where `value` lies, 0 at `low`, 1 at `high`, beyond for values outside."""
        if self.log:
            if value <= 0:
                return -1.0
            span = math.log(self.high / self.low)
            return math.log(value / self.low) / span if span else 0.5
        span = self.high - self.low
        return (value - self.low) / span if span else 0.5

    def ticks(self, most: int) -> list[float]:
        """Return at most `most` round values inside the limits, rising."""
        return _log_ticks(self.low, self.high, most) if self.log else linear_ticks(self.low, self.high, most)


def linear_ticks(low: float, high: float, most: int, whole: bool = False) -> list[float]:
    """Return at most `most` round values from `low` to `high`."""
    if most < 1 or not high > low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    for factor in (*STEPS, 20.0, 50.0):
        step = factor * power
        if whole and (step < 1 or step != int(step)):
            continue
        first = math.ceil(low / step - 1e-9)
        last = math.floor(high / step + 1e-9)
        if 0 <= last - first < most:
            return [index * step for index in range(first, last + 1)]
    return [low]


def _log_ticks(low: float, high: float, most: int) -> list[float]:
    decades = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
    ticks = [10.0**power for power in decades]
    if len(ticks) < 2:
        return linear_ticks(low, high, most)
    every = math.ceil(len(ticks) / most)
    return ticks[::every]


def limits(values: Sequence[float], *, log: bool, whole: bool, floor: float | None = None) -> Scale:
    """Return the scale for finite `values`: outliers beyond the bulk are left outside unless `whole`."""
    if log:
        values = [value for value in values if value > 0]
    if not values:
        return Scale(0.1, 1.0, True) if log else Scale(0.0, 1.0)
    low, high = (min(values), max(values)) if whole else _bulk(sorted(values))
    if log:
        return Scale(
            10 ** (math.floor(math.log10(low) * 8) / 8), 10 ** (math.ceil(math.log10(high) * 8) / 8), True
        )
    margin = (high - low) * 0.02 or abs(high) * 0.1 or 0.5
    step = round_step((high - low + 2 * margin) / ROOMS)
    bottom, top = math.floor((low - margin) / step) * step, math.ceil((high + margin) / step) * step
    if floor is not None and low >= floor:
        bottom = max(floor, bottom)
    return Scale(bottom, top)


def round_step(least: float) -> float:
    """Return the smallest 1, 2, 2.5 or 5 times a power of ten that is not below `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (*STEPS, 20.0) if factor * power >= least * (1 - 1e-9))


def rounded_end(low: float, high: float) -> float:
    """Return the round number at or after `high` where an x axis from `low` may end."""
    if high <= low:
        return high
    step = max(1.0, round_step((high - low) / ROOMS))
    return max(high, math.ceil(high / step - 1e-9) * step)


def _bulk(ordered: Sequence[float]) -> tuple[float, float]:
    """Return the range of the values that lie within ten times the middle half's spread around it.

    A loss that falls from the first epochs on stays in sight; one that jumps a thousandfold does not
    flatten everything else.
    """
    count = len(ordered)
    quarter, three_quarters = ordered[count // 4], ordered[(3 * count) // 4]
    reach = 10 * max(three_quarters - quarter, abs(three_quarters) * 0.02)
    inside = [value for value in ordered if quarter - reach <= value <= three_quarters + reach]
    return inside[0], inside[-1]


def tick_label(value: float) -> str:
    """Return a tick as short as it can be, at most 6 characters."""
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 10**4 or size < 10**-3:
        return number(value, 2)
    return f"{value:.4f}".rstrip("0").rstrip(".")
