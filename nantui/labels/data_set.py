"""Where a data set's images and labels are, by Ultralytics' rules, without importing it.

The rules of `check_det_dataset`, `get_img_files` and `img2label_paths` (8.4.190) have corners: a relative
`path:` is first looked for below the working directory and then below the user's `datasets_dir`; `../`
is dropped from a split that does not exist; a list's `./` is the list's own folder; labels are where the
*last* `/images/` of the path becomes `/labels/`, and beside the image where there is none.

What its labels must look like is told by `Rules`: the few facts that the row rules need, from data.yaml and
the run.
"""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from nantui.errors import UserError
from nantui.run.documents import JsonObject
from nantui.settings.ultralytics_args import LOADER, find_ultralytics

IMAGE_SUFFIXES = frozenset(
    {"avif", "bmp", "dng", "heic", "heif", "jp2", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp"}
)
"""`ultralytics.data.utils.IMG_FORMATS`; a test compares it with the installed release."""
SPLITS = ("train", "val", "test")
UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")
"""What YAML forbids; Ultralytics (`YAML.load`) takes it out of a file that cannot be parsed with it."""
_EXPECTED: dict[str, type | tuple[type, ...]] = {
    "path": str, "train": (str, list), "val": (str, list), "test": (str, list), "names": (list, dict),
}  # fmt: skip
TOLERANCE = 0.01
"""Ultralytics accepts coordinates up to 1 % outside (`verify_image_label`)."""
EXTREME_ASPECT = 100.0
"""`RandomPerspective.box_candidates(ar_thr=100)`."""


@dataclass(frozen=True)
class DataSet:
    """A data set as its data.yaml (or, for classification, its directory) describes it.

    `splits` maps "train", "val", "test" to resolved paths, which need not exist; `names` are the classes.
    """

    file: Path
    root: Path
    names: tuple[str, ...]
    splits: dict[str, list[str]] = field(default_factory=dict)
    keypoints: int = 0
    dimensions: int = 0
    classify: bool = False


def load_data_set(data: str | Path) -> DataSet:
    """Return the data set of a data.yaml, of a directory that holds one, or of a classification directory.

    A name such as coco8.yaml that is no file here is one of those that Ultralytics brings along. Raises
    UserError when it is missing, no YAML, or lacks what Ultralytics insists on.
    """
    path = Path(data).expanduser()
    path = path if path.exists() else _brought_along(path)
    if path.is_dir():
        if (path / "train").is_dir() and not list(path.glob("*.y*ml")):
            return _class_folders(path.resolve())
        path = _yaml_in(path)
    if not path.is_file():
        raise UserError(
            f"{data}: no such file; give the data.yaml of the data set, or a classification directory"
        )
    return _data_set(path.resolve(), _read(path))


def labels_folder(folder: str) -> str:
    """Return the folder that holds the labels of the images in `folder` (no slash at the end of either)."""
    return "/labels/".join((folder + "/").rsplit("/images/", 1))[:-1]


def _yaml_in(folder: Path) -> Path:
    found = sorted(folder.glob("*.yaml")) or sorted(folder.glob("*.yml"))
    named = [file for file in found if file.stem == folder.name] if len(found) > 1 else found
    if len(named) != 1:
        raise UserError(f"{folder}: {len(found)} YAML files in it; name the one that describes the data set")
    return named[0]


def _brought_along(path: Path) -> Path:
    """Return the one file of that name in the installed Ultralytics, where it looks as well, else `path`."""
    if path.is_absolute() or path.suffix not in (".yaml", ".yml"):
        return path
    try:
        found = [*(find_ultralytics() / "cfg" / "datasets").glob(path.name)]
    except UserError:
        return path
    return found[0] if found else path


def _read(path: Path) -> dict[str, object]:
    try:
        document = _parsed(path.read_text(encoding="utf-8", errors="ignore"))
    except (OSError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not readable as YAML ({str(error).splitlines()[0]}); mend it") from None
    if not isinstance(document, dict):
        raise UserError(f"{path}: no data set in it; 'train:', 'val:' and 'names:' are required")
    for key, types in _EXPECTED.items():
        if document.get(key) is not None and not isinstance(document[key], types):
            raise UserError(f"{path}: '{key}:' is a {type(document[key]).__name__}; Ultralytics refuses that")
    return document


def _parsed(text: str) -> object:
    """Return what the text holds, read as Ultralytics reads it. Raises yaml.YAMLError."""
    try:
        document = yaml.load(text, Loader=LOADER)
    except yaml.YAMLError:
        document = yaml.load(UNPRINTABLE.sub("", text), Loader=LOADER)
    if isinstance(document, dict):
        return {key: None if value == "None" else value for key, value in document.items()}
    return document


def _data_set(file: Path, document: JsonObject) -> DataSet:
    if "val" not in document and "validation" in document:
        document = {**document, "val": document["validation"]}
    for split in ("train", "val"):
        if split not in document:
            raise UserError(f"{file}: '{split}:' is missing; Ultralytics refuses to train without it")
    root = _root(file, document)
    splits = {split: _resolved(root, document[split]) for split in SPLITS if document.get(split)}
    keypoints, dimensions = _keypoint_shape(file, document.get("kpt_shape"))
    return DataSet(file, root, _names(file, document), splits, keypoints, dimensions)


def _root(file: Path, document: JsonObject) -> Path:
    root = Path(document.get("path") or file.parent)
    if not root.is_absolute() and not root.exists():
        root = datasets_directory() / root
    return root.resolve()


def _resolved(root: Path, split: str | list[str]) -> list[str]:
    if isinstance(split, list):
        return [str((root / str(entry)).resolve()) for entry in split]
    path = (root / split).resolve()
    if not path.exists() and split.startswith("../"):
        path = (root / split[3:]).resolve()
    return [str(path)]


def _names(file: Path, document: JsonObject) -> tuple[str, ...]:
    names, count = document.get("names"), document.get("nc")
    if names is None and count is None:
        raise UserError(f"{file}: neither 'names:' nor 'nc:'; Ultralytics refuses to train without")
    try:
        count = None if count is None else _whole(count)
        if names is None:
            return tuple(f"class_{number}" for number in range(count or 0))
        numbered = enumerate(names) if isinstance(names, list) else names.items()
        table = {int(key): name for key, name in numbered}
    except (TypeError, ValueError):
        raise UserError(
            f"{file}: 'names:' or 'nc:' hold no class numbers; Ultralytics refuses that"
        ) from None
    if count not in (None, len(table)) or not table or max(table) >= len(table):
        raise UserError(f"{file}: 'names:' must number {len(table)} classes from 0 on and agree with 'nc:'")
    return tuple(str(table[number]) for number in sorted(table))


def _whole(count: Any) -> int:
    """Return '3' and 3.0 as 3. Raises ValueError for 1.9."""
    if float(count) != int(float(count)):
        raise ValueError(count)
    return int(float(count))


def _keypoint_shape(file: Path, shape: Any) -> tuple[int, int]:
    if shape is None:
        return 0, 0
    try:
        keypoints, dimensions = (int(number) for number in shape)
    except (TypeError, ValueError):
        keypoints = dimensions = 0
    if keypoints <= 0 or dimensions not in (2, 3):
        raise UserError(f"{file}: 'kpt_shape: {shape}' must be [number of keypoints, 2 or 3]")
    return keypoints, dimensions


def _class_folders(root: Path) -> DataSet:
    names = sorted(entry.name for entry in (root / "train").iterdir() if entry.is_dir())
    if not names:
        raise UserError(
            f"{root}/train: no class folders in it; a classification data set has one folder a class"
        )
    val = next((name for name in ("val", "validation", "valid") if (root / name).exists()), None)
    others = {"train": "train", "val": val, "test": "test"}
    splits = {split: [str(root / name)] for split, name in others.items() if name and (root / name).is_dir()}
    return DataSet(root, root, tuple(names), splits, classify=True)


def datasets_directory() -> Path:
    """Return Ultralytics' `datasets_dir` from the user's settings, or its default, `datasets` below here."""
    try:
        settings = json.loads((_settings_directory() / "settings.json").read_text(encoding="utf-8"))
        return Path(settings["datasets_dir"])
    except (OSError, ValueError, KeyError, TypeError):
        return Path("datasets").resolve()


def _settings_directory() -> Path:
    if chosen := os.environ.get("YOLO_CONFIG_DIR"):
        return Path(chosen).expanduser() / "Ultralytics"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "Ultralytics"
    return Path(os.environ.get("XDG_CONFIG_HOME", Path.home() / ".config")) / "Ultralytics"


@dataclass(frozen=True)
class Rules:
    """`classes`: how many; `keypoints` and `dimensions`: data.yaml's kpt_shape; `imgsz` in pixels."""

    classes: int
    task: str = "detect"
    keypoints: int = 0
    dimensions: int = 0
    single_class: bool = False
    imgsz: int = 640

    @property
    def pose(self) -> bool:
        return self.task == "pose"

    @property
    def pose_columns(self) -> int:
        """Return how many columns a row with keypoints has; 5 where the data set has none."""
        return 5 + self.keypoints * self.dimensions

    @property
    def columns(self) -> int:
        """Return how many columns a row that is not a polygon has."""
        return self.pose_columns if self.pose else 5
