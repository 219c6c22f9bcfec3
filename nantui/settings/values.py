"""From text to values, the way the `yolo` command reads them, and back to text for people.

A value typed into nantui must mean what it means in `yolo train key=value`; otherwise somebody copies a
line from one to the other and trains something else. What changes between two sets of values is a list of
rows (parameter, now, then, why), shown as a table or as Python for one's own script.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable
from typing import Any, TypeGuard

from nantui.run.documents import Settings
from nantui.run.events import Change

WORDS = {"none": None, "true": True, "false": False}
VERBATIM = {"name", "project"}


def parse_value(name: str, text: str) -> object:
    """Return the value that `yolo train NAME=TEXT` would train with.

    Like `ultralytics.cfg.parse_key_value_pair`: None, True and False in any case, then any Python
    literal, else the text itself; `name` and `project` stay text.
    """
    text = text.strip()
    if text.lower() in (WORDS if name not in VERBATIM else {"none"}):
        return WORDS[text.lower()]
    if name in VERBATIM:
        return text
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def show_value(value: object) -> str:
    """Return `value` as a person would type it: 0.00001 rather than 1e-05, True, None, bf16."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    if value == 0 or value != value or value in (float("inf"), float("-inf")):
        return f"{value:g}"
    if 1e-7 <= abs(value) < 1e7:
        return f"{value:.10f}".rstrip("0").rstrip(".")
    return f"{value:g}"


def same_value(one: object, other: object) -> bool:
    """Tell whether two settings mean the same to Ultralytics: 50 and 50.0 do, True and 1 do not."""
    if isinstance(one, bool) != isinstance(other, bool):
        return False
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return list(one) == list(other)
    return bool(one == other)


def is_number(value: object) -> TypeGuard[int | float]:
    """Tell whether `value` is a real number; True and False are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def number(value: Any) -> float:
    """Return `value` as a float, NaN where it is none."""
    try:
        return math.nan if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return math.nan


def cells(change: Change) -> tuple[str, str, str, str]:
    """Return parameter, now, then and why of a row as text."""
    return change.name, show_value(change.now), show_value(change.then), change.why


def compare(one: Settings, other: Settings, why: str = "") -> list[Change]:
    """Return a row for every setting in which two runs differ, also where only one of them has it."""
    return [
        Change(name, one.get(name), other.get(name), why)
        for name in dict.fromkeys([*one, *other])
        if name not in one or name not in other or not same_value(one[name], other[name])
    ]


def differences(now: Settings, then: Settings, why: str = "asked for") -> list[Change]:
    """Return a row for every setting of `then` that differs from `now`, in the order of `then`."""
    return compare({name: now.get(name) for name in then}, then, why)


def merge(*layers: Iterable[Change]) -> list[Change]:
    """Return one row per setting from several layers of changes, where a later layer sees the earlier ones.

    The first `now` and the last `then` count; a setting that ends where it began drops out, unless it was
    kept on purpose.
    """
    rows: dict[str, Change] = {}
    for change in (change for layer in layers for change in layer):
        earlier = rows.get(change.name)
        if earlier is None or (earlier.kept and change.kept):
            rows[change.name] = change
        elif not change.kept:
            rows[change.name] = Change(change.name, earlier.now, change.then, change.why)
    return [row for row in rows.values() if row.kept or not same_value(row.now, row.then)]


def changed(changes: Iterable[Change]) -> dict[str, object]:
    """Return {name: new value} of the rows that change something."""
    return {change.name: change.then for change in changes if not change.kept}


def as_python(changes: Iterable[Change]) -> str:
    """Return the changed settings as Python, ready for `model.train(**settings)` in one's own script."""
    lines = [f"    {row.name}={row.then!r},  # was {row.now!r}" for row in changes if not row.kept]
    return "\n".join(["settings = dict(", *lines, ")"]) if lines else "settings = dict()"
