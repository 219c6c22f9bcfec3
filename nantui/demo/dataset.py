"""Draw a small detection data set: circles, squares and triangles on noisy ground, the same for a seed."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import ImageDraw

CLASSES = ("circle", "square", "triangle")
SIDE = 96
TRAIN_IMAGES = 48
VAL_IMAGES = 16


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
