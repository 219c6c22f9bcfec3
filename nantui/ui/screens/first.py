"""The first frame: which run it is and how to leave, before anything that takes long to import is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.app import ComposeResult
from textual.screen import Screen

from nantui.ui.format import short_path
from nantui.ui.ink import Line
from nantui.ui.widgets.title import Title

if TYPE_CHECKING:
    from pathlib import Path

KEYS: Line = [(" ?", "key"), (" help ", "muted"), (" :", "key"), (" commands ", "muted"), (" q", "key"),
              (" quit ", "muted")]  # fmt: skip


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
