"""Themes read from styles/themes: plain `$name: value;` lines, so that a colour is changed in one place.

The colours of the inks, asked of the styles once for the whole app.

As component classes of every widget they would be worked out again for each widget whenever anything of a
screen changes its classes: a quarter of the time until the first frame.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from rich.style import Style
from textual.css.styles import RenderStyles
from textual.theme import Theme

from nantui.ui.styled_text import INKS

_LINE = re.compile(r"^\$(?P<name>[a-z0-9-]+):\s*(?P<value>[^;]+);", re.MULTILINE)
NAMES = ("night", "day", "contrast", "sixteen")
CLASSES = {f"ink--{ink}" for ink in INKS}


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


class Palette:
    """Rich styles by ink; `styles_of` returns what the style sheets say about a component class."""

    def __init__(self, styles_of: Callable[[str], RenderStyles]) -> None:
        self._styles_of = styles_of
        self._known: dict[str, Style] = {}

    def __getitem__(self, ink: str) -> Style:
        """Return the style of an ink; text without one is plain text."""
        if ink not in self._known:
            self._known[ink] = self._styles_of(f"ink--{ink or 'text'}").partial_rich_style
        return self._known[ink]

    def forget(self) -> None:
        """Ask again: the theme has changed."""
        self._known.clear()
