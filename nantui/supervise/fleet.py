"""All runs below a directory, read side by side: one slow disk must not make hundreds of reads wait in
line.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from nantui.run.discovery import find_runs
from nantui.run.status import RunStatus
from nantui.supervise.status import read_status

READERS = 8


def read_fleet(top: Path) -> list[RunStatus]:
    """Return the status of every run in and below `top`, in the order of their paths."""
    with ThreadPoolExecutor(READERS) as readers:
        return list(readers.map(read_status, find_runs(Path(top).resolve())))
