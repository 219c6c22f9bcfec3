"""All runs below a directory, read side by side: on a slow disk hundreds of reads must not wait in line."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock

from nantui.run.discovery import find_runs
from nantui.run.status import RunStatus
from nantui.supervise.candidates import Candidate, candidates
from nantui.supervise.status import read_status

READERS = 8


def read_fleet(top: Path) -> list[RunStatus]:
    """Return the status of every run in and below `top`, in the order of their paths."""
    return list(each_status(top))


def each_status(top: Path) -> Iterator[RunStatus]:
    """Yield the statuses in the order of their paths, each as soon as it and those before it are read."""
    guard, seen = Lock(), list[list[Candidate]]()

    def look_once() -> list[Candidate]:
        with guard:
            if not seen:
                seen.append(candidates())
            return seen[0]

    def read(run: Path) -> RunStatus:
        return read_status(run, foreign=look_once)

    with ThreadPoolExecutor(READERS) as readers:
        yield from readers.map(read, find_runs(Path(top).resolve()))
