"""What the cockpit remembers between sessions: the theme, and whether the terminal has the glyphs."""

from __future__ import annotations

import contextlib
import os

from nantui.paths import user_config_dir
from nantui.run.atomic_files import read_json, write_json

FILE = "cockpit.json"


def load() -> dict[str, object]:
    """Return what was remembered, empty the first time."""
    return read_json(user_config_dir() / FILE) or {}


def save(**changes: object) -> None:
    """Remember some more; a home that cannot be written to is no reason to complain."""
    with contextlib.suppress(OSError):
        user_config_dir().mkdir(parents=True, exist_ok=True)
        write_json(user_config_dir() / FILE, {**load(), **changes})


def wants_ascii(asked: bool) -> bool:
    """Tell whether to draw in ASCII: asked for now, by NANTUI_ASCII, or remembered."""
    told = os.environ.get("NANTUI_ASCII")
    if asked or told:
        return asked or told != "0"
    return bool(load().get("ascii", False))
