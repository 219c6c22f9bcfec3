"""Follow a file that another process appends to, a bounded chunk at a time.

A torn last line means "not yet": it is kept back until its newline arrives. A file that shrank or was
replaced is read again from the start, and the reader says so.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nantui.run.atomic_files import open_regular

CHUNK = 1 << 20
LONGEST_LINE = 1 << 16


@dataclass(frozen=True)
class NewLines:
    """What one look at the file brought: whole lines, whether it started over, whether more is waiting."""

    lines: list[str]
    restarted: bool
    more: bool


class LineFollower:
    """Reads the lines appended to `path` since the last call. Not safe for use by two threads."""

    def __init__(self, path: Path, *, tail_bytes: int | None = None) -> None:
        """With `tail_bytes`, begin at most that many bytes before the file's end, at a line start."""
        self.path = path
        self._tail_bytes = tail_bytes
        self._identity: tuple[int, int] | None = None
        self._offset = 0
        self._torn = b""
        self._skip_first = False

    def read(self, limit: int = CHUNK) -> NewLines:
        """Return the whole lines among at most `limit` new bytes; a missing file brings none."""
        file = open_regular(self.path)
        if file is None:
            return NewLines([], False, False)
        try:
            with file:
                state = os.fstat(file.fileno())
                restarted = self._begin_if_new(state)
                file.seek(self._offset)
                data = file.read(limit)
        except OSError:
            return NewLines([], False, False)
        self._offset += len(data)
        return NewLines(self._split(data), restarted, self._offset < state.st_size)

    def _begin_if_new(self, state: os.stat_result) -> bool:
        identity = (state.st_dev, state.st_ino)
        if self._identity == identity and state.st_size >= self._offset:
            return False
        first = self._identity is None
        self._identity, self._torn = identity, b""
        self._offset = max(0, state.st_size - self._tail_bytes) if first and self._tail_bytes else 0
        self._skip_first = self._offset > 0
        return not first

    def _split(self, data: bytes) -> list[str]:
        *whole, self._torn = (self._torn + data).split(b"\n")
        if len(self._torn) > LONGEST_LINE:
            whole, self._torn = [*whole, self._torn], b""
        if self._skip_first and whole:
            whole, self._skip_first = whole[1:], False
        return [line.decode("utf-8", errors="replace") for line in whole]


def cells_of(lines: Iterable[str]) -> Iterator[list[str]]:
    """Yield the cells of each line of a CSV file; a line that cannot be one is left out.

    Each by itself, so that a stray quote costs no more than its own line. Python 3.10 refuses the zeros that
    a crash of the machine leaves in a file, and every version a cell of more than 128 KB.
    """
    for line in lines:
        try:
            yield next(csv.reader((line,)), [])
        except csv.Error:
            continue
