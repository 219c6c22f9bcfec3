"""Values that stay the very same object while what they are made from is unchanged, so that `is` tells what
to draw again, and what grows on disk is read once.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar, cast

from nantui.run.atomic_files import Identity, identity
from nantui.run.events import Event, parse_lines
from nantui.run.growing_files import LineFollower
from nantui.run.results import EpochRow, Results

MOST_EVENTS = 4000
T = TypeVar("T")


class Cached(Generic[T]):
    """A value with what it was made from."""

    def __init__(self) -> None:
        self._of: tuple[object, ...] | None = None
        self._value: T | None = None

    def get(self, make: Callable[[], T], *of: object) -> T:
        """Return the value, made anew where one of `of` has changed; one that comes out equal stays."""
        if self._of != of:
            self._of, made = of, make()
            self._value = made if made != self._value else self._value
        return cast(T, self._value)


class Watched:
    """A value made from a file or folder."""

    def __init__(self, path: Path, make: Callable[[Path], Any], empty: object) -> None:
        self._path, self._make, self._value = path, make, empty
        self._seen: Identity = None

    def get(self) -> Any:
        """Return the value."""
        now = identity(self._path)
        if now != self._seen:
            self._value = self._make(self._path)
            self._seen = now
        return self._value


class EventLog:
    """The events of a growing JSON-lines file, oldest first, the newest few thousand of them."""

    def __init__(self, path: Path) -> None:
        self._lines = LineFollower(path, tail_bytes=4 << 20)
        self.events: tuple[Event, ...] = ()

    def read(self) -> tuple[Event, ...]:
        """Return all events."""
        new = self._lines.read()
        if new.restarted:
            self.events = ()
        if found := parse_lines(new.lines):
            self.events = (*self.events, *found)[-MOST_EVENTS:]
        return self.events


class EpochTable:
    """The epochs of a growing results.csv."""

    def __init__(self, path: Path) -> None:
        self._lines = LineFollower(path)
        self._results = Results()
        self.rows: tuple[EpochRow, ...] = ()

    def read(self) -> tuple[EpochRow, ...]:
        """Return all epochs that are whole."""
        more, changed = True, False
        while more:
            new = self._lines.read()
            if new.restarted:
                self._results = Results()
            self._results.feed(new.lines)
            changed = changed or new.restarted or bool(new.lines)
            more = new.more and bool(new.lines)
        if changed:
            self.rows = tuple(self._results.rows)
        return self.rows
