"""What settings really amount to: the resolved optimizer, and the learning rate at a given epoch.

`lr0` is not the rate in effect, and with `optimizer=auto` it is not even the rate asked for. A comparison
with the asked values would call a remedy lower when it is higher.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nantui.run.documents import Settings

AUTO_ITERATIONS = 10000


@dataclass(frozen=True)
class Optimizer:
    """The optimizer that a training builds, with its rate before any schedule."""

    name: str
    lr0: float
    momentum: float
    text: str = ""


def resolve_optimizer(
    args: Mapping[str, Any], classes: int | None = None, images: int | None = None, large: str = "MuSGD"
) -> Optimizer:
    """Return what Ultralytics builds from `args`; `images` and `classes` are those of the training set.

    `optimizer=auto` picks by the number of optimizer steps: above 10,000 `large` (MuSGD since 8.4, SGD
    before) at 0.01, else AdamW at 0.002·5/(4+classes); `lr0` and `momentum` are ignored
    (`BaseTrainer.build_optimizer`). Where images or classes are not known, the small case of 80 classes
    is not guessed: `lr0` is NaN and `text` says so.
    """
    name = str(args.get("optimizer", "auto"))
    if name.lower() != "auto":
        return Optimizer(name, number(args.get("lr0")), number(args.get("momentum")))
    if images is None or not number(args.get("batch")) >= 1:
        return Optimizer("auto", math.nan, 0.9, "auto chooses at the start; lr0 and momentum are ignored")
    nominal = max(number(args.get("batch")), number(args.get("nbs", 64)))
    steps = math.ceil(images / nominal) * int(args.get("epochs", 100))
    if steps > AUTO_ITERATIONS:
        return Optimizer(large, 0.01, 0.9, f"auto: {large} at 0.01, for {steps} steps")
    fitted = round(0.002 * 5 / (4 + classes), 6) if classes else math.nan
    return Optimizer("AdamW", fitted, 0.9, f"auto: AdamW at {fitted:g}, for {steps} steps, {classes} classes")


def in_effect(
    args: Mapping[str, Any], classes: int | None = None, images: int | None = None, large: str = "MuSGD"
) -> dict[str, object]:
    """Return `args` with `optimizer`, `lr0` and `momentum` as they are really used."""
    optimizer = resolve_optimizer(args, classes, images, large)
    return {**args, "optimizer": optimizer.name, "lr0": optimizer.lr0, "momentum": optimizer.momentum}


def lr_factor(args: Mapping[str, Any], epoch: int) -> float:
    """Return the share of lr0 in effect in `epoch`, counted from 0 (`BaseTrainer._setup_scheduler`)."""
    epochs, lrf = max(int(args.get("epochs", 100)), 1), number(args.get("lrf", 0.01))
    if args.get("cos_lr"):
        return max((1 - math.cos(epoch * math.pi / epochs)) / 2, 0) * (lrf - 1) + 1
    return max(1 - epoch / epochs, 0) * (1.0 - lrf) + lrf


def lr_at(args: Settings, epoch: int) -> float:
    """Return the learning rate in effect in `epoch`, counted from 0, after any warm-up."""
    return number(args.get("lr0")) * lr_factor(args, epoch)


def number(value: Any) -> float:
    """Return `value` as a float, NaN where it is none."""
    try:
        return math.nan if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return math.nan
