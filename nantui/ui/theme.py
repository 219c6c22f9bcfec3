"""Themes read from styles/themes: plain `$name: values;` lines, so that a colour is changed in one place.

A terminal with 256 colours shows the nearest it has: three dark grounds would all be black. With sixteen a
light theme would have no colour that can be read. So each colour is said for each number of colours.

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
AS_TEXTUAL = ("warning", "error", "success", "accent", "foreground", "background", "surface", "panel")
"""Colours that Textual calls so, too."""
DEPTHS = (1 << 24, 256, 16)
"""Numbers of colours, in the order in which a theme has its values."""
CLASSES = {f"ink--{ink}" for ink in INKS}


def depth_of(color_system: str | None, no_color: bool) -> int:
    """Return how many colours to draw with; Rich says what the terminal has, None where it has none."""
    if no_color or color_system in (None, "standard", "windows"):
        return 16
    return 256 if color_system == "256" else 1 << 24


def load_theme(path: Path, depth: int = DEPTHS[0]) -> Theme:
    """Return the theme in one file, for a terminal of `depth` colours; what Textual does not name itself
    becomes a variable of the styles.
    """
    values = _values(path, depth)
    if ansi := values["foreground"].startswith("ansi_"):
        values |= _values(path.with_name("terminal.tcss"), depth)
    dark = values.pop("dark", "true") == "true"
    bars = {"scrollbar": values["rule"], "scrollbar-background": values["surface"]}
    return Theme(
        name=path.stem, primary=values["accent"], secondary=values["info"], dark=dark, ansi=ansi,
        variables={**values, **bars},
        **{name: values[name] for name in AS_TEXTUAL},  # type: ignore[arg-type]
    )  # fmt: skip


def _values(path: Path, depth: int) -> dict[str, str]:
    found = {line["name"]: line["value"].split() for line in _LINE.finditer(path.read_text(encoding="utf-8"))}
    return {name: values[min(DEPTHS.index(depth), len(values) - 1)] for name, values in found.items()}


class Palette(dict[str, Style]):
    """Rich styles by ink, emptied when the theme changes, made of a component class's styles."""

    def __init__(self, styles_of: Callable[[str], RenderStyles]) -> None:
        super().__init__()
        self._styles_of = styles_of

    def __missing__(self, ink: str) -> Style:
        style = self[ink] = self._styles_of(f"ink--{ink or 'text'}").partial_rich_style
        return style
