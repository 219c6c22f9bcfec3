"""Real, tiny Ultralytics trainings on the CPU: the files that every test judges or breaks a copy of."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 64
IMAGES = 4
LABELS = {
    "detect": "0 .5 .5 .5 .5",
    "segment": "0 .25 .25 .75 .25 .75 .75 .25 .75",
    "obb": "0 .25 .25 .75 .25 .75 .75 .25 .75",
    "pose": "0 .5 .5 .5 .5 .3 .3 2 .6 .6 2",
}


@dataclass(frozen=True)
class Recipe:
    """A training to make. `thin` builds the architecture with a sixteenth of its channels: some are slow."""

    name: str
    model: str
    task: str
    optimizer: str
    epochs: int = 2
    thin: bool = False
    poison: Callable[[Any], None] | None = None
    more: dict[str, Any] = field(default_factory=dict)


def nan_weights(trainer: Any) -> None:
    """Before the first step, one weight of the first layer becomes NaN: every gradient follows."""
    if trainer.epoch == 0:
        next(trainer.model.parameters()).data.view(-1)[0] = float("nan")


def nan_buffers(trainer: Any) -> None:
    """In the second of three epochs BatchNorm's statistics become NaN, as an fp16 overflow leaves them."""
    if trainer.epoch == 1:
        for name, buffer in trainer.model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.fill_(float("nan"))


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("detect8", "yolov8n.yaml", "detect", "SGD", epochs=4),
        Recipe("segment11", "yolo11n-seg.yaml", "segment", "AdamW"),
        Recipe("detect26", "yolo26n.yaml", "detect", "MuSGD", thin=True),
        Recipe("pose26", "yolo26n-pose.yaml", "pose", "SGD", more={"freeze": 10}),
        Recipe("obb11", "yolo11n-obb.yaml", "obb", "SGD"),
        Recipe("classify8", "yolov8n-cls.yaml", "classify", "AdamW"),
        Recipe("semantic26", "yolo26n-sem.yaml", "semantic", "AdamW"),
        Recipe("rtdetr8", "yolov8n-rtdetr.yaml", "detect", "AdamW", thin=True, more={"freeze": [22]}),
        Recipe("weights_poisoned", "yolov8n.yaml", "detect", "SGD", poison=nan_weights),
        Recipe("buffers_poisoned", "yolo11n.yaml", "detect", "AdamW", epochs=3, poison=nan_buffers),
    )
}
HEALTHY = tuple(name for name, recipe in RECIPES.items() if recipe.poison is None)


def train(recipe: Recipe, root: Path) -> Path:
    """Train once and return the run directory; a training that is already there is not repeated."""
    run = root / recipe.name
    if (run / "done").exists():
        return run
    os.environ["YOLO_OFFLINE"] = "true"
    from ultralytics import RTDETR, YOLO

    source = _thin(recipe.model, root) if recipe.thin else recipe.model
    model = RTDETR(source) if "rtdetr" in source else YOLO(source, task=recipe.task)
    if recipe.poison is not None:
        model.add_callback("on_train_batch_start", recipe.poison)
    model.train(
        data=str(dataset(recipe.task, root)), imgsz=SIDE, workers=0, device="cpu", plots=False, verbose=False,
        project=str(root), name=recipe.name, exist_ok=True, epochs=recipe.epochs, batch=IMAGES, nbs=IMAGES,
        save_period=1, optimizer=recipe.optimizer, warmup_epochs=0, **recipe.more,
    )  # fmt: skip
    (run / "done").touch()
    return run


def _thin(model: str, root: Path) -> str:
    """Write a copy of an architecture whose scale n is sixteen times narrower than the full width."""
    import ultralytics

    base = re.sub(r"(\d)n", r"\1", model)
    text = next(Path(ultralytics.__file__).parent.glob(f"cfg/models/*/{base}")).read_text()
    thin = root / "thin" / model
    thin.parent.mkdir(parents=True, exist_ok=True)
    thin.write_text(re.sub(r"(n: \[[\d.]+), [\d.]+,", r"\1, 0.0625,", text))
    return str(thin)


def dataset(task: str, root: Path) -> Path:
    """Draw a few images with labels for a task; returns what Ultralytics takes as `data`."""
    home = root / f"data-{task}"
    if task == "classify":
        return _folders(home)
    if not (home / "data.yaml").exists():
        for part in ("train", "val"):
            _draw(home, part, task)
        text = f"path: {home.absolute()}\ntrain: images/train\nval: images/val\nnames: {{0: a, 1: b}}\n"
        text += {"pose": "kpt_shape: [2, 3]\nflip_idx: [0, 1]\n", "semantic": "masks_dir: masks\n"}.get(
            task, ""
        )
        (home / "data.yaml").write_text(text)
    return home / "data.yaml"


def _draw(home: Path, part: str, task: str) -> None:
    import cv2

    random = np.random.default_rng(0)
    folders = ["images", "masks" if task == "semantic" else "labels"]
    for folder in folders:
        (home / folder / part).mkdir(parents=True)
    for index in range(IMAGES):
        cv2.imwrite(str(home / "images" / part / f"{index}.png"), _picture(random))
        if task == "semantic":
            mask = np.zeros((SIDE, SIDE), np.uint8)
            mask[16:48, 16:48] = 1
            cv2.imwrite(str(home / "masks" / part / f"{index}.png"), mask)
        else:
            (home / "labels" / part / f"{index}.txt").write_text(LABELS[task] + "\n")


def _folders(home: Path) -> Path:
    import cv2

    random = np.random.default_rng(0)
    for part in ("train", "val"):
        for name in ("a", "b"):
            (home / part / name).mkdir(parents=True, exist_ok=True)
            for index in range(IMAGES):
                cv2.imwrite(str(home / part / name / f"{index}.png"), _picture(random))
    return home


def _picture(random: np.random.Generator) -> np.ndarray:
    image = random.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)
    image[16:48, 16:48] = (255, 0, 0)
    return image
