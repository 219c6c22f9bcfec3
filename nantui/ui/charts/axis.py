"""Where values land on an axis: limits that one outlier cannot ruin, and few, round ticks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

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


Ticks = dict[int, str]
"""Labels by row, counted from the top."""


def on_rows(bounds: Scale, rows: int) -> tuple[Scale, Ticks]:
    """Return the scale that holds `bounds` on `rows` rows of four dots, and its ticks: each in the middle of
    a row, as many rows from one to the next, so that a height can be read exactly.
    """
    if bounds.log:
        return _log_rows(bounds, rows)
    # Closer together than this, labels would be longer than curves.
    least = max(bounds.high - bounds.low, 1e-4 * max(abs(bounds.low), abs(bounds.high)))
    for unit, step, every in _units(least, rows):
        bottom = math.floor(bounds.low / unit + 1e-9)
        whole = [index for index in range(bottom, bottom + rows) if index % every == 0]
        if (bottom + rows - 1) * unit >= bounds.high - 1e-9 * unit and len(whole) >= min(2, rows):
            ticks = {bottom + rows - 1 - one: tick_label(one // every * step, step) for one in whole}
            return Scale((bottom - 0.25) * unit, (bottom + rows - 0.5) * unit), ticks
    return bounds, {}  # two rows around zero: there is no room for ticks


def _units(least: float, rows: int) -> list[tuple[float, float, int]]:
    """Return (value of a row, step of the ticks, rows from tick to tick), the finest unit first."""
    power = math.floor(math.log10(least / rows))
    fewest = max(1, rows // 8)
    steps = [factor * 10.0**exponent for exponent in range(power, power + 5) for factor in STEPS[:-1]]
    spacings = range(fewest, max(fewest + 1, min(rows, fewest + 4)))
    return sorted(((step / every, step, every) for step in steps for every in spacings),
                  key=lambda unit: (unit[0], -unit[2]))  # fmt: skip


def _log_rows(bounds: Scale, rows: int) -> tuple[Scale, Ticks]:
    """Decades on rows; where fewer than two are in sight, also two and five times them, or round values."""
    low, high = math.log10(bounds.low), math.log10(bounds.high)
    units = [*(1 / parts for parts in range(rows * 2, 0, -1)), *map(float, range(2, 700))]
    held = (one for one in units if (math.floor(low / one + 1e-9) + rows - 1) * one >= high - 1e-9)
    unit = next(held, None)
    if unit is None:
        return bounds, {}  # two rows around one
    bottom = math.floor(low / unit + 1e-9)
    scale = Scale(_power((bottom - 0.25) * unit), _power((bottom + rows - 0.5) * unit), True)
    decades = [round(row * unit) for row in range(bottom, bottom + rows) if abs(row * unit % 1) < 1e-6]
    values = [_power(decade) for decade in decades[:: math.ceil(len(decades) / max(2, rows // 2)) or 1]]
    if len(values) < 2:
        exponents = range(math.floor(low), math.ceil(high) + 1)
        inside = (factor * _power(exponent) for exponent in exponents for factor in (1, 2, 5))
        values = [value for value in inside if bounds.low <= value <= bounds.high]
    labels = {value: tick_label(value, value) for value in values}
    if len(labels) < 2:
        values = linear_ticks(bounds.low, bounds.high, max(2, rows // 2))
        step = values[1] - values[0] if len(values) > 1 else values[0]
        labels = {value: tick_label(value, step) for value in values}
    found = {round((1 - scale.place(value)) * (4 * rows - 1)) // 4: labels[value] for value in labels}
    return scale, {row: label for row, label in found.items() if 0 <= row < rows}


def _power(exponent: float) -> float:
    return float(10.0 ** max(-307.0, min(307.0, exponent)))


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


def limits(values: Sequence[float], *, log: bool, whole: bool, floor: float | None = None) -> Scale:
    """Return what of finite `values` is to be seen: outliers beyond the bulk are left out unless `whole`."""
    if log:
        values = [value for value in values if value > 0]
    if not values:
        return Scale(0.1, 1.0, True) if log else Scale(0.0, 1.0)
    low, high = (min(values), max(values)) if whole else _bulk(sorted(values))
    if log:
        return Scale(low, high if high > low * 1.05 else low * 1.05, True)
    room = 0.0 if high > low else abs(high) * 0.1 or 0.5
    return Scale(low - room if floor is None or low < floor else max(floor, low - room), high + room)


def rounded_end(low: float, high: float) -> float:
    """Return the round number at or after `high` where an x axis from `low` may end."""
    if high <= low:
        return high
    least = max(1.0, (high - low) / ROOMS)
    power = 10.0 ** math.floor(math.log10(least))
    step = next(factor * power for factor in (*STEPS, 20.0) if factor * power >= least * (1 - 1e-9))
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


def tick_label(value: float, step: float) -> str:
    """Return a tick with the digits that its step of 1, 2, 2.5 or 5 times a power of ten asks for."""
    if value == 0:
        return "0"
    digits = -math.floor(math.log10(step) + 1e-9)
    digits += f"{step:.1e}"[2] != "0"  # 2.5
    size = math.floor(math.log10(abs(value)) + 1e-9)
    if -4 <= size < 5 and digits <= 5:
        return f"{value:.{max(0, digits)}f}"
    mantissa, exponent = f"{value:.{max(0, size + digits)}e}".split("e")
    return f"{mantissa}e{int(exponent)}"
