"""Small data sets made file by file, so that each test says what is in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from nantui.labels.check import check_data_set
from nantui.labels.data_set import load_data_set
from nantui.labels.report import LabelReport


class SmallDataSet:
    """A data set in a folder: `add` images with label rows, then `check`."""

    def __init__(self, root: Path, yaml: str = "names: [a, b, c]\n") -> None:
        self.root = root
        (root / "images" / "train").mkdir(parents=True)
        (root / "labels" / "train").mkdir(parents=True)
        self.yaml = root / "data.yaml"
        self.yaml.write_text(f"path: {root}\ntrain: images/train\nval: images/train\n{yaml}")
        self.count = 0

    def add(self, rows: str | bytes | None, name: str = "", image: bytes | None = b"") -> Path:
        """Write one image (empty by default) and its label file; returns the label file's path."""
        self.count += 1
        name = name or f"{self.count:05d}"
        if image is not None:
            (self.root / "images" / "train" / f"{name}.jpg").write_bytes(image)
        label = self.root / "labels" / "train" / f"{name}.txt"
        if rows is not None:
            label.parent.mkdir(parents=True, exist_ok=True)
            label.write_bytes(rows if isinstance(rows, bytes) else rows.encode())
        return label

    def check(self, settings: dict[str, object] | None = None, **options: object) -> LabelReport:
        return check_data_set(load_data_set(self.yaml), settings, **options)  # type: ignore[arg-type]


@pytest.fixture
def data_set(tmp_path: Path) -> Callable[..., SmallDataSet]:
    made = []

    def make(yaml: str = "names: [a, b, c]\n") -> SmallDataSet:
        made.append(SmallDataSet(tmp_path / f"data{len(made)}", yaml))
        return made[-1]

    return make


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid JPEG of 32 by 32 pixels."""
    path = tmp_path_factory.mktemp("picture") / "picture.jpg"
    Image.new("RGB", (32, 32), (80, 120, 40)).save(path)
    return path
