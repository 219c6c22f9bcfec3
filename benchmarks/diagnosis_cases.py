"""Tiny trainings broken on purpose, each in one known way; `diagnosis_table.py` judges them.

Every case is a real training through nantui's own worker. What is broken, where and how much is drawn from
the case's seed, so that a table can be made with seeds that nobody looked at while tuning.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EPOCHS, IMAGES, BATCH = 3, 32, 2
STEPS = IMAGES // BATCH
COLOURS = ((255, 40, 40), (40, 255, 40), (40, 40, 255))
MODEL = """
nc: 3
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, C2f, [16, True]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, C2f, [32, True]]
head:
  - [[4], 1, Detect, [nc]]
"""
COMMON: dict[str, Any] = {
    "epochs": EPOCHS, "imgsz": 64, "batch": BATCH, "nbs": BATCH, "plots": False, "workers": 0, "mosaic": 0.5,
    "warmup_epochs": 0.0, "optimizer": "SGD", "lr0": 0.01, "val": False, "amp": False, "close_mosaic": 0,
}  # fmt: skip


@dataclass
class Case:
    """One broken training: the true `cause`, what was done, and how."""

    cause: str
    how: str
    seed: int
    train: dict[str, Any] = field(default_factory=dict)
    ours: dict[str, Any] = field(default_factory=dict)
    faults: list[dict[str, Any]] = field(default_factory=list)
    at_start: Callable[[Any], None] | None = None
    between: Callable[[Path], None] | None = None
    cache: dict[str, float] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return a name for its directory."""
        return f"{self.cause}-{self.how}-{self.seed}"


def draw_data_set(root: Path, case: Case) -> Path:
    """Write the case's data set, coloured squares on noise; returns its data.yaml."""
    import cv2
    import numpy as np

    dice = np.random.default_rng(case.seed)
    for split, count in (("train", IMAGES), ("val", 4)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            picture = dice.integers(0, 60, (64, 64, 3), dtype=np.uint8)
            rows = [_draw(picture, dice) for _ in range(2)]
            path = root / "images" / split / f"{index:03d}.png"
            cv2.imwrite(str(path), picture)
            (root / "labels" / split / f"{index:03d}.txt").write_text("".join(rows))
            if split == "train" and path.stem in case.cache:
                spoilt = picture.astype(np.float32)
                spoilt[20:30, 20:30] = case.cache[path.stem]
                np.save(path.with_suffix(".npy"), spoilt)
    data = root / "data.yaml"
    data.write_text(f"path: {root}\ntrain: images/train\nval: images/val\nnames: [a, b, c]\n")
    return data


def _draw(picture: Any, dice: Any) -> str:
    import cv2

    kind, side = int(dice.integers(0, 3)), int(dice.integers(12, 24))
    x, y = (int(value) for value in dice.integers(0, 64 - side, 2))
    cv2.rectangle(picture, (x, y), (x + side, y + side), COLOURS[kind], -1)
    return f"{kind} {(x + side / 2) / 64:.5f} {(y + side / 2) / 64:.5f} {side / 64:.5f} {side / 64:.5f}\n"


def train(case: Case, place: Path, device: str = "cpu") -> Path:
    """Break a training in `place` and return its run directory."""
    place.mkdir(parents=True)
    data = draw_data_set(place / "data", case)
    model = place / "tiny.yaml"
    model.write_text(MODEL)
    run = place / "run"
    arguments = {**COMMON, "model": str(model), "data": str(data), "device": device, **case.train}
    if case.between is not None:
        _attempt(case, run, 1, {**arguments, "save_period": 1}, stop_after=1)
        case.between(run / "weights" / "last.pt")
        _attempt(case, run, 2, arguments, mode="resume", checkpoint="weights/last.pt")
    else:
        _attempt(case, run, 1, arguments)
    return run


def _attempt(
    case: Case, run: Path, number: int, arguments: dict[str, Any], stop_after: int = 0, **request: Any
) -> None:
    from nantui.run.attempts import Attempt, write_attempt
    from nantui.run.layout import RunLayout
    from nantui.worker import __main__ as worker
    from nantui.worker import ultralytics_api

    layout = RunLayout(run)
    fields = {"mode": "start", "checkpoint": None, **request}
    record = Attempt(
        attempt=number, uuid=f"case-{number}", created=time.time(), train=arguments, ours=dict(case.ours),
        python=sys.executable, faults=list(case.faults), **fields,
    )  # fmt: skip
    write_attempt(layout, record)
    load = ultralytics_api.load_model

    def loaded(*words: Any) -> Any:
        model = load(*words)
        if case.at_start is not None:
            model.add_callback("on_pretrain_routine_end", case.at_start)
        if stop_after:
            # Asking to stop is what the supervisor does; the stop point then stands in for last.pt.
            model.add_callback(
                "on_train_epoch_start", lambda trainer: _stop(trainer, layout, number, stop_after)
            )
        return model

    ultralytics_api.load_model = loaded
    try:
        worker.main([str(run), f"{number:03d}"])
    finally:
        ultralytics_api.load_model = load


def _stop(trainer: Any, layout: Any, number: int, after: int) -> None:
    from nantui.run.atomic_files import write_json

    if trainer.epoch == after + 1:
        write_json(layout.stop_request(number), {"id": "case", "t": time.time(), "by": "case"})
        trainer.session.recorder.stop_requested.wait(10)
