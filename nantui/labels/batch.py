"""Label files from the disk to findings, a batch at a time.

Reading is one `open`, `read` and `close` a file and nothing else; parsing and checking are done for the
whole batch. A batch is what fits the processor's cache, and what a progress bar moves by.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from nantui.labels.data_set import Rules
from nantui.labels.parser import Array, Table, parse
from nantui.labels.problem_kinds import KINDS, Found
from nantui.labels.row_rules import among_polygons, findings

BATCH = 1024
FIRST_READ = 1 << 13
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


@dataclass
class BatchResult:
    """What a batch of files has: findings with indices into the batch, and counts.

    `missing` and `empty` are indices; `box_rows` and `polygon_rows` count the rows of files that Ultralytics
    would read (not of those it drops).
    """

    files: int
    findings: list[Found] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    empty: list[int] = field(default_factory=list)
    rows: int = 0
    box_rows: int = 0
    polygon_rows: int = 0


def scan(folder: str, names: Sequence[str], rules: Rules, shapes: Array | None = None) -> BatchResult:
    """Check the label files `names` in `folder`; one that does not exist is among the missing.

    `shapes` are the images' sides as shares of the longer one, (files, 2), where they are known.
    """
    result = BatchResult(files=len(names))
    contents = _read_all(folder, names, result)
    table, faults = parse(contents)
    result.findings += faults
    unread = {found.file for found in result.findings} | set(result.missing)
    blank: Array = np.ones(len(names), bool)
    blank[table.file] = False
    result.empty = [index for index in np.flatnonzero(blank).tolist() if index not in unread]
    for index, data in enumerate(contents):
        if count := data.count(b"\r\n"):
            result.findings.append(Found(index, 0, "crlf", f"{count} Windows line ends"))
    with np.errstate(all="ignore"):
        # NaN and Inf are among the numbers that are checked.
        result.findings += findings(table, len(names), rules, shapes)
    _count(table, len(names), rules, result)
    return result


def _read_all(folder: str, names: Sequence[str], result: BatchResult) -> list[bytes]:
    """Return the contents of files, empty where there is none that could be read."""
    try:
        # Names relative to an open folder spare the system a walk along the path, a fifth of the time.
        opened = os.open(folder or ".", os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    except OSError:
        result.missing += range(len(names))
        return [b""] * len(names)
    try:
        return [_read(opened, name, index, result) for index, name in enumerate(names)]
    finally:
        os.close(opened)


def _read(folder: int, name: str, index: int, result: BatchResult) -> bytes:
    try:
        descriptor = os.open(name, _FLAGS, dir_fd=folder)
        try:
            data = os.read(descriptor, FIRST_READ)
            while len(data) % FIRST_READ == 0 and (more := os.read(descriptor, FIRST_READ << 4)):
                data += more
        finally:
            os.close(descriptor)
        return data
    except FileNotFoundError:
        result.missing.append(index)
    except OSError as error:
        _unread(folder, name, index, error, result)
    return b""


def _unread(folder: int, name: str, index: int, error: OSError, result: BatchResult) -> None:
    """A directory or a broken link is no label file to Ultralytics; a file that cannot be read is."""
    try:
        is_file = stat.S_ISREG(os.stat(name, dir_fd=folder).st_mode)
    except OSError:
        is_file = False
    if is_file:
        result.findings.append(Found(index, 0, "unreadable", error.strerror or str(error)))
    else:
        result.missing.append(index)


def _count(table: Table, files: int, rules: Rules, result: BatchResult) -> None:
    dropped: Array = np.zeros(files, bool)
    dropped[[found.file for found in result.findings if KINDS[found.kind].drops]] = True
    kept = ~dropped[table.file]
    polygon = among_polygons(table, files, rules)
    result.rows = int(table.file.size)
    result.polygon_rows = int(np.count_nonzero(kept & polygon))
    result.box_rows = int(np.count_nonzero(kept)) - result.polygon_rows
