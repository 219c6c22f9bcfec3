"""One JSON value as the type that is expected of it, `NOT_TOLD` where it is something else.

What another version, or somebody who means no good, has put in its place counts as not told.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from types import UnionType
from typing import Any, TypeAlias, get_args, get_origin, get_type_hints

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


def fields_of(kind: Any, document: Mapping[str, Any], large: Collection[str] = ()) -> dict[str, Any]:
    """Return the fields of the dataclass `kind` that a document tells in the type that it has for them.

    Whole numbers are small ones that can be counted up to, but for the fields named in `large`.
    """
    hints, found = _hints(kind), {}
    for name in kind.__dataclass_fields__:
        known = name in document and _fits(document[name], hints[name])
        if known or (name in large and whole(document.get(name)) is not NOT_TOLD):
            found[name] = document[name]
    return found


@lru_cache(maxsize=16)
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _fits(value: object, hint: Any) -> bool:
    origin, inner = get_origin(hint), get_args(hint)
    if origin is UnionType:
        return any(_fits(value, one) for one in inner)
    if origin in (dict, Mapping):
        return isinstance(value, dict) and all(isinstance(name, str) for name in value)
    if origin in (list, tuple):
        return isinstance(value, (list, tuple)) and all(_fits(one, inner[0]) for one in value)
    if hint is int:
        return countable(value) is not NOT_TOLD
    if hint is float:
        return isinstance(value, (int, float)) and number(value) is not NOT_TOLD
    return hint is Any or isinstance(value, hint)
