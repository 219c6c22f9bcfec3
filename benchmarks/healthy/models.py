"""Models from Ultralytics' own YAMLs: thin ones have every layer at an eighth of the width, tiny ones five
layers and the family's head, for tests that have seconds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

SUFFIX = {"segment": "-seg", "pose": "-pose", "obb": "-obb", "classify": "-cls", "semantic": "-sem"}
FOLDER = {"yolov8": "v8", "yolo11": "11", "yolo26": "26"}
THIN = {"yolov8": [0.33, 0.125, 1024], "yolo11": [0.5, 0.125, 1024], "yolo26": [0.5, 0.125, 1024]}
SMALL_DECODER = ["nc", 64, 50, 4, 4, 2]
"""RT-DETR's classes, width, queries, points, heads and layers; its own are nc, 256, 300, 4, 8, 6."""

BACKBONE: list[list[Any]] = [
    [-1, 1, "Conv", [8, 3, 2]], [-1, 1, "Conv", [16, 3, 2]], [-1, 1, "C2f", [16, True]],
    [-1, 1, "Conv", [32, 3, 2]], [-1, 1, "C2f", [32, True]],
]  # fmt: skip


def model_yaml(root: Path, family: str, size: str, task: str) -> str:
    """Return a model for Ultralytics: `size` thin and tiny are written into `root`, n and s its own."""
    if size not in ("thin", "tiny"):
        return f"{family}{size}{SUFFIX.get(task, '')}.yaml"
    import yaml

    path = root / f"{size}-{family}{SUFFIX.get(task, '')}.yaml"
    if not path.exists():
        root.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(f".{os.getpid()}")
        beside.write_text(yaml.safe_dump(_tiny(family, task) if size == "tiny" else _thin(family, task)))
        beside.rename(path)
    return str(path)


def _thin(family: str, task: str) -> dict[str, Any]:
    import ultralytics
    import yaml

    models = Path(ultralytics.__file__).parent / "cfg" / "models"
    if family == "rtdetr":
        document = yaml.safe_load((models / "v8" / "yolov8-rtdetr.yaml").read_text())
        document["head"][-1][-1] = SMALL_DECODER
    else:
        name = f"{family}{SUFFIX.get(task, '')}.yaml"
        document = yaml.safe_load((models / FOLDER[family] / name).read_text())
    document["scales"] = {"thin": THIN.get(family, THIN["yolov8"])}
    document |= {"kpt_shape": [2, 3]} if task == "pose" else {}
    found: dict[str, Any] = document
    return found


def _tiny(family: str, task: str) -> dict[str, Any]:
    document = _thin(family, task)
    _, _, head, options = document["head"][-1]
    own = {"Segment": [options[0], 8, 16], "Segment26": [options[0], 8, 16]}.get(head, options)
    place = 4 if head == "Classify" else [4, 4] if head == "SemanticSegment" else [4]
    del document["scales"]
    return {**document, "backbone": BACKBONE, "head": [[place, 1, head, own]]}
