"""The guard under every task's trainer: a NaN pixel costs one step, and nothing else."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from nantui.commands import doctor
from nantui.run.results import read_results
from tests.worker.runs import Outcome, draw_data_set, tiny_model
from tests.worker.test_matrix import assert_clean

HEADS = {
    "segment": ("Segment, [nc, 8, 16]", "{k} .2 .2 .6 .2 .6 .6 .2 .6"),
    "pose": ("Pose, [nc, kpt_shape]", "{k} .4 .4 .4 .4 .3 .3 2 .5 .5 2"),
    "obb": ("OBB, [nc, 1]", "{k} .2 .2 .6 .2 .6 .6 .2 .6"),
    "rtdetr": ("RTDETRDecoder, [nc, 32, 20, 4, 4, 1]", "{k} .4 .4 .4 .4"),
    "semantic": ("SemanticSegment, [nc]", "{k} .4 .4 .4 .4"),
    "depth": ("Depth, [8]", "{k} .4 .4 .4 .4"),
    "classify": ("Classify, [nc]", ""),
}


def data_set(task: str, place: Path) -> Path:
    if task == "classify":
        return classes(place)
    data = draw_data_set(place, images=16)
    for file in (place / "labels").rglob("*.txt"):
        rows = [HEADS[task][1].format(k=index % 3) for index in range(2)]
        file.write_text("\n".join(rows) + "\n")
    if task == "pose":
        document = json.loads(data.read_text())
        data.write_text(json.dumps({**document, "kpt_shape": [2, 3]}))
    if task in ("semantic", "depth"):
        draw_targets(task, place)
    return data


def draw_targets(task: str, place: Path) -> None:
    """Give every picture a mask of classes, or a map of depths in metres."""
    dice = np.random.default_rng(0)
    for picture in (place / "images").rglob("*.png"):
        target = place / ("masks" if task == "semantic" else "depth") / picture.parent.name / picture.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if task == "semantic":
            cv2.imwrite(str(target), dice.integers(0, 3, (64, 64), dtype=np.uint8))
        else:
            np.save(target.with_suffix(".npy"), dice.uniform(0.5, 5.0, (64, 64)).astype(np.float32))


def classes(place: Path) -> Path:
    """Sort the pictures of a detection set into folders of classes."""
    draw_data_set(place / "drawn", images=18)
    for split in ("train", "val"):
        for index, picture in enumerate(sorted((place / "drawn/images" / split).glob("*.png"))):
            folder = place / "sorted" / split / "abc"[index % 3]
            folder.mkdir(parents=True, exist_ok=True)
            picture.rename(folder / picture.name)
    return place / "sorted"


@pytest.mark.parametrize("task", HEADS)
def test_a_bad_batch_costs_one_step(trainings, tmp_path, task):
    model = tiny_model(tmp_path, HEADS[task][0], f"tiny-{task}")
    wanted = [{"fault": "nan_pixel", "epoch": 1, "batch": 2}]
    train = {"model": str(model), "data": str(data_set(task, tmp_path / "data")), "epochs": 1}
    outcome = trainings(tmp_path / "run", train=train, faults=wanted)
    check(outcome)
    assert_clean(outcome, "last.pt")


class TextModel:
    """Stands in for the text models of World and YOLOE, which are downloaded."""

    def tokenize(self, texts: list[str]) -> torch.Tensor:
        return torch.arange(len(texts))

    def encode_text(self, tokens: torch.Tensor) -> torch.Tensor:
        features = torch.randn(len(tokens), 512, generator=torch.Generator().manual_seed(0))
        return torch.nn.functional.normalize(features, dim=-1)


@pytest.mark.parametrize("model", ["yolov8n-worldv2.yaml", "yoloe-v8n.yaml"])
def test_open_vocabulary_trainers_are_guarded_as_well(trainings, tmp_path, monkeypatch, model):
    stand_in = SimpleNamespace(build_text_model=lambda *args, **options: TextModel())
    monkeypatch.setitem(sys.modules, "ultralytics.nn.text_model", stand_in)
    wanted = [{"fault": "nan_pixel", "epoch": 1, "batch": 2}]
    train = {"model": model, "data": str(draw_data_set(tmp_path / "data", images=16)), "epochs": 1}
    check(trainings(tmp_path / "run", train=train, faults=wanted))


def test_the_doctor_knows_what_is_tested_here_and_what_is_not():
    import ultralytics

    said = [(one.verdict, one.text) for one in doctor.tasks(None)]
    assert {name.replace("RT-DETR", "rtdetr") for name in doctor.TESTED} == {"detect", *HEADS}
    assert said[0][0] == ("ok" if ultralytics.__version__ == doctor.TESTED_WITH else "warn")
    assert said[1][0] == "warn" and said[1][1].startswith("untested: World and YOLOE")


def test_another_ultralytics_is_untested(monkeypatch):
    monkeypatch.setattr(doctor, "TESTED_WITH", "8.0.0")
    assert next(iter(doctor.tasks(None))).text.startswith("untested in full with Ultralytics")


def check(outcome: Outcome) -> None:
    """The bad batch was named and skipped, and the epoch's row holds no trace of it."""
    assert outcome.code == 0, outcome.exit.text
    assert [(i["incident"], i["step"], i["action"]) for i in outcome.incidents] == [
        ("nan_loss", 2, "skipped")
    ]
    assert outcome.of("autopsy")[0]["cause"] == "broken_pixels"
    assert outcome.incidents[0]["evidence"]["files"], "the images of the batch must be named"
    assert all(row.finite for row in read_results(outcome.run / "results.csv"))
