"""The end of files that grow for days, not read whole: hundreds of runs may lie below one directory."""

from __future__ import annotations

import csv
import math
import os
import re
from pathlib import Path

from nantui.run.results import EpochRow
from nantui.run.steps import Step, StepFollower

HEADER, TAIL, SETTINGS = 4096, 8192, 1 << 16
EPOCHS = re.compile(r"^epochs:\s*(\d+)\s*$", re.MULTILINE)


def last_lines(path: Path, size: int = TAIL) -> list[str]:
    """Return the whole lines among the last `size` bytes; a torn last line is left out."""
    try:
        with path.open("rb") as file:
            whole = os.fstat(file.fileno()).st_size
            file.seek(max(0, whole - size))
            data = file.read(size)
    except OSError:
        return []
    lines = data[: data.rfind(b"\n") + 1].decode("utf-8", errors="replace").splitlines()
    return lines[1:] if whole > size else lines


def first_line(path: Path) -> str:
    """Return the first line of a file, empty where there is none."""
    return head(path, HEADER).partition("\n")[0]


def last_step(path: Path) -> Step | None:
    """Return the newest step of a steps.csv, None where there is none yet."""
    steps = StepFollower(path)._parse([first_line(path), *last_lines(path)])
    return steps[-1] if steps else None


def last_epochs(path: Path) -> list[EpochRow]:
    """Return the epochs at the end of a results.csv, oldest first, at most those of its last segment."""
    header = [name.strip() for name in first_line(path).split(",")]
    rows: list[EpochRow] = []
    for cells in csv.reader(last_lines(path)):
        row = _epoch(header, cells)
        if row is not None:
            rows = [*rows, row] if rows and row.epoch > rows[-1].epoch else [row]
    return rows


def epochs_asked(path: Path) -> int | None:
    """Return `epochs` of an args.yaml, found without reading it as YAML: that takes 10 ms a run."""
    found = EPOCHS.search(head(path, SETTINGS))
    return int(found[1]) if found else None


def head(path: Path, size: int) -> str:
    """Return the first `size` bytes of a file, empty where there is none."""
    try:
        with path.open("rb") as file:
            return file.read(size).decode("utf-8", errors="replace")
    except OSError:
        return ""


def _epoch(header: list[str], cells: list[str]) -> EpochRow | None:
    if len(cells) != len(header):
        return None
    try:
        numbers = dict(zip(header, map(float, cells), strict=True))
        epoch = int(numbers.pop("epoch"))
    except (ValueError, KeyError, OverflowError):
        return None
    return EpochRow(epoch, numbers.pop("time", math.nan), numbers, 0)
