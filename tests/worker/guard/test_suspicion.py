"""Finite numbers that look bad: real trainings go on, and end only where that was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nantui.run.results import current, read_results
from tests.worker.runs import Trainings, tiny_model

DEAD_FOR_A_WHILE = [{"fault": "zero_loss", "epoch": epoch, "batch": 1, "times": 4} for epoch in (2, 3)]


def said(outcome) -> list[str]:
    return [warning["warning"] for warning in outcome.of("warning")]


def test_losses_of_zero_cost_no_training(trainings: Trainings, tmp_path: Path) -> None:
    outcome = trainings(tmp_path / "run", train={"epochs": 4}, faults=DEAD_FOR_A_WHILE)
    assert outcome.code == 0 and outcome.exit.outcome == "finished" and outcome.incidents == []
    assert said(outcome) == ["zero_batch", "zero_loss"]
    assert len(current(read_results(outcome.run / "results.csv"))) == 4
    assert {"last.pt", "best.pt"} <= {path.name for path in (outcome.run / "weights").iterdir()}


def test_a_gradient_of_exactly_zero_is_said_though_the_losses_look_usual(trainings, tmp_path, monkeypatch):
    """A script's own loss is zero, and the parts that are printed stay as they are."""
    from ultralytics.nn.tasks import BaseModel

    loss, batches = BaseModel.loss, []

    def dead(self: Any, batch: Any, preds: Any = None) -> Any:
        total, parts = loss(self, batch, preds)
        batches.append(1) if self.training else None
        return (total * 0 if self.training and len(batches) > 2 else total), parts

    monkeypatch.setattr(BaseModel, "loss", dead)
    outcome = trainings(tmp_path / "run", train={"epochs": 3, "nbs": 1, "val": False})
    assert outcome.code == 0 and outcome.incidents == [] and len(batches) > 4
    assert said(outcome) == ["zero_batch"]
    assert "the gradient is exactly zero" in outcome.of("warning")[0]["text"]


def test_who_asks_for_an_end_gets_it(trainings: Trainings, tmp_path: Path) -> None:
    asked = {"on_suspicion": "end"}
    outcome = trainings(tmp_path / "run", train={"epochs": 4}, ours=asked, faults=DEAD_FOR_A_WHILE)
    assert outcome.code == 77 and outcome.exit.outcome == "diverged"
    assert [(i["incident"], i["action"]) for i in outcome.incidents] == [("zero_loss", "ended")]
    assert len(current(read_results(outcome.run / "results.csv"))) == 2


@pytest.fixture(scope="module")
def plates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes that one look tells apart: dark and light plates."""
    import cv2
    import numpy as np

    root = tmp_path_factory.mktemp("plates")
    dice = np.random.default_rng(0)
    for split, count in (("train", 32), ("val", 8)):
        for name, colour in (("dark", (20, 20, 60)), ("light", (230, 230, 150))):
            (root / split / name).mkdir(parents=True)
            for index in range(count):
                plate = np.clip(dice.normal(colour, 6, (32, 32, 3)), 0, 255).astype(np.uint8)
                cv2.imwrite(str(root / split / name / f"{index}.png"), plate)
    return root


@pytest.mark.parametrize("asked", [{}, {"on_suspicion": "end"}], ids=["default", "end"])
def test_a_classifier_with_nothing_left_to_learn_finishes(trainings, tmp_path, plates, asked) -> None:
    """Its cross-entropy reaches 0 and stays there, which is not a dead network."""
    train = {
        "model": str(tiny_model(tmp_path, "Classify, [nc]")), "data": str(plates), "imgsz": 32, "epochs": 30,
        "batch": 16, "nbs": 16, "lr0": 0.1, "lrf": 1.0, "momentum": 0.9, "weight_decay": 0.0, "patience": 0,
        "erasing": 0.0, "hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0, "scale": 0.0, "fliplr": 0.0,
        "auto_augment": None,
    }  # fmt: skip
    outcome = trainings(tmp_path / "run", train=train, ours=asked)
    assert outcome.code == 0 and outcome.incidents == [] and said(outcome) == []
    rows = current(read_results(outcome.run / "results.csv"))
    assert len(rows) == 30 and rows[-1].values["metrics/accuracy_top1"] == 1
    assert rows[-1].values["train/loss"] < 1e-3 * rows[0].values["train/loss"]
