"""What going back costs: epochs, and hours by this run's own epoch times."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nantui.devices import uses_no_gpu
from nantui.recovery.candidates import Candidate
from nantui.recovery.signs import Reached
from nantui.settings.effective import number


@dataclass(frozen=True)
class Costs:
    """What it costs; hours are NaN where no epoch was timed, `factor` is an epoch's time then over now."""

    epochs_lost: int
    lost_text: str
    hours_lost: float
    hours_remaining: float
    seconds_per_epoch: float
    factor: float = 1.0


def costs_of(
    restore: Candidate | None, reached: Reached, now: Mapping[str, Any], then: Mapping[str, Any]
) -> Costs:
    """Return the costs from this run's own epoch times."""
    factor, seconds = time_factor(now, then), reached.seconds
    work = restore.work or 0 if restore else 0
    left = max(number(then.get("epochs")) - work, 0)
    remaining = left * seconds * factor / 3600
    if restore is None:
        done = reached.completed
        text = f"all {done} epochs" if done > 1 else "the only epoch" if done else "nothing"
        return Costs(done, text, done * seconds / 3600, remaining, seconds, factor)
    return Costs(restore.epochs_lost, restore.lost_text, restore.hours_lost, remaining, seconds, factor)


def time_factor(now: Mapping[str, Any], then: Mapping[str, Any]) -> float:
    """Return how much longer an epoch will take on a GPU: image area, and precision as measured there."""
    time_of = {False: 169.0, "fp32": 169.0, "bf16": 108.0}
    area = (number(then.get("imgsz")) / number(now.get("imgsz"))) ** 2
    precision = time_of.get(then.get("amp", True), 98.6) / time_of.get(now.get("amp", True), 98.6)
    return (area if math.isfinite(area) else 1.0) * (1.0 if uses_no_gpu(then.get("device")) else precision)
