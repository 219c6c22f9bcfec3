"""What is made from a file, made anew only when the file has changed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from nantui.run.files import Identity, identity


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
