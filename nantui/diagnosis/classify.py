"""Classification data sets: one folder a class, the same folders in every split."""

from __future__ import annotations

from pathlib import Path

from nantui.diagnosis.dataset import DataSet
from nantui.diagnosis.listing import walk
from nantui.diagnosis.report import Issue, LabelReport


def check_class_folders(data: DataSet, report: LabelReport) -> None:
    """Add what is wrong with the folders of a classification data set to `report`."""
    for split, paths in data.splits.items():
        for path in paths:
            folders = {entry.name for entry in Path(path).iterdir() if entry.is_dir()}
            for name in sorted(folders - set(data.names)):
                report.issues.append(
                    Issue(f"{path}/{name}", 0, "class_folders", f"{split} has it, train has not")
                )
            if split == "train":
                _empty_classes(path, sorted(folders), report)


def _empty_classes(path: str, folders: list[str], report: LabelReport) -> None:
    for name in folders:
        if next(walk(f"{path}/{name}"), None) is None:
            report.issues.append(Issue(f"{path}/{name}", 0, "class_empty", "no images in it"))
