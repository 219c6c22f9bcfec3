"""What must be the same on every host of a run: versions, and the images of the data set.

`python -m nantui.labels.data_set_digest REQUEST.json` with {"data": …}; answers one JSON line.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from nantui.errors import UserError
from nantui.labels.data_set import Folder, list_images, load_data_set
from nantui.paths import go_to_work
from nantui.run.atomic_files import to_json
from nantui.run.documents import Document
from nantui.version import __version__

PACKAGES = ("ultralytics", "torch")


def facts(data: str) -> Document:
    """Return {"versions": {name: version}, "images": {split: {"count", "digest"}}, "error": text or ""}."""
    versions = {"nantui": __version__, **{name: _version(name) for name in PACKAGES}}
    try:
        splits = load_data_set(data).splits
        images = {split: _digest(split, splits[split]) for split in ("train", "val") if split in splits}
    except (UserError, OSError) as error:
        return {"versions": versions, "images": {}, "error": str(error)}
    return {"versions": versions, "images": images, "error": ""}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _digest(split: str, sources: list[str]) -> Document:
    names: list[str] = []
    for source in sources:
        listing = list_images(split, [source])
        if listing.faults and not listing.folders:
            raise UserError(f"{source}: {listing.faults[0].text}")
        names += sorted(name for folder in listing.folders for name in _names(folder, source))
    return {"count": len(names), "digest": hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]}


def _names(folder: Folder, source: str) -> list[str]:
    """Return names below the source; what a list names may lie under another path on each host."""
    below = "" if folder.listed else os.path.relpath(folder.path, source)
    return [f"{below}/{name}" for name in folder.names]


if __name__ == "__main__":
    go_to_work()
    print(to_json(facts(str(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["data"]))))
