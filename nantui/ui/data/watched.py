"""What is made from a file, made anew only when the file has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Identity = tuple[int, int, int] | None


def identity(path: Path) -> Identity:
    """Return what changes when a file does (inode, size, ns of modification), None when it is missing."""
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_ino, state.st_size, state.st_mtime_ns


class Watched:
    """A value made from a file or folder."""

    def __init__(self, path: Path, make: Callable[[Path], Any], empty: Any) -> None:
        self._path, self._make, self._value = path, make, empty
        self._seen: Identity = None

    def get(self) -> Any:
        """Return the value; the same object while nothing changed."""
        now = identity(self._path)
        if now != self._seen:
            self._value = self._make(self._path)
            self._seen = now
        return self._value
