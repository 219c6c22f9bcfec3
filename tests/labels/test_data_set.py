"""data.yaml: paths resolve as Ultralytics resolves them, and what it refuses is refused in one line."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest
from ultralytics.data.base import BaseDataset
from ultralytics.data.utils import check_det_dataset

from nantui.errors import UserError
from nantui.labels.check import check_data_set
from nantui.labels.data_set import list_images, load_data_set


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for path in (
        "d/images/train/a.jpg",
        "d/images/train/deep/b.PNG",
        "d/images/val/c.jpeg",
        "d/images/train/.h.jpg",
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(b"")
    (tmp_path / "d/images/train/notes.txt").write_text("no image")
    (tmp_path / "d/list.txt").write_text(f"./images/train/a.jpg\n{tmp_path}/d/images/val/c.jpeg\nnotes.doc\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def theirs(paths):
    dataset = BaseDataset.__new__(BaseDataset)
    dataset.prefix, dataset.fraction = "", 1.0
    return dataset.get_img_files(paths)


@pytest.mark.parametrize(
    "text",
    [
        "train: images/train\nval: images/val\n",
        "path: d\ntrain: images/train\nval: images/val\n",
        "path: {root}/d\ntrain: [images/train, images/val]\nval: images/val\n",
        "train: ../images/train\nval: images/val\n",
        "train: list.txt\nval: list.txt\n",
        "train: images\nvalidation: images/val\n",
        "path: None\ntrain:\timages/train\nval: images/val\nnc: 2.0\n",
        "train: images/train\nval: images/val\n# a bell \x07\n",
    ],
)
def test_paths(tree, text):
    file = tree / "d" / "data.yaml"
    file.write_text(text.format(root=tree) + "names: [a, b]\n")
    data = load_data_set(file)
    known = check_det_dataset(str(file))
    for split in ("train", "val"):
        expected = known[split] if isinstance(known[split], list) else [known[split]]
        assert data.splits[split] == expected
        listing = list_images(split, data.splits[split])
        ours = sorted(path for folder in listing.folders for path in folder.images)
        assert ours == theirs(known[split])
    assert data.names == tuple(known["names"].values())


def test_relative_path_below_the_datasets_directory(tree, monkeypatch):
    settings = tree / "config" / "Ultralytics" / "settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"datasets_dir": str(tree)}))
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tree / "config"))
    (tree / "elsewhere").mkdir()
    monkeypatch.chdir(tree / "elsewhere")
    (tree / "elsewhere" / "data.yaml").write_text(
        "path: d\ntrain: images/train\nval: images/val\nnames: [a]\n"
    )
    assert load_data_set("data.yaml").splits["train"] == [str(tree / "d/images/train")]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("val: x\nnames: [a]\n", "'train:'"),
        ("train: x\nval: x\n", "'names:'"),
        ("train: x\nval: x\nnames: [a]\nnc: 2\n", "names"),
        ("train: x\nval: x\nnames: {0: a, 5: b}\n", "names"),
        ("train: x\nval: x\nnames: {a: b}\n", "class numbers"),
        ("train: x\nval: x\nnc: 1.9\n", "class numbers"),
        ("train: 3\nval: x\nnames: [a]\n", "'train:' is a int"),
        ("train: x\nval: x\nnames: [a]\nkpt_shape: [17]\n", "kpt_shape"),
        ("train: [x\n", "YAML"),
        ("- a\n", "no data set"),
    ],
)
def test_what_ultralytics_refuses(tmp_path, text, word):
    file = tmp_path / "data.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=word) as error:
        load_data_set(file)
    assert "\n" not in str(error.value)


def test_missing_paths_and_patterns_are_told(tree, data_set):
    data = data_set()
    data.add("0 0.5 0.5 0.2 0.2\n")
    data.yaml.write_text(f"path: {data.root}\ntrain: images/*\nval: nowhere\nnames: [a]\n")
    report = data.check()
    assert report.counts == {"path_missing": 1, "pattern": 1}
    assert report.blocked
    assert report.images == 1


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("latin.txt", "list_unreadable"),
        ("images/train/00001.jpg", "list_unreadable"),
        ("nothing.txt", "no_images"),
        ("labels", "no_images"),
        ("", "no_images"),
        ("images/train", None),
    ],
)
def test_a_split_that_names_no_image_is_told_and_blocks(data_set, value, kind):
    data = data_set()
    data.add("0 0.5 0.5 0.2 0.2\n", image=b"\xff\xd8")
    (data.root / "latin.txt").write_bytes("./images/train/\u00fc.jpg\n".encode("latin-1"))
    (data.root / "nothing.txt").write_text("\n")
    data.yaml.write_text(f"path: {data.root}\ntrain: images/train\nval: {value}\nnames: [a]\n")
    report = data.check()
    assert report.counts == ({kind: 1} if kind else {}) and report.blocked == bool(kind)
    if value:  # of nothing at all Ultralytics makes the working directory
        with pytest.raises(FileNotFoundError) if kind else contextlib.nullcontext():
            theirs(check_det_dataset(str(data.yaml))["val"])
    with pytest.raises(UserError, match="no 'test:'"):
        data.check(splits=["test"])


def test_a_data_set_that_ultralytics_brings_along_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(load_data_set("coco8.yaml").names) == 80
    with pytest.raises(UserError, match="no such file"):
        load_data_set("coco8000.yaml")


def test_links_are_followed_once(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.jpg").write_bytes(b"")
    os.symlink(tmp_path / "real", tmp_path / "real" / "loop")
    os.symlink(tmp_path / "real", tmp_path / "link")
    listing = list_images("train", [str(tmp_path / "link")])
    assert [Path(folder.path).name for folder in listing.folders] == ["link"]


def test_a_data_set_whose_labels_are_looked_for_in_vain_is_an_error(tmp_path):
    (tmp_path / "JPEGImages").mkdir()
    (tmp_path / "labels").mkdir()
    (tmp_path / "JPEGImages/1.jpg").touch()
    (tmp_path / "labels/1.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "d.yaml").write_text(f"path: {tmp_path}\ntrain: JPEGImages\nval: JPEGImages\nnames: [a]\n")
    report = check_data_set(load_data_set(tmp_path / "d.yaml"))
    assert report.counts["no_labels"] == 1 and report.errors == 1
    assert f"looked for in {tmp_path}/JPEGImages" in {issue.text for issue in report.issues}


@pytest.mark.parametrize(
    "text",
    [
        'path: "/a\\0b"\ntrain: x\nval: x\nnames: [a]\n',
        f"path: {'a' * 5000}\ntrain: x\nval: x\nnames: [a]\n",
        "train: x\nval: x\nnc: 1000000000\n",
        "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 9 if n else 'x'}]\n" for n in range(12))
        + "train: x\nval: x\nnames: [*a11]\n",
        f"train: x\nval: x\nnames: {'[' * 20000}{']' * 20000}\n",
    ],
    ids=("zero-byte", "long-path", "many-classes", "aliases", "deep"),
)
def test_what_would_fill_the_memory_or_is_no_path_is_one_line(tmp_path, text):
    (tmp_path / "d.yaml").write_text(text)
    with pytest.raises(UserError, match=r"d\.yaml: "):
        load_data_set(tmp_path / "d.yaml")
