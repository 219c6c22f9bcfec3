"""The label check: a data set in, a report out, in one process or several.

Nothing is changed: no file is written, moved or mended, unlike in Ultralytics' own scan, which rewrites
some JPEGs and leaves a `.cache` file.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from nantui.errors import UserError
from nantui.labels.batch import BATCH, BatchResult, scan
from nantui.labels.data_set import DataSet, Rules
from nantui.labels.image_files import missing_images, scan_images
from nantui.labels.image_list import Folder, Listing, check_class_folders, labels_without_image, list_images
from nantui.labels.parser import Array
from nantui.labels.problem_kinds import ERROR, KINDS, Found
from nantui.labels.report import Issue, LabelReport

MOST_WORKERS = 8
TASKS = ("detect", "segment", "pose", "obb", "classify")
Progress = Callable[[int, int], bool]
"""Called with (files done, files in all); a true answer stops the check."""


@dataclass(frozen=True)
class Batch:
    """Images `start` up to `stop` of one folder."""

    folder: int
    start: int
    stop: int


def check_data_set(
    data: DataSet,
    *,
    splits: Iterable[str] = ("train", "val"),
    task: str | None = None,
    imgsz: int = 640,
    single_class: bool = False,
    images: bool = False,
    workers: int | None = None,
    progress: Progress | None = None,
) -> LabelReport:
    """Check the labels (and with `images` the images) of some splits of a data set.

    `workers` processes read at the same time; by default as many as there are processors, and none besides
    this one when threads run here (a fork would copy their locks). Raises UserError when the data set cannot
    be checked at all.
    """
    begun = time.monotonic()
    rules = Rules(
        len(data.names), guess_task(data, task), data.keypoints, data.dimensions, single_class, imgsz
    )
    if rules.pose and not rules.keypoints:
        raise UserError(f"{data.file}: task pose needs 'kpt_shape:'; Ultralytics refuses to train without")
    report = LabelReport(str(data.file), rules.task)
    listing = _list(data, splits, report)
    report.images = sum(len(folder.names) for folder in listing.folders)
    if data.classify:
        check_class_folders(data, report)
    _Check(listing, rules, images, report, progress).run(_workers(workers, report.images))
    report.seconds = time.monotonic() - begun
    return report


def guess_task(data: DataSet, task: str | None) -> str:
    """Return the task: as asked, else what data.yaml shows. Raises UserError for an unknown one."""
    if task is not None and task not in TASKS:
        raise UserError(f"task {task!r}: expects one of {', '.join(TASKS)}")
    if data.classify:
        return "classify"
    return task or ("pose" if data.keypoints else "detect")


def _list(data: DataSet, splits: Iterable[str], report: LabelReport) -> Listing:
    whole = Listing()
    seen: set[str] = set()
    for split in splits:
        named = data.splits.get(split, [])
        if not named and split == "test":
            raise UserError(f"{data.file}: it has no 'test:'; check another --split")
        sources = [source for source in named if source not in seen]
        seen.update(sources)
        listing = list_images(split, sources)
        if len(sources) == len(named) and not (listing.folders or listing.faults or data.classify):
            where = ", ".join(named) or f"'{split}:' names nothing"
            report.issues.append(Issue(str(data.file), 0, "no_images", f"{split}: no image in {where}"))
        whole.folders += listing.folders
        whole.walked += listing.walked
        report.issues += [Issue(path, 0, kind, text) for path, kind, text in listing.faults]
    whole.folders = _distinct(whole.folders)
    return whole


class _Check:
    """One run over the batches of a listing."""

    def __init__(
        self, listing: Listing, rules: Rules, images: bool, report: LabelReport, progress: Progress | None
    ) -> None:
        self.listing, self.rules, self.images, self.report = listing, rules, images, report
        self.progress = progress or (lambda done, total: False)
        self.folders = listing.folders
        self.batches = list(_batches(self.folders))
        self.total = sum(batch.stop - batch.start for batch in self.batches)
        self.box_rows = self.polygon_rows = 0

    def run(self, workers: int) -> None:
        work = (self.folders, self.rules, self.images)
        with ExitStack() as stack:
            results: Iterable[BatchResult] = map(partial(check_batch, *work), self.batches)
            if workers > 1 and len(self.batches) > 1:
                # Workers inherit the names by the fork: sending them takes longer than reading.
                pool = multiprocessing.get_context("fork").Pool(workers, _begin_worker, work)
                results = stack.enter_context(pool).imap(_work, self.batches)
            orphans = [] if self.rules.task == "classify" else list(labels_without_image(self.listing))
            self._take(results)
        self.report.issues += [Issue(path, 0, "no_image", "no image of this name") for path in orphans]
        self._whole_data_set()

    def _take(self, results: Iterable[BatchResult]) -> None:
        done = 0
        for batch, result in zip(self.batches, results, strict=False):
            self._add(batch, result)
            done += batch.stop - batch.start
            if self.progress(done, self.total):
                self.report.stopped = True
                return

    def _add(self, batch: Batch, result: BatchResult) -> None:
        folder = self.folders[batch.folder]
        report = self.report
        report.labels += result.files - len(result.missing) if self.rules.task != "classify" else 0
        report.boxes += result.rows
        self.box_rows += result.box_rows
        self.polygon_rows += result.polygon_rows
        if not (result.findings or result.missing or result.empty):
            return
        prefix = folder.labels and folder.labels + "/"
        labels = [prefix + name for name in folder.label_names(batch.start, batch.stop)]
        images = [folder.image(index) for index in range(batch.start, batch.stop)]
        found = [*result.findings]
        found += [Found(index, 0, "empty_file", "no rows") for index in result.empty]
        for item in sorted(found, key=lambda item: (item.file, item.line)):
            path = (images if item.kind.startswith("image_") else labels)[item.file]
            report.issues.append(Issue(path, item.line, item.kind, item.text))
            if KINDS[item.kind].severity == ERROR:
                report.image_of[path] = images[item.file]
        for index in result.missing:
            report.issues.append(Issue(images[index], 0, "no_label", f"no {labels[index]}"))
        dropped = sorted({item.file for item in result.findings if KINDS[item.kind].drops})
        report.dropped += [images[index] for index in dropped]

    def _whole_data_set(self) -> None:
        if 0 < self.total == sum(issue.kind == "no_label" for issue in self.report.issues):
            text = f"looked for in {self.folders[0].labels}"
            self.report.issues.append(Issue(self.report.data, 0, "no_labels", text))
        if self.rules.task in ("segment", "obb") and self.box_rows:
            counts = f"{self.box_rows:,} boxes beside {self.polygon_rows:,} polygons"
            text = f"{counts}; every row must be a polygon"
            self.report.issues.append(Issue(self.report.data, 0, "boxes_in_segments", text))


def check_batch(folders: list[Folder], rules: Rules, images: bool, batch: Batch) -> BatchResult:
    """Return what is wrong with one batch; runs in a worker process or here."""
    folder = folders[batch.folder]
    faults: list[Found] = []
    shapes: Array | None = None  # known where the images are looked into
    if images or folder.listed:
        paths = [folder.image(index) for index in range(batch.start, batch.stop)]
        faults, shapes = scan_images(paths) if images else (missing_images(paths), None)
    if rules.task == "classify":
        result = BatchResult(batch.stop - batch.start)
    else:
        result = scan(folder.labels, folder.label_names(batch.start, batch.stop), rules, shapes)
    result.findings += faults
    return result


def _distinct(folders: list[Folder]) -> list[Folder]:
    """Return the folders with every image once: train and val may name the same ones."""
    seen: dict[str, set[str]] = {}
    distinct = []
    for folder in folders:
        known = seen.setdefault(folder.path, set())
        names = [name for name in folder.names if name not in known] if known else folder.names
        if folder.listed or len(folders) > 1:
            known.update(names)
        distinct.append(replace(folder, names=names))
    return distinct


def _batches(folders: list[Folder]) -> Iterator[Batch]:
    for number, folder in enumerate(folders):
        for start in range(0, len(folder.names), BATCH):
            yield Batch(number, start, min(start + BATCH, len(folder.names)))


def _workers(asked: int | None, files: int) -> int:
    if asked is not None:
        return asked
    if sys.platform == "win32" or files < 4 * BATCH or threading.active_count() > 1:
        return 1
    return min(MOST_WORKERS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1)


_inherited: tuple[list[Folder], Rules, bool]


def _begin_worker(*work: Any) -> None:
    """Keep what the batches are of, and leave Ctrl-C to the parent, which ends its workers."""
    global _inherited
    _inherited = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _work(batch: Batch) -> BatchResult:
    return check_batch(*_inherited, batch)
