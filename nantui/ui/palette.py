"""The colours of the inks, asked of the styles once for the whole app.

As component classes of every widget they would be worked out again for each widget whenever anything of a
screen changes its classes: a quarter of the time until the first frame.
"""

from __future__ import annotations

from collections.abc import Callable

from rich.style import Style
from textual.css.styles import RenderStyles

from nantui.ui.ink import INKS

CLASSES = {f"ink--{ink}" for ink in INKS}


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
