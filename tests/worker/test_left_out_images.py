"""Quarantined images are left out of the training and nothing else happens to them."""

from __future__ import annotations

from pathlib import Path

from nantui.run.layout import RunLayout


def names_in(run: Path, images: list[Path]) -> None:
    layout = RunLayout(run)
    layout.home.mkdir(parents=True)
    layout.quarantine.write_text("# for people\n" + "\n".join(map(str, images)) + "\n")


def test_a_detection_training_goes_on_without_them(trainings, tmp_path):
    images = sorted((trainings.data.parent / "images" / "train").glob("*.png"))
    names_in(tmp_path / "run", images[:8])
    outcome = trainings(tmp_path / "run", train={"epochs": 1})
    assert outcome.code == 0
    (in_effect,) = outcome.of("in_effect")
    assert in_effect["values"]["images"] == len(images) - 8
    assert any("8 images" in note for note in in_effect["notes"])
    assert all(image.exists() for image in images)


def test_validation_keeps_its_images(trainings, tmp_path):
    held_out = sorted((trainings.data.parent / "images" / "val").glob("*.png"))
    names_in(tmp_path / "run", held_out)
    outcome = trainings(tmp_path / "run", train={"epochs": 1})
    assert outcome.code == 0, "a val image on the list must not empty the validation"


def test_a_classification_training_goes_on_without_them(trainings, tmp_path):
    import cv2
    import numpy as np

    from tests.worker.runs import tiny_model

    dice = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("a", "b"):
            folder = tmp_path / "data" / split / name
            folder.mkdir(parents=True)
            for index in range(8):
                cv2.imwrite(str(folder / f"{index}.png"), dice.integers(0, 255, (64, 64, 3), dtype=np.uint8))
    names_in(tmp_path / "run", [tmp_path / "data" / "train" / "a" / f"{index}.png" for index in range(4)])
    model = tiny_model(tmp_path, "Classify, [nc]", "tiny-cls")
    train = {"model": str(model), "task": "classify", "data": str(tmp_path / "data"), "epochs": 1, "batch": 4}
    outcome = trainings(tmp_path / "run", train=train)
    assert outcome.code == 0
    assert outcome.of("in_effect")[0]["values"]["images"] == 12
