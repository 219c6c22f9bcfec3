"""Which images a data set has, folder by folder, and which label files have no image.

Classification data sets have one folder a class instead, the same folders in every split.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from nantui.labels.data_set import IMAGE_SUFFIXES, DataSet, labels_folder
from nantui.labels.report import Issue, LabelReport


@dataclass
class Folder:
    """Images of one folder; `listed` ones come from a list and need not exist."""

    path: str
    names: list[str]
    listed: bool = False

    @property
    def labels(self) -> str:
        return labels_folder(self.path)

    def image(self, index: int) -> str:
        return (self.path and self.path + "/") + self.names[index]

    def label_names(self, start: int, stop: int) -> list[str]:
        """Return the names of the label files, in `labels`, of the images from `start` up to `stop`."""
        return [f"{name[: name.rindex('.')]}.txt" for name in self.names[start:stop]]


@dataclass
class Listing:
    """The images of splits. `faults` are (path, kind, text); `walked` are whole folders."""

    folders: list[Folder] = field(default_factory=list)
    faults: list[tuple[str, str, str]] = field(default_factory=list)
    walked: list[str] = field(default_factory=list)


_ENDINGS = tuple(f".{suffix}" for suffix in sorted(IMAGE_SUFFIXES))


def is_image(name: str) -> bool:
    """Tell whether Ultralytics takes a file of this name for an image."""
    return name.lower().endswith(_ENDINGS)


def list_images(split: str, sources: list[str]) -> Listing:
    """Return the images that `sources` (folders, lists of images; patterns, which get a fault) name."""
    listing = Listing()
    for source in _expanded(sources, listing):
        if os.path.isdir(source):
            listing.walked.append(source)
            listing.folders += [Folder(path, sorted(names)) for path, names in walk(source)]
        elif os.path.isfile(source):
            try:
                listing.folders += _listed(source)
            except (OSError, UnicodeDecodeError) as error:
                why = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
                listing.faults.append((source, "list_unreadable", f"a file here must list images: {why}"))
        else:
            text = f"{split}: it is neither a folder nor a list of images"
            listing.faults.append((source, "path_missing", text))
    return listing


def _expanded(sources: list[str], listing: Listing) -> Iterator[str]:
    for source in sources:
        found = [] if os.path.exists(source) else sorted(glob.glob(source, recursive=True))
        if not found:  # also a path with brackets in it that is not there: its name is no pattern
            yield source
            continue
        listing.faults.append(
            (source, "pattern", f"it matches {len(found)} paths, but Ultralytics would not look")
        )
        images = [path for path in found if is_image(path)]
        yield from (path for path in found if not is_image(path))
        listing.folders += _by_folder(images)


def walk(top: str, endings: tuple[str, ...] = _ENDINGS) -> Iterator[tuple[str, list[str]]]:
    """Yield (folder, names of the files with one of the lower-case `endings`) for `top` and below.

    Hidden files are passed over. Links are followed, as Ultralytics does, but no folder is entered twice.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            state = os.stat(folder)
            if (state.st_dev, state.st_ino) in seen:
                continue
            seen.add((state.st_dev, state.st_ino))
            names, below = _entries(folder, endings)
        except OSError:
            continue
        waiting += sorted(below, reverse=True)
        if names:
            yield folder, names


def _entries(folder: str, endings: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """Return (names of wanted files, folders) of a folder; what is neither needs a look at the disk."""
    names = [name for name in os.listdir(folder) if name[0] != "."]
    wanted = [name for name in names if name.endswith(endings) or name.lower().endswith(endings)]
    if len(wanted) == len(names):
        return wanted, []
    paths = (f"{folder}/{name}" for name in names if not name.lower().endswith(endings))
    return wanted, [path for path in paths if os.path.isdir(path)]


def _listed(source: str) -> list[Folder]:
    """Return the images that a text file lists, one path a line. Raises OSError, UnicodeDecodeError."""
    text = Path(source).read_text(encoding="utf-8-sig")
    own = os.path.dirname(source) + "/"
    lines = (
        line.replace("./", own, 1) if line.startswith("./") else line for line in text.strip().splitlines()
    )
    return _by_folder([line for line in lines if is_image(line)])


def _by_folder(paths: list[str]) -> list[Folder]:
    folders: dict[str, list[str]] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        folders.setdefault(folder, []).append(name)
    return [Folder(folder, names, listed=True) for folder, names in folders.items()]


def labels_without_image(listing: Listing) -> Iterator[str]:
    """Yield the label files in the listing's own `labels` folders whose image is not on the disk.

    Labels that lie beside their images are passed over: other text files lie there as well.
    """
    images: dict[str, list[Folder]] = {}
    for folder in listing.folders:
        if folder.labels != folder.path:
            images.setdefault(folder.labels, []).append(folder)
    tops = [labels_folder(top) for top in listing.walked if labels_folder(top) != top]
    seen = set()
    for path, names in _label_files(tops, list(images)):
        if path not in seen:
            seen.add(path)
            known: set[str] = set().union(*map(_stems, images.get(path, [])))
            yield from (f"{path}/{name}" for name in sorted(names) if name[:-4] not in known)


def _label_files(tops: list[str], singles: list[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield (folder, names of its .txt files): `tops` with all below them, `singles` alone."""
    for top in tops:
        yield from walk(top, (".txt",))
    for folder in singles:
        if not any(folder == top or folder.startswith(top + "/") for top in tops):
            yield folder, _names(folder, (".txt",))


def _stems(folder: Folder) -> set[str]:
    """Return the stems of the images on the disk: a list may name only some of them."""
    names = _names(folder.path or ".", _ENDINGS) if folder.listed else folder.names
    return {name[: name.rindex(".")] for name in names}


def _names(folder: str, endings: tuple[str, ...]) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if name.lower().endswith(endings)]
    except OSError:
        return []


def check_class_folders(data: DataSet, report: LabelReport) -> None:
    """Add what is wrong with the folders of a classification data set to `report`."""
    for split, paths in data.splits.items():
        for path in paths:
            folders = sorted(str(entry) for entry in Path(path).iterdir() if entry.is_dir())
            odd = [folder for folder in folders if os.path.basename(folder) not in data.names]
            text = f"{split} has it, train has not"
            report.issues += [Issue(folder, 0, "class_folders", text) for folder in odd]
            empty = [folder for folder in folders if split == "train" and next(walk(folder), None) is None]
            report.issues += [Issue(folder, 0, "class_empty", "no images in it") for folder in empty]
