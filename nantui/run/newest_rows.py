"""The end of files that grow for days, not read whole: hundreds of runs may lie below one directory."""

from __future__ import annotations

import os
import re
from pathlib import Path

from nantui.run.atomic_files import open_regular
from nantui.run.growing_files import cells_of
from nantui.run.results import EpochRow, columns_of, parse_row
from nantui.run.telemetry import Step, parse_steps

HEADER, TAIL, SETTINGS, LOG_TAIL = 4096, 8192, 1 << 16, 1 << 16
FEW_LINES = 8
"""Enough for the newest step and the last epochs' times; parsing is what costs over hundreds of runs."""
EPOCHS = re.compile(r"^epochs:\s*(\d{1,9})\s*$", re.MULTILINE)
TIMED = re.compile(r"^time:\s*[\d.]", re.MULTILINE)


def last_lines(path: Path, size: int = TAIL) -> list[str]:
    """Return the whole lines among the last `size` bytes; a torn last line is left out."""
    data, cut = read_end(path, size)
    lines = data[: data.rfind(b"\n") + 1].decode("utf-8", errors="replace").splitlines()
    return lines[1:] if cut else lines


def first_line(path: Path) -> str:
    """Return the first line of a file, empty where there is none."""
    return head(path, HEADER).partition("\n")[0]


def last_step(path: Path) -> Step | None:
    """Return the newest step of a steps.csv, None where there is none yet."""
    _, columns = parse_steps([first_line(path)], [])
    for line in reversed(last_lines(path)[-FEW_LINES:]):
        steps, _ = parse_steps([line], columns)
        if steps:
            return steps[-1]
    return None


def last_epochs(path: Path) -> list[EpochRow]:
    """Return the epochs at the end of a results.csv, oldest first, at most those of its last segment."""
    header = columns_of(first_line(path).split(","))
    rows: list[EpochRow] = []
    for cells in cells_of(last_lines(path)[-FEW_LINES:]):
        row = parse_row(header, cells)
        if row is not None:
            rows = [*rows, row] if rows and row.epoch > rows[-1].epoch else [row]
    return rows


def epochs_asked(path: Path) -> int | None:
    """Return `epochs` of an args.yaml, found without reading it as YAML: that takes 10 ms a run.

    None under `time=`: Ultralytics reckons anew after each epoch how many there will be (`_do_train`).
    """
    text = head(path, SETTINGS)
    found = None if TIMED.search(text) else EPOCHS.search(text)
    return int(found[1]) if found else None


def tail_text(path: Path, size: int = LOG_TAIL) -> str:
    """Return the end of a regular file, opened without following a link and without blocking; else empty."""
    return read_end(path, size, os.O_NOFOLLOW)[0].decode("utf-8", errors="replace")


def head(path: Path, size: int) -> str:
    """Return the first `size` bytes of a regular file, empty where there is none."""
    file = open_regular(path)
    if file is None:
        return ""
    with file:
        return file.read(size).decode("utf-8", errors="replace")


def read_end(path: Path, size: int, flags: int = 0) -> tuple[bytes, bool]:
    """Return the last `size` bytes of a regular file, and whether something stands before them."""
    file = open_regular(path, flags)
    if file is None:
        return b"", False
    with file:
        whole = os.fstat(file.fileno()).st_size
        file.seek(max(0, whole - size))
        return file.read(size), whole > size
