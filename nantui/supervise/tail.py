"""The end of files that grow for days, without reading them whole."""

from __future__ import annotations

import os
from pathlib import Path

from nantui.run.steps import Step, StepFollower

HEADER, TAIL = 4096, 8192


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
    try:
        with path.open("rb") as file:
            return file.read(HEADER).partition(b"\n")[0].decode("utf-8", errors="replace")
    except OSError:
        return ""


def last_step(path: Path) -> Step | None:
    """Return the newest step of a steps.csv, None where there is none yet."""
    steps = StepFollower(path)._parse([first_line(path), *last_lines(path)])
    return steps[-1] if steps else None
