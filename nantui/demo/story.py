"""The story of the demo: a small drawn data set, what is trained on it, two planted faults, and what is said.

Act one shows what happens to people today: the guard only observes, and the BatchNorm statistics turn
NaN once, which is what a bad batch under fp16 leaves behind. Ultralytics notices nothing and saves
ruined checkpoints. Act two runs after the recovery, with the guard protecting: one NaN pixel costs one step.

The training itself is a calm one, so that the planted faults are all that happens: a small network, many
small steps, and validation losses that fall from the first epochs on, whatever the CPU and the seed.
"""

from __future__ import annotations

import math
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nantui.paths import configs_dir
from nantui.run.documents import JsonObject
from nantui.run.events import Event, Incident, RollbackDone, of_kind
from nantui.run.status import FINISHED
from nantui.supervisor.client import create_run

if TYPE_CHECKING:
    from PIL import ImageDraw

CLASSES = ("circle", "square", "triangle")
SIDE = 96
TRAIN_IMAGES = 48
VAL_IMAGES = 16
NETWORK = "small-yolov8.yaml"
IMAGES = 96
EPOCHS = 20
BATCH = 4
ACT_ONE: JsonObject = {"fault": "batchnorm_nan", "attempt": 1, "epoch": 8, "batch": 3}
ACT_TWO: JsonObject = {"fault": "nan_pixel", "attempt": 2, "epoch": 12, "batch": 4}
COMING = f"""Coming: in epoch {ACT_ONE["epoch"]} a NaN is planted in the BatchNorm statistics, \
as a bad batch in half precision leaves it"""
HAPPENED = """Happened: NaN. Ultralytics would train on and save ruined checkpoints. \
Press R, read the plan, then y"""
RECOVERED = f"""Happened: back at a clean checkpoint, with safer settings. \
Coming: a NaN pixel in epoch {ACT_TWO["epoch"]}; the guard skips that step"""
SKIPPED = f"""Happened: the bad step was skipped, no weight was touched. \
Coming: the end, in epoch {EPOCHS}"""
END = """Finished. d says why it happened, v compares both attempts. \
On your data: nantui train model=.. data=.., or nantui and a folder of runs"""


def start(directory: Path, seconds_per_step: float, seed: int = 0, python: str | None = None) -> Path:
    """Draw the data set, write the network and start the training, all below `directory`; returns the run.

    `seconds_per_step` slows every step down, so that a person can follow a training that would be over in
    a moment; it is a planted fault like the others and stands in the run's spec. `seed` is Ultralytics' own.
    """
    data = write_dataset(directory / "shapes", images=IMAGES)
    network = shutil.copyfile(configs_dir() / "demo" / NETWORK, data.with_name(NETWORK).resolve())
    train = {
        "model": str(network), "data": str(data.resolve()),
        "project": str((directory / "runs").resolve()), "name": "demo", "imgsz": 64, "batch": BATCH,
        "epochs": EPOCHS, "save_period": 1, "close_mosaic": 2, "optimizer": "AdamW", "lr0": 0.001,
        "warmup_epochs": 1, "mixup": 0.15, "workers": 2, "nbs": BATCH, "plots": False, "seed": seed,
    }  # fmt: skip
    every_step = {"fault": "slow_step", "batch": 1, "times": 1_000_000, "seconds": seconds_per_step}
    pace = [{**every_step, "epoch": epoch} for epoch in range(1, EPOCHS + 1)]
    return create_run(train, {"guard": "observe"}, python=python, faults=[ACT_ONE, ACT_TWO, *pace])


def narrate(state: str, journal: Sequence[Event]) -> str:
    """Return what there is to say while the run is in `state`."""
    incidents, back = of_kind(journal, Incident), of_kind(journal, RollbackDone)
    if state == FINISHED and back:
        return END
    if back:
        return SKIPPED if any(one.harmless and one.t > back[-1].t for one in incidents) else RECOVERED
    return HAPPENED if incidents else COMING


def write_dataset(directory: Path, seed: int = 0, images: int = TRAIN_IMAGES) -> Path:
    """Write images, labels and `shapes.yaml` below `directory`; returns the path of the YAML.

    `images` to train on, RGB PNG of SIDE x SIDE pixels with one to three shapes. A data set that is
    already there is left as it is.
    """
    description = directory / "shapes.yaml"
    if description.exists():
        return description
    dice = random.Random(seed)
    for split, count in (("train", images), ("val", VAL_IMAGES)):
        for index in range(count):
            _write_sample(directory, split, f"{index:03d}", dice)
    names = "".join(f"  {number}: {name}\n" for number, name in enumerate(CLASSES))
    text = f"path: {directory.resolve()}\ntrain: images/train\nval: images/val\nnames:\n{names}"
    description.write_text(text, encoding="utf-8")
    return description


def _write_sample(directory: Path, split: str, name: str, dice: random.Random) -> None:
    from PIL import Image, ImageDraw

    images, labels = directory / "images" / split, directory / "labels" / split
    images.mkdir(parents=True, exist_ok=True)
    labels.mkdir(parents=True, exist_ok=True)
    ground = dice.randrange(40, 120)
    noisy = bytes(ground - 20 + level * 41 // 256 for level in range(256))
    noise = dice.randbytes(SIDE * SIDE * 3).translate(noisy)
    picture = Image.frombytes("RGB", (SIDE, SIDE), noise)
    pencil = ImageDraw.Draw(picture)
    rows = [_draw_shape(pencil, dice) for _ in range(dice.randrange(1, 4))]
    picture.save(images / f"{name}.png")
    (labels / f"{name}.txt").write_text("".join(rows), encoding="utf-8")


def _draw_shape(pencil: ImageDraw.ImageDraw, dice: random.Random) -> str:
    """Draw one shape; returns its label line: class, centre x and y, width and height, all 0..1."""
    kind = dice.randrange(len(CLASSES))
    radius = dice.randrange(10, 24)
    x, y = (dice.randrange(radius, SIDE - radius) for _ in range(2))
    colour = tuple(
        dice.randrange(140, 256) if channel == kind else dice.randrange(0, 90) for channel in range(3)
    )
    left, top, right, bottom = map(float, (x - radius, y - radius, x + radius, y + radius))
    if CLASSES[kind] == "circle":
        pencil.ellipse((left, top, right, bottom), fill=colour)
    elif CLASSES[kind] == "square":
        pencil.rectangle((left, top, right, bottom), fill=colour)
    else:
        half = radius * math.sqrt(3) / 2
        left, right, bottom = x - half, x + half, y + radius / 2
        pencil.polygon([(x, top), (left, bottom), (right, bottom)], fill=colour)
    box = ((left + right) / 2, (top + bottom) / 2, right - left, bottom - top)
    return " ".join([str(kind), *(f"{value / SIDE:.6f}" for value in box)]) + "\n"
