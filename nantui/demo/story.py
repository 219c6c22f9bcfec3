"""What the demo trains, and the two faults it plants.

Act one shows what happens to people today: the guard only observes, and the BatchNorm statistics turn
NaN once, which is what a bad batch under fp16 leaves behind. Ultralytics notices nothing and saves
ruined checkpoints. Act two runs after the recovery, with the guard protecting: one NaN pixel costs one step.

The training itself is a calm one, so that the planted faults are all that happens: a small network, many
small steps, and validation losses that fall from the first epochs on, whatever the CPU and the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nantui.demo.dataset import CLASSES, write_dataset
from nantui.run.documents import JsonObject

LAYERS = """\
# YOLOv8's own modules, down to a stride of 16.
backbone:
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, C2f, [32, True]]
  - [-1, 1, Conv, [64, 3, 2]]
  - [-1, 1, C2f, [64, True]]
  - [-1, 1, Conv, [128, 3, 2]]
  - [-1, 1, C2f, [128, True]]
head:
  - [[4, 6], 1, Detect, [nc]]
"""
"""Quick enough on a CPU for some hundreds of small steps. BatchNorm statistics need about fifty of them (the
momentum is 0.03) until what is validated is what was trained."""
IMAGES = 96
EPOCHS = 20
BATCH = 4
ACT_ONE: JsonObject = {"fault": "batchnorm_nan", "attempt": 1, "epoch": 8, "batch": 3}
ACT_TWO: JsonObject = {"fault": "nan_pixel", "attempt": 2, "epoch": 12, "batch": 4}


@dataclass(frozen=True)
class Story:
    """A demo to be run: Ultralytics' arguments, nantui's settings, and the planted faults."""

    train: dict[str, object]
    ours: dict[str, object]
    faults: list[JsonObject]


def make_story(directory: Path, seconds_per_step: float, seed: int = 0) -> Story:
    """Draw the data set and write the network below `directory`; returns the demo, its runs kept there too.

    `seconds_per_step` slows every step down, so that a person can follow a training that would be over in
    a moment; it is a planted fault like the others and stands in the run's spec. `seed` is Ultralytics' own.
    """
    data = write_dataset(directory / "shapes", images=IMAGES)
    network = data.with_name("small-yolov8.yaml").resolve()
    network.write_text(f"nc: {len(CLASSES)}\n{LAYERS}", encoding="utf-8")
    train = {
        "model": str(network), "data": str(data.resolve()),
        "project": str((directory / "runs").resolve()), "name": "demo", "imgsz": 64, "batch": BATCH,
        "epochs": EPOCHS, "save_period": 1, "close_mosaic": 2, "optimizer": "AdamW", "lr0": 0.001,
        "warmup_epochs": 1, "mixup": 0.15, "workers": 2, "nbs": BATCH, "plots": False, "seed": seed,
    }  # fmt: skip
    every_step = {"fault": "slow_step", "batch": 1, "times": 1_000_000, "seconds": seconds_per_step}
    pace = [{**every_step, "epoch": epoch} for epoch in range(1, EPOCHS + 1)]
    return Story(train, {"guard": "observe"}, [ACT_ONE, ACT_TWO, *pace])
