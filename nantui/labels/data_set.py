"""Where a data set's images and labels are, by Ultralytics' rules, without importing it.

The rules of `check_det_dataset`, `get_img_files` and `img2label_paths` (8.4.190) have corners: a relative
`path:` is first looked for below the working directory and then below the user's `datasets_dir`; `../`
is dropped from a split that does not exist; a list's `./` is the list's own folder; labels are where the
*last* `/images/` of the path becomes `/labels/`, and beside the image where there is none. Classification
data sets have one folder a class instead, the same folders in every split.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from nantui.errors import UserError
from nantui.labels.report import Issue
from nantui.run.atomic_files import read_owned
from nantui.run.documents import LARGEST_JSON, MOST_NODES, JsonObject, refuse_deep
from nantui.settings.schema import LOADER, find_ultralytics

IMAGE_SUFFIXES = frozenset(
    {"avif", "bmp", "dng", "heic", "heif", "jp2", "jpeg", "jpg", "mpo", "png", "tif", "tiff", "webp"}
)
"""`ultralytics.data.utils.IMG_FORMATS`; a test compares it with the installed release."""
IMAGES = tuple(f".{suffix}" for suffix in sorted(IMAGE_SUFFIXES))
SPLITS = ("train", "val", "test")
UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]+")
"""What YAML forbids; Ultralytics (`YAML.load`) takes it out of a file that cannot be parsed with it."""
_EXPECTED: dict[str, type | tuple[type, ...]] = {
    "path": str, "train": (str, list), "val": (str, list), "test": (str, list), "names": (list, dict),
}  # fmt: skip


@dataclass(frozen=True)
class DataSet:
    """A data set as its data.yaml (or, for classification, its directory) describes it.

    `splits` maps "train", "val", "test" to resolved paths, which need not exist; `names` are the classes.
    """

    file: Path
    names: tuple[str, ...]
    splits: dict[str, list[str]]
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
        found = sorted(path.glob("*.yaml")) or sorted(path.glob("*.yml"))
        if (path / "train").is_dir() and not found:
            return _class_folders(path.resolve())
        named = [file for file in found if file.stem == path.name] if len(found) > 1 else found
        if len(named) != 1:
            raise UserError(f"{path}: {len(found)} YAML files in it; name the one of the data set")
        path = named[0]
    if not path.is_file():
        raise UserError(f"{data}: no such file; give the data set's YAML, or a classification directory")
    try:
        return _data_set(path.resolve(), _read(path))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:  # also paths that nothing can have
        raise UserError(f"{path}: not readable as YAML ({str(error).splitlines()[0]}); mend it") from None


def labels_folder(folder: str) -> str:
    """Return the folder that holds the labels of the images in `folder` (no slash at the end of either)."""
    return "/labels/".join((folder + "/").rsplit("/images/", 1))[:-1]


def _brought_along(path: Path) -> Path:
    """Return the one file of that name in the installed Ultralytics, where it looks as well, else `path`."""
    if path.is_absolute() or path.suffix not in (".yaml", ".yml"):
        return path
    try:
        return next((find_ultralytics() / "cfg" / "datasets").glob(path.name), path)
    except UserError:
        return path


def _read(path: Path) -> JsonObject:
    text = (read_owned(path, LARGEST_JSON) or (b"", 0))[0].decode("utf-8", errors="ignore")
    if len(text) > LARGEST_JSON:
        raise ValueError("too large for one")
    try:
        document = yaml.load(text, Loader=LOADER)
    except yaml.YAMLError:
        document = yaml.load(UNPRINTABLE.sub("", text), Loader=LOADER)
    refuse_deep(document)
    if not isinstance(document, dict):
        raise UserError(f"{path}: no data set in it; 'train:', 'val:' and 'names:' are required")
    document = {key: None if value == "None" else value for key, value in document.items()}
    for key, types in _EXPECTED.items():
        if document.get(key) is not None and not isinstance(document[key], types):
            raise UserError(f"{path}: '{key}:' is a {type(document[key]).__name__}; Ultralytics refuses that")
    return document


def _data_set(file: Path, document: JsonObject) -> DataSet:
    if "validation" in document:
        document = {"val": document["validation"], **document}
    for split in ("train", "val"):
        if split not in document:
            raise UserError(f"{file}: '{split}:' is missing; Ultralytics refuses to train without it")
    root = Path(document.get("path") or file.parent)
    if not root.is_absolute() and not root.exists():
        root = ultralytics_directory("datasets") / root
    splits = {split: _resolved(root.resolve(), document[split]) for split in SPLITS if document.get(split)}
    return DataSet(file, _names(file, document), splits, *_keypoint_shape(file, document.get("kpt_shape")))


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
        number = None if count is None else float(count)  # '3' and 3.0 are 3
        if number is not None and (not number.is_integer() or number > MOST_NODES):
            raise ValueError
        count = None if number is None else int(number)
        if names is None:
            return tuple(f"class_{number}" for number in range(count or 0))
        numbered = enumerate(names) if isinstance(names, list) else names.items()
        table = {int(key): name for key, name in numbered}
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{file}: 'names:' or 'nc:' hold no class numbers; Ultralytics refuses") from None
    if count not in (None, len(table)) or not table or max(table) >= len(table):
        raise UserError(f"{file}: 'names:' must number {len(table)} classes from 0 on and agree with 'nc:'")
    return tuple(str(table[number]) for number in sorted(table))


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
        raise UserError(f"{root}/train: no class folders in it; classification needs one folder a class")
    val = next((name for name in ("val", "validation", "valid") if (root / name).exists()), "val")
    named = {"train": "train", "val": val, "test": "test"}
    splits = {split: [str(root / name)] for split, name in named.items() if (root / name).is_dir()}
    return DataSet(root, tuple(names), splits, classify=True)


def ultralytics_directory(of: str) -> Path:
    """Return Ultralytics' directory of `datasets` or `runs` from its settings, else that below here."""
    chosen = os.environ.get("YOLO_CONFIG_DIR") or os.environ.get("XDG_CONFIG_HOME", "~/.config")
    try:
        text = (Path(chosen).expanduser() / "Ultralytics/settings.json").read_text(encoding="utf-8")
        return Path(json.loads(text)[f"{of}_dir"])
    except (OSError, ValueError, KeyError, TypeError):
        return Path(of).resolve()


@dataclass
class Folder:
    """Images of one folder; `listed` ones come from a list and need not exist."""

    path: str
    names: list[str]
    listed: bool = False

    @property
    def labels(self) -> str:
        return labels_folder(self.path)

    @property
    def images(self) -> list[str]:
        prefix = self.path and self.path + "/"
        return [prefix + name for name in self.names]

    @property
    def label_names(self) -> list[str]:
        """Return the names of the label files, in `labels`."""
        return [f"{name[: name.rindex('.')]}.txt" for name in self.names]


@dataclass
class Listing:
    """The images of splits, and what is wrong with the paths of these; `walked` are whole folders."""

    folders: list[Folder] = field(default_factory=list)
    faults: list[Issue] = field(default_factory=list)
    walked: list[str] = field(default_factory=list)


def list_splits(data: DataSet, splits: Iterable[str]) -> Listing:
    """Return the images of some splits, each once. Raises UserError for a test split that there is not."""
    whole = Listing(faults=list(_class_faults(data)) if data.classify else [])
    looked: set[str] = set()  # train and val may name the same paths,
    known: dict[str, set[str]] = {}  # or the same images
    for split in splits:
        named = data.splits.get(split, [])
        if not named and split == "test":
            raise UserError(f"{data.file}: it has no 'test:'; check another --split")
        sources = [source for source in named if source not in looked]
        looked.update(sources)
        listing = list_images(split, sources)
        if len(sources) == len(named) and not (listing.folders or listing.faults or data.classify):
            where = ", ".join(named) or f"'{split}:' names nothing"
            whole.faults.append(Issue(str(data.file), 0, "no_images", f"{split}: no image in {where}"))
        whole.walked += listing.walked
        whole.faults += listing.faults
        for folder in listing.folders:
            seen = known.setdefault(folder.path, set())
            names = [name for name in folder.names if name not in seen] if seen else folder.names
            whole.folders.append(replace(folder, names=names))
            seen.update(folder.names)
    return whole


def _class_faults(data: DataSet) -> Iterator[Issue]:
    for split, (path,) in data.splits.items():
        for folder in sorted(str(entry) for entry in Path(path).iterdir() if entry.is_dir()):
            if os.path.basename(folder) not in data.names:
                yield Issue(folder, 0, "class_folders", f"{split} has it, train has not")
            if split == "train" and next(walk(folder), None) is None:
                yield Issue(folder, 0, "class_empty", "no images in it")


def list_images(split: str, sources: list[str]) -> Listing:
    """Return the images that `sources` (folders, lists of images; patterns, which get a fault) name."""
    listing = Listing()
    for source in sources:
        places = [source]
        # A path with brackets in it that is not there may match nothing: its name is no pattern.
        if not os.path.exists(source) and (found := sorted(glob.glob(source, recursive=True))):
            text = f"it matches {len(found)} paths, but Ultralytics would not look"
            listing.faults.append(Issue(source, 0, "pattern", text))
            listing.folders += _by_folder(filter(is_image, found))
            places = [path for path in found if not is_image(path)]
        for place in places:
            _add_place(split, place, listing)
    return listing


def _add_place(split: str, place: str, listing: Listing) -> None:
    if os.path.isdir(place):
        listing.walked.append(place)
        listing.folders += [Folder(path, sorted(names)) for path, names in walk(place)]
    elif os.path.isfile(place):
        try:
            listing.folders += _listed(place)
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
            text = f"a file here must list images: {why}"
            listing.faults.append(Issue(place, 0, "list_unreadable", text))
    else:
        text = f"{split}: it is neither a folder nor a list of images"
        listing.faults.append(Issue(place, 0, "path_missing", text))


def is_image(name: str) -> bool:
    """Tell whether Ultralytics takes a file of this name for an image."""
    return name.lower().endswith(IMAGES)


def walk(top: str, endings: tuple[str, ...] = IMAGES) -> Iterator[tuple[str, list[str]]]:
    """Yield (folder, names of the files with one of the lower-case `endings`) for `top` and below.

    Hidden files are passed over. Links are followed, as Ultralytics does, but no folder is entered twice.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        with suppress(OSError):
            state, names = os.stat(folder), [name for name in os.listdir(folder) if name[0] != "."]
            if (state.st_dev, state.st_ino) in seen:
                continue
            seen.add((state.st_dev, state.st_ino))
            wanted = [name for name in names if name.lower().endswith(endings)]
            if len(wanted) < len(names):  # what is neither needs a look at the disk, others none
                below = (f"{folder}/{name}" for name in sorted({*names} - {*wanted}, reverse=True))
                waiting += filter(os.path.isdir, below)
            if wanted:
                yield folder, wanted


def _listed(source: str) -> list[Folder]:
    own = os.path.dirname(source) + "/"
    lines = Path(source).read_text(encoding="utf-8-sig").strip().splitlines()
    paths = (own + line[2:] if line.startswith("./") else line for line in lines)
    return _by_folder(filter(is_image, paths))


def _by_folder(paths: Iterator[str]) -> list[Folder]:
    folders: dict[str, list[str]] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        folders.setdefault(folder, []).append(name)
    return [Folder(folder, names, listed=True) for folder, names in folders.items()]


def labels_without_image(listing: Listing) -> Iterator[Issue]:
    """Yield the label files in the listing's own `labels` folders whose image is not on the disk.

    Labels that lie beside their images are passed over: other text files lie there as well.
    """
    images: dict[str, list[Folder]] = {}
    for folder in listing.folders:
        if folder.labels != folder.path:
            images.setdefault(folder.labels, []).append(folder)
    tops = [labels_folder(top) for top in listing.walked if labels_folder(top) != top]
    labels = {path: names for top in tops for path, names in walk(top, (".txt",))}
    labels |= {path: _files(path, (".txt",)) for path in images if path not in labels}
    for path, names in labels.items():
        known = {name.rpartition(".")[0] for folder in images.get(path, []) for name in _on_disk(folder)}
        orphans = sorted(name for name in names if name[:-4] not in known)
        yield from (Issue(f"{path}/{name}", 0, "no_image", "no image of this name") for name in orphans)


def _on_disk(folder: Folder) -> list[str]:
    """Return the images of a folder: a list may name only some of them."""
    return _files(folder.path or ".", IMAGES) if folder.listed else folder.names


def _files(folder: str, endings: tuple[str, ...]) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if name.lower().endswith(endings)]
    except OSError:
        return []
