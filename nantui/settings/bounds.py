"""Entries of a preset as bounds: on somebody else's run a remedy must never make things less safe.

An entry is `at_most`, `at_least` or `exactly`. Where the run is already on the safe side of it, the row
says so and nothing changes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from nantui.settings.diff import Change
from nantui.settings.values import is_number, same_value, show_value

AT_MOST, AT_LEAST, EXACTLY = "at_most", "at_least", "exactly"
KINDS = (AT_MOST, AT_LEAST, EXACTLY)
SAFER = "kept: yours is safer"
HALF = "half"
FULL_RANGE = {False: "fp32", "fp32": "fp32", "bf16": "bf16"}
"""Precisions that cannot overflow where fp16 does: bf16 has the exponent range of fp32."""


@dataclass(frozen=True)
class Bound:
    """One entry: `kind` of KINDS, the `value` it allows, and why."""

    name: str
    kind: str
    value: Any
    why: str

    def against(self, now: Any) -> Change | None:
        """Return the row for a run in which `now` is in effect, None where it is so already."""
        wanted = max(1, int(now) // 2) if self.value == HALF and is_number(now) else self.value
        if same_value(now, wanted) or (self.name == "amp" and same_precision(now, wanted)):
            return None
        if kept := self.keep(now, wanted):
            return Change(self.name, now, now, kept, kept=True)
        return Change(self.name, now, wanted, self.why)

    def keep(self, now: Any, wanted: Any) -> str:
        """Return why the run's own value stays, or "" when the entry's must take its place."""
        if wanted == HALF or (self.name == "batch" and is_number(now) and now < 1):
            return f"kept: {self.name}={show_value(now)} lets Ultralytics choose; set a number to bound it"
        if self.name == "amp" and now in FULL_RANGE:
            return SAFER if FULL_RANGE[now] == "fp32" else f"{SAFER} (bf16 does not overflow either)"
        if self.kind == EXACTLY:
            return ""
        strength, allowed = magnitude(self.name, now), magnitude(self.name, wanted)
        if strength is None or allowed is None:
            return ""
        safe = strength <= allowed if self.kind == AT_MOST else strength >= allowed
        return SAFER if safe else ""


def magnitude(name: str, value: Any) -> float | None:
    """Return how strong a setting is, as a number that can be compared; None for what has no order.

    Ultralytics writes "never" as 0 (patience) or below 1 (save_period); a `scale` may be a pair and an
    `imgsz` a list.
    """
    if isinstance(value, (list, tuple)) and value and all(is_number(item) for item in value):
        return max(abs(item - 1) for item in value) if name == "scale" else float(max(value))
    if not is_number(value):
        return None
    if (name == "patience" and value == 0) or (name == "save_period" and value < 1):
        return math.inf
    return float(value)


def same_precision(one: Any, other: Any) -> bool:
    """Tell whether two values of `amp` mean the same precision: True is fp16, False is fp32."""
    names = {True: "fp16", False: "fp32"}
    return bool(names.get(one, one) == names.get(other, other))
