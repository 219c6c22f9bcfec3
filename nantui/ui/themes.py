"""Themes read from styles/themes: plain `$name: value;` lines, so that a colour is changed in one place."""

from __future__ import annotations

import re
from pathlib import Path

from textual.theme import Theme

_LINE = re.compile(r"^\$(?P<name>[a-z0-9-]+):\s*(?P<value>[^;]+);", re.MULTILINE)
NAMES = ("night", "day", "contrast", "sixteen")


def load_theme(path: Path) -> Theme:
    """Return the theme in one file; what Textual does not name itself becomes a variable of the styles."""
    values = {
        found["name"]: found["value"].strip() for found in _LINE.finditer(path.read_text(encoding="utf-8"))
    }
    return Theme(
        name=path.stem,
        primary=values["accent"],
        secondary=values["info"],
        warning=values["warning"],
        error=values["error"],
        success=values["success"],
        accent=values["accent"],
        foreground=values["foreground"],
        background=values["background"],
        surface=values["surface"],
        panel=values["panel"],
        dark=values.get("dark", "true") == "true",
        ansi=values.get("ansi") == "true",
        variables={
            **{name: value for name, value in values.items() if name not in ("dark", "ansi")},
            "scrollbar": values["rule"],
            "scrollbar-background": values["surface"],
        },
    )
