"""Images: what Ultralytics' own check says of them, and that ours changes nothing."""

from __future__ import annotations

import io
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image
from ultralytics.data.utils import check_image

from nantui.cli import main
from nantui.commands import labels as command
from nantui.labels.check import check_data_set
from nantui.labels.data_set import load_data_set
from nantui.labels.image_files import look_into, scan_images
from nantui.labels.problem_kinds import KINDS
from nantui.worker.check_arguments import decode


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
    fault, _ = look_into(str(path))
    assert path.read_bytes() == before
    assert (fault and fault[0]) == kind
    try:
        check_image(str(path))
        dropped = False
    except Exception:
        dropped = True
    assert dropped == (kind is not None and KINDS[kind].drops)
    assert (path.read_bytes() != before) == (kind == "image_tail")


def test_a_pipe_is_no_image_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    found, _ = scan_images([str(tmp_path / "a.jpg"), str(tmp_path / "b.jpg")])
    assert [(one.kind, one.text.split(",")[0]) for one in found] == [
        ("image_unreadable", "no regular file"),
        ("image_missing", "no such file"),
    ]


def test_images_are_looked_into_only_when_asked(data_set):
    data = data_set()
    data.add("0 0.5 0.5 0.2 0.2\n", image=b"no image")
    assert data.check().errors == 0
    report = data.check(images=True)
    assert report.counts == {"image_unreadable": 1}
    assert report.dropped == [str(data.root / "images/train/00001.jpg")]


def test_images_of_unusual_modes_are_given_to_ultralytics_own_reader(tmp_path, monkeypatch, capsys):
    images, labels = tmp_path / "images/t", tmp_path / "labels/t"
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    for name, mode in (("float", "F"), ("deep", "I;16"), ("plain", "L")):
        Image.new(mode, (32, 32)).save(images / f"{name}.tif")
        (labels / f"{name}.txt").write_text("0 0.5 0.5 0.3 0.3\n")
    data = tmp_path / "d.yaml"
    data.write_text(f"path: {tmp_path}\ntrain: images/t\nval: images/t\nnames: [a]\n")
    asked = []

    def helper(module, request, **how):
        asked.append(sorted(Path(path).name for path in request["images"]["paths"]))
        return {"ok": True, **decode(request["images"])}

    monkeypatch.setattr(command, "helper", helper)
    assert main(["labels", str(data), "--images"]) == 1
    assert asked == [["deep.tif", "float.tif"]]
    said = capsys.readouterr().out
    assert "float.tif" in said and "deep.tif" not in said and "cannot be decoded" in said


TURNED = 6  # EXIF: rotate by a quarter to see it upright


def jpeg(width, height, orientation=None):
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    held = io.BytesIO()
    Image.new("RGB", (width, height)).save(held, format="JPEG", exif=exif)
    return held.getvalue()


@pytest.mark.parametrize(
    ("image", "rows", "kinds"),
    [
        (jpeg(64, 64), "0 0.5 0.5 0.1 0.003\n", {}),
        (jpeg(128, 64), "0 0.5 0.5 0.1 0.003\n", {"below_pixel": 1}),
        (jpeg(128, 64, TURNED), "0 0.5 0.5 0.1 0.003\n", {}),
        (jpeg(128, 64, TURNED), "0 0.5 0.5 0.003 0.1\n", {"below_pixel": 1}),
        (jpeg(128, 64), "0 0.5 0.5 0.9 0.015\n", {"extreme_aspect": 1}),
        (jpeg(128, 64), "0 0.1 0.1 0.9 0.1 0.5 0.103\n", {"below_pixel": 1, "extreme_aspect": 1}),
    ],
)
def test_the_shape_of_an_image_counts_where_it_is_looked_into(image, rows, kinds, data_set):
    """Its longer side becomes imgsz: 0.003 of the shorter one is 1.9 pixels in a square, 0.96 in 2:1."""
    data = data_set()
    data.add(rows, image=image)
    assert data.check(images=True).counts == kinds


def test_without_looking_a_size_is_at_most(data_set):
    data = data_set()
    data.add("0 0.5 0.5 0.1 0.003\n0 0.5 0.5 0.1 0.0015\n", image=jpeg(128, 64))
    (issue,) = data.check().issues
    assert issue.kind == "below_pixel" and "at most 0.96 pixels" in issue.text


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
