"""The first frame: which run it is and how to leave, before anything that takes long to import is there.

What is said when the terminal is too small to draw a cockpit in.
"""

from __future__ import annotations

from pathlib import Path

from textual.app import ComposeResult
from textual.screen import Screen

from nantui.ui.format import short_path
from nantui.ui.styled_text import Line, wrap
from nantui.ui.widgets.text_view import Title

KEYS: Line = [(" ?", "key"), (" help ", "muted"), (" :", "key"), (" commands ", "muted"), (" q", "key"),
              (" quit ", "muted")]  # fmt: skip
SMALLEST = (70, 20)


class FirstScreen(Screen[None]):
    """Below all others; looks like their header and key bar, with nothing between them yet."""

    def __init__(self, place: Path) -> None:
        super().__init__()
        self.place = place

    def compose(self) -> ComposeResult:
        yield Title(lambda width: self._header(), id="header")
        yield Title(lambda width: [KEYS], id="keybar")

    def _header(self) -> list[Line]:
        return [[("nantui ", "accent"), (short_path(self.place), "strong"), ("  reading..", "muted")]]


class TooSmall(Screen[None]):
    """Covers everything, and goes away by itself when there is room again."""

    def compose(self) -> ComposeResult:
        yield Title(
            lambda width: wrap(
                f"nantui needs {SMALLEST[0]} x {SMALLEST[1]}, this terminal is {self.app.size.width} x "
                f"{self.app.size.height}. Enlarge it, or press q; the training goes on.", width,
            ),
            id="too-small",
        )  # fmt: skip


def fits(width: int, height: int) -> bool:
    """Tell whether the screens can be drawn in this many cells."""
    return width >= SMALLEST[0] and height >= SMALLEST[1]
