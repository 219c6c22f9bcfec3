"""Files that another process appends to for days: followed a bounded chunk at a time, or their end alone.

A torn last line means "not yet": it is kept back until its newline arrives. A file that shrank or was
replaced is read again from the start, and the reader says so.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nantui.run.atomic_files import open_regular, read_owned

CHUNK = 1 << 20
TAIL, LOG_TAIL, LONGEST_LINE = 8192, 1 << 16, 1 << 16


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

    def read_all(self) -> list[str]:
        """Return all whole lines that are new."""
        lines, more = list[str](), True
        while more:
            new = self.read()
            lines, more = lines + new.lines, new.more
        return lines

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


def last_lines(path: Path, size: int = TAIL) -> list[str]:
    """Return the whole lines among the last `size` bytes; a torn last line is left out."""
    data, cut = read_end(path, size)
    lines = data[: data.rfind(b"\n") + 1].decode("utf-8", errors="replace").splitlines()
    return lines[1:] if cut else lines


def first_line(path: Path) -> str:
    """Return the first line of a file, empty where there is none."""
    return head(path, LONGEST_LINE).partition("\n")[0]


def tail_text(path: Path, size: int = LOG_TAIL) -> str:
    """Return the end of a regular file, opened without following a link and without blocking; else empty."""
    return read_end(path, size, os.O_NOFOLLOW)[0].decode("utf-8", errors="replace")


def head(path: Path, size: int) -> str:
    """Return the first `size` bytes of a regular file, empty where there is none."""
    found = read_owned(path, size - 1)
    return found[0].decode("utf-8", errors="replace") if found else ""


def read_end(path: Path, size: int, flags: int = 0) -> tuple[bytes, bool]:
    """Return the last `size` bytes of a regular file, and whether something stands before them."""
    file = open_regular(path, flags)
    if file is None:
        return b"", False
    with file:
        whole = os.fstat(file.fileno()).st_size
        file.seek(max(0, whole - size))
        return file.read(size), whole > size
