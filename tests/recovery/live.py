"""What a live trainer really has: read in its first step, fresh or resumed by stock Ultralytics."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any


class Seen(Exception):
    """Ends a training after its first step."""


def first_step(model: str, **settings: Any) -> dict[str, Any]:
    """Start or resume a training as the `yolo` command does and return what its first step has in effect."""
    from ultralytics import YOLO

    found: dict[str, Any] = {}

    def look(trainer: Any) -> None:
        found.update(in_effect(trainer))
        raise Seen

    yolo = YOLO(model)
    yolo.add_callback("on_train_batch_end", look)
    with contextlib.suppress(Seen):
        yolo.train(**settings)
    return found


def in_effect(trainer: Any) -> dict[str, Any]:
    """Return groups, optimizer, precision, loader, gains and augmentation of a live trainer."""
    criterion = trainer.model.criterion
    transforms = {type(one).__name__: one for one in trainer.train_loader.dataset.transforms.transforms}
    keys = ("param_group", "initial_lr", "weight_decay", "momentum", "betas", "nesterov", "use_muon")
    return {
        "optimizer": type(trainer.optimizer).__name__,
        "groups": [
            {**{key: group[key] for key in keys if key in group}, "size": len(group["params"])}
            for group in trainer.optimizer.param_groups
        ],
        "lr": [group["lr"] for group in trainer.optimizer.param_groups],
        "base_lrs": list(trainer.scheduler.base_lrs),
        "state": len(trainer.optimizer.state),
        "accumulate": trainer.accumulate,
        "amp": (trainer.args.amp, trainer.amp, trainer.scaler.is_enabled()),
        "batch": trainer.train_loader.batch_size,
        "imgsz": trainer.train_loader.dataset.imgsz,
        "epochs": trainer.epochs,
        "gains": (criterion.hyp.box, criterion.hyp.cls, criterion.hyp.dfl),
        "hsv": tuple(getattr(transforms["RandomHSV"], name) for name in ("hgain", "sgain", "vgain")),
        "mixup": transforms["MixUp"].p if "MixUp" in transforms else None,
        "save_dir": Path(trainer.save_dir),
        "epoch": trainer.epoch,
        "best_fitness": trainer.best_fitness,
        "stopper": (trainer.stopper.best_fitness, trainer.stopper.best_epoch, trainer.stopper.patience),
    }
