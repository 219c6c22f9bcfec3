"""Ultralytics' progress lines, read from a log's end: epoch, batch and losses without our telemetry.

The line is redrawn with carriage returns and colours; losses may be `nan` or `inf`. Two generations look
different after the colon (tqdm until 8.3, Ultralytics' own bar since), the columns before it are the same:
`epoch/epochs  GPU memory  losses…  Instances  Size:  percent … batch/batches`.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from nantui.run.growing_files import tail_text
from nantui.terminal_text import without_sequences

NUMBER = r"-?(?:nan|inf|\d+(?:\.\d*)?(?:e[+-]?\d+)?)"
LINE = re.compile(
    rf"^\s*(?P<epoch>\d+)/(?P<epochs>\d+)\s+[\d.]+\s?[KMGT]?i?B?\s+"
    rf"(?P<losses>(?:{NUMBER}\s+)+?)(?P<instances>\d+)\s+(?P<size>\d+):\s*\d+%.*?(?P<batch>\d+)/(?P<batches>\d+)",
    re.IGNORECASE,
)
HEADER = re.compile(r"^\s*Epoch\s+GPU_mem\s+(?P<losses>.+?)\s+Instances\s+Size\s*$")


@dataclass(frozen=True)
class LogProgress:
    """One progress line: counts from 1 as printed; `batch` 0 before the first."""

    epoch: int
    epochs: int
    batch: int
    batches: int
    losses: dict[str, float]


def read_progress(path: Path) -> LogProgress | None:
    """Return the newest progress line of a log, None where there is none or it is no regular file."""
    return parse_progress(tail_text(path))


def parse_progress(text: str) -> LogProgress | None:
    """Return the newest progress line in `text`."""
    names: list[str] = []
    found: LogProgress | None = None
    for line in re.split(r"[\r\n]+", without_sequences(text)):
        if header := HEADER.match(line):
            names = header["losses"].split()
        elif row := LINE.match(line):
            found = _progress(row, names)
    return found


def log_of(pid: int) -> Path | None:
    """Return the regular file that a process has as standard output, None where it is none."""
    link = f"/proc/{pid}/fd/1"
    try:
        place = Path(os.readlink(link))
        through, direct = os.stat(link), os.lstat(place)
    except OSError:
        return None
    same = (through.st_dev, through.st_ino) == (direct.st_dev, direct.st_ino)
    return place if same and stat.S_ISREG(direct.st_mode) else None


def _progress(row: re.Match[str], names: list[str]) -> LogProgress:
    values = [float(word) for word in row["losses"].split()]
    known = names if len(names) == len(values) else [f"loss {number}" for number in range(1, len(values) + 1)]
    return LogProgress(
        epoch=int(row["epoch"]),
        epochs=int(row["epochs"]),
        batch=int(row["batch"]),
        batches=int(row["batches"]),
        losses=dict(zip(known, values, strict=True)),
    )
