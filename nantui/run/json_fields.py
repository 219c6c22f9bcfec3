"""One JSON value as the type that is expected of it, `NOT_TOLD` where it is something else.

What another version, or somebody who means no good, has put in its place counts as not told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Reader: TypeAlias = Callable[[object], object]
NOT_TOLD = object()
LARGEST_INT = 10**9
"""No epoch, step, rank or pid is larger: a larger number is nonsense, and whoever counts up to it hangs."""


def text(value: object) -> object:
    """Return a string."""
    return value if isinstance(value, str) else NOT_TOLD


def whole(value: object) -> object:
    """Return a whole number, and no boolean."""
    return value if isinstance(value, int) and not isinstance(value, bool) else NOT_TOLD


def countable(value: object) -> object:
    """Return a whole number that can be counted up to."""
    found = whole(value)
    return found if isinstance(found, int) and abs(found) <= LARGEST_INT else NOT_TOLD


def number(value: object) -> object:
    """Return a number; JSON has no literal for one that is not finite: those are written by name."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return NOT_TOLD
    return float(value) if isinstance(value, str) and value in ("nan", "inf", "-inf") else NOT_TOLD


def yes_or_no(value: object) -> object:
    """Return a boolean."""
    return value if isinstance(value, bool) else NOT_TOLD


def mapping(value: object) -> object:
    """Return an object."""
    return value if isinstance(value, dict) else NOT_TOLD


def many(read: Reader) -> Reader:
    """Return what reads a list of such values as a tuple, without those that are something else."""

    def every(value: object) -> object:
        if not isinstance(value, list):
            return NOT_TOLD
        return tuple(one for one in map(read, value) if one is not NOT_TOLD)

    return every
