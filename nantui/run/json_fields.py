"""One JSON value as the type that is expected of it, `NOT_TOLD` where it is something else.

What another version, or somebody who means no good, has put in its place counts as not told.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

NOT_TOLD = object()
LARGEST_INT = 10**9
"""No epoch, step, rank or pid is larger: a larger number is nonsense, and whoever counts up to it hangs."""


def text(value: Any) -> Any:
    """Return a string."""
    return value if isinstance(value, str) else NOT_TOLD


def whole(value: Any) -> Any:
    """Return a whole number, and no boolean."""
    return value if isinstance(value, int) and not isinstance(value, bool) else NOT_TOLD


def countable(value: Any) -> Any:
    """Return a whole number that can be counted up to."""
    return value if whole(value) is not NOT_TOLD and abs(value) <= LARGEST_INT else NOT_TOLD


def number(value: Any) -> Any:
    """Return a number; JSON has no literal for one that is not finite: those are written by name."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return NOT_TOLD
    return float(value) if value in ("nan", "inf", "-inf") else NOT_TOLD


def yes_or_no(value: Any) -> Any:
    """Return a boolean."""
    return value if isinstance(value, bool) else NOT_TOLD


def mapping(value: Any) -> Any:
    """Return an object."""
    return value if isinstance(value, dict) else NOT_TOLD


def many(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return what reads a list of such values as a tuple, without those that are something else."""

    def every(value: Any) -> Any:
        if not isinstance(value, list):
            return NOT_TOLD
        return tuple(one for one in map(read, value) if one is not NOT_TOLD)

    return every
