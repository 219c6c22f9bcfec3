"""Quarantined images are left out of the training and nothing else happens to them."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

from nantui.run.endings import Traces, classify
from nantui.run.layout import RunLayout
from tests.worker.runs import draw_data_set


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


def test_what_ultralytics_leaves_out_by_itself_is_said(trainings, tmp_path):
    """A label of NaN fails its check of coordinates (`verify_image_label`): the whole image is dropped."""
    data = draw_data_set(tmp_path / "data")
    (tmp_path / "data/labels/train/003.txt").write_text("1 nan 0.5 0.25 0.25\n")
    (tmp_path / "data/images/train/007.png").write_bytes(b"")
    outcome = trainings(tmp_path / "run", train={"epochs": 1, "data": str(data)})
    assert outcome.code == 0 and outcome.of("in_effect")[0]["values"]["images"] == 30
    (said,) = [one for one in outcome.of("warning") if one["warning"] == "images_left_out"]
    assert said["text"].startswith("2 of 32 images ") and "003.png, 007.png" in said["text"]
    assert [Path(one).name for one in said["evidence"]["images"]] == ["003.png", "007.png"]


def test_of_a_healthy_data_set_nothing_is_said(trainings, tmp_path):
    names_in(tmp_path / "run", sorted((trainings.data.parent / "images" / "train").glob("*.png"))[:2])
    outcome = trainings(tmp_path / "run", train={"epochs": 1})
    assert outcome.code == 0 and outcome.of("warning") == []


def test_an_image_whose_reader_fails_is_named(trainings, tmp_path):
    """OpenCV refuses an image that claims to be too large, and does not say which one it was."""
    data = draw_data_set(tmp_path / "data")
    assert trainings(tmp_path / "first", train={"epochs": 1, "data": str(data)}).code == 0
    image = tmp_path / "data/images/train/005.png"
    whole, state = image.read_bytes(), image.stat()
    header = b"IHDR" + struct.pack(">II", 1 << 19, 1 << 19) + whole[24:29]
    image.write_bytes(whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:])
    os.utime(image, ns=(state.st_atime_ns, state.st_mtime_ns))  # so that the label cache still counts
    outcome = trainings(tmp_path / "run", train={"epochs": 1, "data": str(data)})
    assert outcome.code == 1 and f"while reading {image}" in outcome.exit.text
    assert str(image) in classify(Traces("failed", said=[outcome.exit.text], code=1)).evidence
