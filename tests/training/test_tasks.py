"""The guard under every task's trainer: a NaN pixel costs one step, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nantui.run.results import read_results
from tests.training.runs import draw_data_set, tiny_model
from tests.training.test_matrix import assert_clean

HEADS = {
    "segment": ("Segment, [nc, 8, 16]", "{k} .2 .2 .6 .2 .6 .6 .2 .6"),
    "pose": ("Pose, [nc, kpt_shape]", "{k} .4 .4 .4 .4 .3 .3 2 .5 .5 2"),
    "obb": ("OBB, [nc, 1]", "{k} .2 .2 .6 .2 .6 .6 .2 .6"),
    "rtdetr": ("RTDETRDecoder, [nc, 32, 20, 4, 4, 1]", "{k} .4 .4 .4 .4"),
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
    return data


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
    assert outcome.code == 0, outcome.exit.text
    assert [(i["incident"], i["step"], i["action"]) for i in outcome.incidents] == [
        ("nan_loss", 2, "skipped")
    ]
    assert outcome.of("autopsy")[0]["cause"] == "broken_pixels"
    assert outcome.incidents[0]["evidence"]["files"], "the images of the batch must be named"
    assert all(row.finite for row in read_results(outcome.run / "results.csv"))
    assert_clean(outcome, "last.pt")
