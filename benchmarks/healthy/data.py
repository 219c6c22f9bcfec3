"""Small drawn data sets for every task: shapes whose colour is their class, on noisy ground.

The kinds are what real sets are like at their worst: a handful of images, mostly background, twenty classes.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Kind:
    """How many train and val images, of `side` pixels; classes; share of them without an object; the
    objects' smallest and largest size as a share of the side."""

    train: int
    val: int = 8
    side: int = 64
    classes: int = 3
    background: float = 0.0
    smallest: float = 0.2
    largest: float = 0.4


KINDS = {
    "usual": Kind(40),
    "few": Kind(8),
    "hundreds": Kind(240, 24),
    "sparse": Kind(48, 12, background=0.85),
    "one class": Kind(40, classes=1),
    "many classes": Kind(60, 20, classes=20),
    "tiny objects": Kind(40, smallest=0.06, largest=0.12),
    "96 px": Kind(40, side=96),
    "64 images": Kind(64, 16, side=128),
    "hundreds, 128 px": Kind(240, 24, side=128),
}


def data_set(root: Path, kind: str, task: str, seed: int = 0) -> Path:
    """Return what Ultralytics takes as `data`: drawn into `root` unless it is there already."""
    place = root / f"{kind.replace(' ', '-').replace(',', '')}-{task}-{seed}"
    if not place.exists():
        root.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=root))
        _draw(made, KINDS[kind], task, seed, place)
        try:
            os.rename(made, place)
        except OSError:  # another process was faster, with the same pictures
            shutil.rmtree(made)
    return place if task == "classify" else place / "data.yaml"


def _draw(root: Path, kind: Kind, task: str, seed: int, place: Path) -> None:
    import numpy as np

    dice = np.random.default_rng(seed)
    for split, count in (("train", kind.train), ("val", kind.val)):
        for index in range(count):
            picture = dice.integers(0, 60, (kind.side, kind.side, 3), dtype=np.uint8)
            mask = np.zeros((kind.side, kind.side), np.uint8)
            # A class has its pictures in a folder; elsewhere the last share of a split is background.
            first = index % kind.classes if task == "classify" else None
            empty = first is None and index >= round(count * (1 - kind.background))
            rows = [] if empty else list(_objects(picture, mask, kind, task, dice, first))
            _keep(root, split, f"{index:04d}", picture, mask, rows, first, task)
    if task != "classify":
        names = [f"class{number}" for number in range(kind.classes)]
        document: dict[str, Any] = {"path": str(place), "train": "images/train", "val": "images/val"}
        document["names"] = ["ground", *names] if task == "semantic" else names
        document |= {"kpt_shape": [2, 3]} if task == "pose" else {}
        (root / "data.yaml").write_text(json.dumps(document))


def _keep(
    root: Path, split: str, name: str, picture: Any, mask: Any, rows: list[str], first: int | None, task: str
) -> None:
    import cv2

    folder = root / split / f"class{first:02d}" if task == "classify" else root / "images" / split
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / f"{name}.png"), picture)
    beside = root / ("masks" if task == "semantic" else "labels") / split
    if task != "classify":
        beside.mkdir(parents=True, exist_ok=True)
    if task == "semantic":
        cv2.imwrite(str(beside / f"{name}.png"), mask)
    elif task != "classify":
        (beside / f"{name}.txt").write_text("".join(f"{row}\n" for row in rows))


def _objects(picture: Any, mask: Any, kind: Kind, task: str, dice: Any, first: int | None) -> Iterator[str]:
    """Draw one to three squares and yield their label lines."""
    import cv2
    import numpy as np

    for _ in range(1 if task == "classify" else int(dice.integers(1, 4))):
        number = int(dice.integers(0, kind.classes)) if first is None else first
        size = float(dice.uniform(kind.smallest, kind.largest)) * kind.side
        turn = float(dice.uniform(0, math.pi / 2)) if task == "obb" else 0.0
        reach = size / 2 * (math.sqrt(2) if turn else 1)
        x, y = (float(value) for value in dice.uniform(reach, kind.side - reach, 2))
        angles = [turn + math.pi * (0.25 + 0.5 * corner) for corner in range(4)]
        half = size / math.sqrt(2)
        corners = [(x + half * math.cos(angle), y + half * math.sin(angle)) for angle in angles]
        outline = np.array(corners, np.int32)
        cv2.fillPoly(picture, [outline], _colour(number, kind.classes))
        cv2.fillPoly(mask, [outline], number + 1)
        yield _label(task, number, [(a / kind.side, b / kind.side) for a, b in corners])


def _colour(number: int, classes: int) -> tuple[int, ...]:
    import cv2
    import numpy as np

    hue = np.uint8([[[180 * number // classes, 255, 255]]])
    return tuple(int(value) for value in cv2.cvtColor(hue, cv2.COLOR_HSV2BGR)[0, 0])


def _label(task: str, number: int, corners: list[tuple[float, float]]) -> str:
    """Return one line of a label file; `corners` in shares of the side."""
    if task in ("segment", "obb"):
        values = [value for corner in corners for value in corner]
    else:
        xs, ys = zip(*corners, strict=True)
        left, right, top, bottom = min(xs), max(xs), min(ys), max(ys)
        values = [(left + right) / 2, (top + bottom) / 2, right - left, bottom - top]
        values += [left, top, 2, right, bottom, 2] if task == "pose" else []
    return " ".join([str(number), *(f"{value:.5f}" for value in values)])
