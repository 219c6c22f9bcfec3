"""The label check: a data set in, a report out, in one process or several. Nothing is changed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from nantui.errors import UserError
from nantui.labels.data_set import DataSet, Folder, Listing, labels_without_image, list_splits
from nantui.labels.image_files import missing_images, scan_images
from nantui.labels.label_files import Array, parse, read_all
from nantui.labels.problem_kinds import ERROR, KINDS, Found
from nantui.labels.report import Issue, LabelReport
from nantui.labels.row_rules import Rules, among_polygons, findings

BATCH = 1024
MOST_WORKERS = 8
TASKS = ("detect", "segment", "pose", "obb", "classify")
Progress = Callable[[int, int], bool]
"""Called with (files done, files in all) after each batch; a true answer stops the check."""


def check_data_set(
    data: DataSet, settings: Mapping[str, object] | None = None, *, splits: Iterable[str] = ("train", "val"),
    images: bool = False, workers: int | None = None, progress: Progress | None = None,
) -> LabelReport:  # fmt: skip
    """Check the labels (and with `images` the images) of some splits of a data set.

    Of a training's `settings` the task, imgsz and single_cls count. `workers` processes read at the same
    time; by default as many as there are processors, and none besides this one when threads run here (a fork
    would copy their locks). Raises UserError when the data set cannot be checked at all.
    """
    begun = time.monotonic()
    rules = _rules(data, settings or {})
    listing = list_splits(data, splits)
    report = LabelReport(str(data.file), rules.task, sum(len(folder.names) for folder in listing.folders))
    report.issues += listing.faults
    if workers is None:
        alone = report.images < 4 * BATCH or threading.active_count() > 1
        workers = 1 if alone else min(MOST_WORKERS, len(os.sched_getaffinity(0)))
    _check_all(listing, rules, images, report, workers, progress or (lambda done, total: False))
    if 0 < report.images == sum(issue.kind == "no_label" for issue in report.issues):
        text = f"looked for in {listing.folders[0].labels}"
        report.issues.append(Issue(report.data, 0, "no_labels", text))
    if rules.task in ("segment", "obb") and report.kept_boxes:
        counts = f"{report.kept_boxes:,} boxes beside {report.kept_polygons:,} polygons"
        text = f"{counts}; every row must be a polygon"
        report.issues.append(Issue(report.data, 0, "boxes_in_segments", text))
    report.seconds = time.monotonic() - begun
    return report


def _rules(data: DataSet, settings: Mapping[str, object]) -> Rules:
    task, imgsz = settings.get("task"), settings.get("imgsz")
    if task and task not in TASKS:
        raise UserError(f"task {task!r}: expects one of {', '.join(TASKS)}")
    task = "classify" if data.classify else str(task or ("pose" if data.keypoints else "detect"))
    if task == "pose" and not data.keypoints:
        raise UserError(f"{data.file}: task pose needs 'kpt_shape:'; Ultralytics refuses to train without")
    size, single = imgsz if isinstance(imgsz, int) else 640, bool(settings.get("single_cls"))
    return Rules(len(data.names), task, data.keypoints, data.dimensions, single, size)


def _check_all(
    listing: Listing, rules: Rules, images: bool, report: LabelReport, workers: int, progress: Progress
) -> None:
    begins = ((folder, at) for folder in listing.folders for at in range(0, len(folder.names), BATCH))
    batches = [replace(folder, names=folder.names[at : at + BATCH]) for folder, at in begins]
    work, done = (batches, rules, images), 0
    with ExitStack() as stack:
        parts: Iterable[LabelReport] = map(partial(check_batch, *work), range(len(batches)))
        if workers > 1 and len(batches) > 1:
            # Workers inherit the names by the fork: sending them takes longer than reading.
            pool = multiprocessing.get_context("fork").Pool(workers, _begin_worker, work)
            parts = stack.enter_context(pool).imap(_work, range(len(batches)))
        orphans = [] if rules.task == "classify" else list(labels_without_image(listing))
        for batch, part in zip(batches, parts, strict=False):
            report.add(part)
            done += len(batch.names)
            if progress(done, report.images):
                report.stopped = True
                break
    report.issues += orphans


_inherited: tuple[list[Folder], Rules, bool]


def _begin_worker(*work: Any) -> None:
    """Keep the batches, and leave Ctrl-C to the parent, which ends its workers."""
    global _inherited
    _inherited = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _work(number: int) -> LabelReport:
    return check_batch(*_inherited, number)


def check_batch(batches: list[Folder], rules: Rules, look: bool, number: int) -> LabelReport:
    """Return what is wrong with one batch, the files of a part of a folder; in a worker process or here."""
    folder, part = batches[number], LabelReport()
    names = folder.label_names
    found: list[Found] = []
    shapes: Array | None = None  # known where the images are looked into
    if look:
        found, shapes = scan_images(folder.images)
    elif folder.listed:
        found = missing_images(folder.images)
    if rules.task != "classify":
        found = [*scan(folder.labels, names, rules, part, shapes), *found]
    images = folder.images if found else []
    for file, line, kind, text in sorted(found, key=lambda one: one[:2]):
        of_image = kind.startswith("image_") or kind == "no_label"
        path = images[file] if of_image else os.path.join(folder.labels, names[file])
        part.issues.append(Issue(path, line, kind, text))
        if KINDS[kind].severity == ERROR:
            part.image_of[path] = images[file]
    part.dropped = [images[index] for index in sorted({one.file for one in found if KINDS[one.kind].drops})]
    return part


def scan(
    folder: str, names: Sequence[str], rules: Rules, part: LabelReport, shapes: Array | None = None
) -> list[Found]:
    """Return what is wrong with the label files `names` in `folder`, and add their rows to `part`.

    `shapes` are the images' sides as shares of the longer one, (files, 2), where they are known.
    """
    contents, found = read_all(folder, names)
    part.labels = len(names) - sum(one.kind == "no_label" for one in found)
    table, faults = parse(contents)
    found += faults
    blank: Array = np.ones(len(names), bool)
    blank[table.file] = blank[[one.file for one in found]] = False
    found += [Found(index, 0, "empty_file", "no rows") for index in np.flatnonzero(blank).tolist()]
    for index, data in enumerate(contents):
        if count := data.count(b"\r\n"):
            found.append(Found(index, 0, "crlf", f"{count} Windows line ends"))
    with np.errstate(all="ignore"):
        # NaN and Inf are among the numbers that are checked.
        found += findings(table, len(names), rules, shapes)
    dropped: Array = np.zeros(len(names), bool)
    dropped[[one.file for one in found if KINDS[one.kind].drops]] = True
    kept = ~dropped[table.file]
    polygon = among_polygons(table, len(names), rules)
    part.boxes = int(table.file.size)
    part.kept_polygons = int(np.count_nonzero(kept & polygon))
    part.kept_boxes = int(np.count_nonzero(kept)) - part.kept_polygons
    return found
