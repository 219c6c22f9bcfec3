"""From text to values, the way the `yolo` command reads them, and back to text for people.

A value typed into nantui must mean what it means in `yolo train key=value`; otherwise somebody copies a
line from one to the other and trains something else.
"""

from __future__ import annotations

import ast
from typing import Any, TypeGuard

WORDS = {"none": None, "true": True, "false": False}
VERBATIM = {"name", "project"}


def parse_value(name: str, text: str) -> Any:
    """Return the value that `yolo train NAME=TEXT` would train with.

    Like `ultralytics.cfg.parse_key_value_pair`: None, True and False in any case, then any Python
    literal, else the text itself; `name` and `project` stay text.
    """
    text = text.strip()
    if text.lower() == "none":
        return None
    if name in VERBATIM:
        return text
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def show_value(value: Any) -> str:
    """Return `value` as a person would type it: 0.00001 rather than 1e-05, True, None, bf16."""
    if isinstance(value, bool) or not isinstance(value, float):
        return str(value)
    if value == 0 or value != value or value in (float("inf"), float("-inf")):
        return f"{value:g}"
    if 1e-7 <= abs(value) < 1e7:
        return f"{value:.10f}".rstrip("0").rstrip(".")
    return f"{value:g}"


def same_value(one: Any, other: Any) -> bool:
    """Tell whether two settings mean the same to Ultralytics: 50 and 50.0 do, True and 1 do not."""
    if isinstance(one, bool) != isinstance(other, bool):
        return False
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return list(one) == list(other)
    return bool(one == other)


def is_number(value: Any) -> TypeGuard[int | float]:
    """Tell whether `value` is a real number; True and False are not."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
