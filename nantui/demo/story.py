"""What the demo trains, and the two faults it plants.

Act one shows what happens to people today: the guard only observes, and the BatchNorm statistics turn
NaN once, which is what a bad batch under fp16 leaves behind. Ultralytics notices nothing and saves
ruined checkpoints. Act two runs after the recovery, with the guard protecting: one NaN pixel costs one step.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

EPOCHS = 20
BATCH = 8
ACT_ONE: dict[str, Any] = {"fault": "batchnorm_nan", "attempt": 1, "epoch": 8, "batch": 3}
ACT_TWO: dict[str, Any] = {"fault": "nan_pixel", "attempt": 2, "epoch": 12, "batch": 4}


@dataclass(frozen=True)
class Story:
    """A demo to be run: Ultralytics' arguments, nantui's settings, and the planted faults."""

    train: dict[str, Any]
    ours: dict[str, Any]
    faults: list[dict[str, Any]]


def make_story(data: Path, runs: Path, seconds_per_step: float) -> Story:
    """Return the demo on the data set `data`, to be kept below `runs`.

    `seconds_per_step` slows every step down, so that a person can follow a training that would be over in
    a moment; it is a planted fault like the others and stands in the run's spec.
    """
    train = {
        "model": "yolov8n.yaml",
        "data": str(data),
        "project": str(runs),
        "name": "demo",
        "imgsz": 64,
        "batch": BATCH,
        "epochs": EPOCHS,
        "save_period": 1,
        "close_mosaic": 2,
        "optimizer": "AdamW",
        "lr0": 0.01,
        "warmup_epochs": 1,
        "mixup": 0.15,
        "workers": 2,
        "nbs": BATCH,
        "plots": False,
        "seed": 0,
    }
    return Story(train, {"guard": "observe"}, [ACT_ONE, ACT_TWO, *_pace(seconds_per_step)])


def _pace(seconds_per_step: float) -> list[dict[str, Any]]:
    """Slow down every step of every epoch."""
    every_step = {"fault": "slow_step", "batch": 1, "times": 1_000_000, "seconds": seconds_per_step}
    return [{**every_step, "epoch": epoch} for epoch in range(1, EPOCHS + 1)]
