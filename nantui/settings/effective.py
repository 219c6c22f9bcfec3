"""What settings really amount to: the resolved optimizer, the learning rate at a given epoch, the stride.

`lr0` is not the rate in effect, and with `optimizer=auto` it is not even the rate asked for. A comparison
with the asked values would call a remedy lower when it is higher.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nantui.run.documents import Settings

AUTO_ITERATIONS = 10000
SMALLEST_STRIDE, P6_STRIDE = 32, 64
"""`BaseTrainer._setup_train` takes no less than 32; of Ultralytics' own models only those of P6 have 64."""


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


def lr_factor(args: Mapping[str, Any], epoch: int) -> float:
    """Return the share of lr0 in effect in `epoch`, counted from 0 (`BaseTrainer._setup_scheduler`)."""
    epochs, lrf = max(int(args.get("epochs", 100)), 1), number(args.get("lrf", 0.01))
    if args.get("cos_lr"):
        return max((1 - math.cos(epoch * math.pi / epochs)) / 2, 0) * (lrf - 1) + 1
    return max(1 - epoch / epochs, 0) * (1.0 - lrf) + lrf


def lr_at(args: Settings, epoch: int) -> float:
    """Return the learning rate in effect in `epoch`, counted from 0, after any warm-up."""
    return number(args.get("lr0")) * lr_factor(args, epoch)


def stride_of(model: object, package: Path) -> int | None:
    """Return the stride of one of Ultralytics' own models: image sides have to be a multiple of it.

    `model` is named as in `model=`, by its YAML or its weights; `package` is Ultralytics' directory. None for
    any other: Ultralytics finds it by running the model, and the worker reports it with its first batch.
    """
    path = Path(str(model or ""))
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return None
    renamed = re.sub(r"^(yolov[58][nsmlx])6u?", r"\1-p6", path.stem)  # as `yaml_model_load` does
    without_size = re.sub(r"^(yoloe?-?v?\d+)[nsmlx](?=-|u?$)u?", r"\1", renamed)
    own = {yaml.stem for yaml in (package / "cfg" / "models").glob("*/*.yaml")}
    if renamed not in own and without_size not in own:
        return None
    return P6_STRIDE if without_size.endswith("-p6") else SMALLEST_STRIDE


def number(value: Any) -> float:
    """Return `value` as a float, NaN where it is none."""
    try:
        return math.nan if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return math.nan
