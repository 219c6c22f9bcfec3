"""A data set of drawn squares, a tiny model, and trainings through the worker, many in one process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("YOLO_OFFLINE", "true")
os.environ.setdefault("YOLO_AUTOINSTALL", "false")

COLOURS = ((255, 40, 40), (40, 255, 40), (40, 40, 255))


def draw_data_set(root: Path, images: int = 32, size: int = 64) -> Path:
    """Write a detection data set of coloured squares on noise; returns its data.yaml."""
    import cv2
    import numpy as np

    dice = np.random.default_rng(0)
    for split, count in (("train", images), ("val", 8)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            picture = dice.integers(0, 60, (size, size, 3), dtype=np.uint8)
            rows = []
            for _ in range(2):
                shape, side = int(dice.integers(0, 3)), int(dice.integers(12, 24))
                x, y = (int(value) for value in dice.integers(0, size - side, 2))
                cv2.rectangle(picture, (x, y), (x + side, y + side), COLOURS[shape], -1)
                centre = (x + side / 2) / size, (y + side / 2) / size
                rows.append(f"{shape} {centre[0]:.5f} {centre[1]:.5f} {side / size:.5f} {side / size:.5f}")
            cv2.imwrite(str(root / "images" / split / f"{index:03d}.png"), picture)
            (root / "labels" / split / f"{index:03d}.txt").write_text("\n".join(rows) + "\n")
    data = root / "data.yaml"
    data.write_text(
        json.dumps(
            {
                "path": str(root),
                "train": "images/train",
                "val": "images/val",
                "names": {0: "a", 1: "b", 2: "c"},
            }
        )
    )
    return data


LAYERS = """
nc: 3
kpt_shape: [2, 3]
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, C2f, [16, True]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, C2f, [32, True]]
head:
  - [FROM, 1, HEAD]
"""


def tiny_model(directory: Path, head: str = "Detect, [nc]", name: str = "tiny") -> Path:
    """Write a model of six layers with YOLO's own modules; returns its YAML."""
    path = directory / f"{name}.yaml"
    path.write_text(
        LAYERS.replace("HEAD", head).replace("FROM", "4" if head.startswith("Classify") else "[4]")
    )
    return path


@dataclass
class Outcome:
    """What one attempt left."""

    code: int
    run: Path
    number: int
    rank: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["kind"] == kind]

    @property
    def incidents(self) -> list[dict[str, Any]]:
        return self.of("incident")

    @property
    def exit(self) -> Any:
        from nantui.run.attempts import read_exits
        from nantui.run.layout import RunLayout

        return next((e for e in read_exits(RunLayout(self.run), self.number) if e.rank == self.rank), None)

    @property
    def steps(self) -> list[Any]:
        from nantui.run.layout import RunLayout
        from nantui.run.telemetry import StepFollower

        return StepFollower(RunLayout(self.run).steps(self.number)).read()[0]

    def checkpoint(self, name: str) -> dict[str, Any]:
        import torch

        loaded: dict[str, Any] = torch.load(
            self.run / "weights" / name, weights_only=False, map_location="cpu"
        )
        return loaded


def outcome_of(run: Path, number: int, code: int, rank: int = 0) -> Outcome:
    from nantui.run.layout import RunLayout

    written = RunLayout(run).events(number, rank)
    lines = written.read_text().splitlines() if written.exists() else []
    return Outcome(code, run, number, rank, [json.loads(line) for line in lines])


def write_request(run: Path, number: int, train: dict[str, Any], **request: Any) -> None:
    """Write what the supervisor would: the record of an attempt."""
    from nantui.run.attempts import Attempt, write_attempt
    from nantui.run.layout import RunLayout

    fields: dict[str, Any] = {
        "mode": "start",
        "checkpoint": None,
        "ours": {},
        "python": sys.executable,
        **request,
    }
    attempt = Attempt(attempt=number, uuid=f"test-{number}", created=time.time(), train=train, **fields)
    write_attempt(RunLayout(run), attempt)


class Trainings:
    """Runs attempts through `worker.main`, in this process."""

    def __init__(self, data: Path, model: Path) -> None:
        self.data, self.model = data, model
        self.common: dict[str, Any] = {
            "model": str(model), "data": str(data), "epochs": 3, "imgsz": 64, "batch": 8, "nbs": 8,
            "device": "cpu", "plots": False, "workers": 0, "seed": 0, "optimizer": "SGD", "lr0": 0.001,
            "warmup_epochs": 0.0, "mosaic": 0.0, "val": True,
        }  # fmt: skip

    def __call__(
        self, run: Path, number: int = 1, train: dict[str, Any] | None = None, **request: Any
    ) -> Outcome:
        from nantui.worker import __main__ as worker

        write_request(run, number, {**self.common, **(train or {})}, **request)
        code = worker.main([str(run), f"{number:03d}"])
        return outcome_of(run, number, code)


def tensors_of(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Return the weights and buffers of a checkpoint's model, whichever key holds it."""
    model = checkpoint["ema"] if checkpoint.get("ema") is not None else checkpoint["model"]
    state: dict[str, Any] = model.state_dict()
    return state


def python_path() -> str:
    """Return where a process of its own finds the tests, and all that this one finds."""
    root = str(Path(__file__).parents[2])
    return os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])


def on_two_ranks(
    cases: list[dict[str, Any]], place: Path, python: str, timeout: float = 240.0
) -> subprocess.Popen[bytes]:
    """Run attempts on two gloo ranks, in one launch; returns the ended torchrun process.

    `python` is what torchrun and its ranks run in; PYTHON_EXEC is torchrun's own word for it.
    """
    place.mkdir(parents=True, exist_ok=True)
    request = place / "cases.json"
    request.write_text(json.dumps(cases))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": python_path(), "PYTHON_EXEC": python}
    argv = [python, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    words = ["--module", "tests.worker.two_ranks", str(request)]
    with (place / "log").open("wb") as log:
        process = subprocess.Popen([*argv, *words], env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.terminate()
        process.wait(60)
        raise AssertionError(f"hung: {(place / 'log').read_text()[-3000:]}") from None
    return process
