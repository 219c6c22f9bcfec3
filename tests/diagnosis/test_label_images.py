"""Images: what Ultralytics' own check says of them, and that ours changes nothing."""

from __future__ import annotations

import shutil

import pytest
from PIL import Image
from ultralytics.data.utils import check_image

from nantui.diagnosis.dataset import load_data_set
from nantui.diagnosis.images import image_fault
from nantui.diagnosis.kinds import KINDS
from nantui.diagnosis.labels import check_data_set


def write(folder, picture, name):
    path = folder / f"{name}.jpg"
    data = picture.read_bytes()
    if name == "good":
        path.write_bytes(data)
    elif name == "empty":
        path.write_bytes(b"")
    elif name == "text":
        path.write_bytes(b"no image")
    elif name == "tail":
        path.write_bytes(data + b"\0\0")
    elif name == "truncated":
        Image.effect_noise((64, 64), 80).save(path)
        path.write_bytes(path.read_bytes()[:-200])
    elif name in ("nine", "ten"):
        Image.new("RGB", (40, 9 if name == "nine" else 10)).save(path)
    elif name == "gif":
        Image.new("RGB", (40, 40)).save(path, format="GIF")
    elif name == "png":
        Image.effect_noise((64, 64), 80).save(path, format="PNG")
        path.write_bytes(path.read_bytes()[:600])
    return path


KINDS_OF = {
    "good": None, "empty": "image_unreadable", "text": "image_unreadable", "tail": "image_tail",
    "truncated": "image_truncated", "nine": "image_small", "ten": None, "gif": "image_unreadable",
    "png": "image_unreadable",
}  # fmt: skip


@pytest.mark.parametrize(("name", "kind"), KINDS_OF.items())
def test_images(tmp_path, picture, name, kind):
    path = write(tmp_path, picture, name)
    before = path.read_bytes()
    fault = image_fault(str(path))
    assert path.read_bytes() == before
    assert (fault and fault[0]) == kind
    try:
        check_image(str(path))
        dropped = False
    except Exception:
        dropped = True
    assert dropped == (kind is not None and KINDS[kind].drops)
    assert (path.read_bytes() != before) == (kind == "image_tail")


def test_images_are_looked_into_only_when_asked(data_set):
    data = data_set()
    data.add("0 0.5 0.5 0.2 0.2\n", image=b"no image")
    assert data.check().errors == 0
    report = data.check(images=True)
    assert report.counts == {"image_unreadable": 1}
    assert report.dropped == [str(data.root / "images/train/00001.jpg")]


def test_classification_folders(tmp_path, picture):
    for folder in ("train/cat", "train/dog", "train/none", "val/cat", "val/cow"):
        (tmp_path / folder).mkdir(parents=True)
        if "none" not in folder:
            shutil.copy(picture, tmp_path / folder / "a.jpg")
    (tmp_path / "train/dog/b.jpg").write_bytes(b"")
    report = check_data_set(load_data_set(tmp_path), images=True)
    assert report.task == "classify"
    assert report.images == 5
    assert report.counts == {"class_folders": 1, "image_unreadable": 1, "class_empty": 1}
