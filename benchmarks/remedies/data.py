"""The data set and the network of the trainings: shapes in random colours on noise, a network of six layers.

Small enough to reach mAP50 0.8 within ten seconds of one core, hard enough that a calmer training shows.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.diagnosis_cases import MODEL

IMAGES, BATCH, VAL, SIDE, SHAPES = 64, 4, 32, 64, 2
STEPS = IMAGES // BATCH
NOISE, SMALLEST, LARGEST = 120, 16, 32
NAMES = "square", "disc", "triangle"


def data_set(root: Path, seed: int) -> tuple[Path, Path]:
    """Return data.yaml and the model's YAML, drawn into `root` unless they are there already."""
    place = root / f"shapes-{seed}"
    if not place.exists():
        root.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=root))
        _draw(made, place, seed)
        (made / "tiny.yaml").write_text(MODEL)
        try:
            os.rename(made, place)
        except OSError:  # another process was faster, with the same pictures
            shutil.rmtree(made)
    return place / "data.yaml", place / "tiny.yaml"


def image(data: Path, number: int) -> str:
    """Return the path of a training image as the data set names it."""
    return str(data.parent / "images" / "train" / f"{number:03d}.png")


def _draw(root: Path, place: Path, seed: int) -> None:
    import cv2
    import numpy as np

    dice = np.random.default_rng(seed)
    for split, count in (("train", IMAGES), ("val", VAL)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            picture = dice.integers(0, NOISE, (SIDE, SIDE, 3), dtype=np.uint8)
            rows = [_shape(picture, dice) for _ in range(SHAPES)]
            cv2.imwrite(str(root / "images" / split / f"{index:03d}.png"), picture)
            (root / "labels" / split / f"{index:03d}.txt").write_text("".join(rows))
    names = ", ".join(NAMES)
    (root / "data.yaml").write_text(
        f"path: {place}\ntrain: images/train\nval: images/val\nnames: [{names}]\n"
    )


def _shape(picture: Any, dice: Any) -> str:
    import cv2
    import numpy as np

    kind, side = int(dice.integers(0, len(NAMES))), int(dice.integers(SMALLEST, LARGEST))
    x, y = (int(value) for value in dice.integers(0, SIDE - side, 2))
    colour = [int(value) for value in dice.integers(100, 256, 3)]
    if kind == 0:
        cv2.rectangle(picture, (x, y), (x + side, y + side), colour, -1)
    elif kind == 1:
        cv2.circle(picture, (x + side // 2, y + side // 2), side // 2, colour, -1)
    else:
        corners = [[x, y + side], [x + side, y + side], [x + side // 2, y]]
        cv2.fillPoly(picture, [np.array(corners)], colour)
    middle = f"{(x + side / 2) / SIDE:.5f} {(y + side / 2) / SIDE:.5f}"
    return f"{kind} {middle} {side / SIDE:.5f} {side / SIDE:.5f}\n"
