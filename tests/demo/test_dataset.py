"""The demo's data set is small, seeded, and what Ultralytics expects."""

import yaml
from PIL import Image

from nantui.demo.story import CLASSES, SIDE, TRAIN_IMAGES, VAL_IMAGES, write_dataset


def files(top):
    return {path.relative_to(top): path.read_bytes() for path in top.rglob("*.*") if path.suffix != ".yaml"}


def test_same_seed_same_pictures(tmp_path):
    for name in ("a", "b"):
        write_dataset(tmp_path / name, seed=3)
    assert files(tmp_path / "a") == files(tmp_path / "b")
    write_dataset(tmp_path / "c", seed=4)
    assert files(tmp_path / "a") != files(tmp_path / "c")


def test_every_picture_has_a_label_inside_it(tmp_path):
    description = yaml.safe_load(write_dataset(tmp_path, images=TRAIN_IMAGES + 1).read_text())
    assert list(description["names"].values()) == list(CLASSES)
    for split, count in (("train", TRAIN_IMAGES + 1), ("val", VAL_IMAGES)):
        pictures = sorted((tmp_path / description[split]).glob("*.png"))
        assert len(pictures) == count
        for picture in pictures:
            assert Image.open(picture).size == (SIDE, SIDE)
            for row in (tmp_path / "labels" / split / f"{picture.stem}.txt").read_text().splitlines():
                kind, x, y, width, height = map(float, row.split())
                assert kind in range(len(CLASSES))
                rounding = 1e-6
                for centre, side in ((x, width), (y, height)):
                    assert centre - side / 2 >= -rounding and centre + side / 2 <= 1 + rounding


def test_a_data_set_that_is_there_is_left_alone(tmp_path):
    write_dataset(tmp_path)
    label = tmp_path / "labels" / "train" / "000.txt"
    label.write_text("mine")
    write_dataset(tmp_path)
    assert label.read_text() == "mine"
