"""Text to read and scroll: headings, paragraphs, tables, as lines that are made for a width.

A heading that is made from a function, for screens that have one line to say on top.
"""

from __future__ import annotations

from collections.abc import Callable

from textual.geometry import Size

from nantui.ui.styled_text import Line, fit
from nantui.ui.widgets.line_widget import LinesWidget
from nantui.ui.widgets.list_view import Listing
from nantui.words import count

Write = Callable[[int], list[Line]]


class Document(Listing):
    """Shows what `write(width)` returns; made again when the width changes."""

    def __init__(self, *, id: str | None = None, write: Write, tells_more: bool = False) -> None:
        """With `tells_more` the last visible line says how much is out of sight below."""
        super().__init__(id=id, empty="")
        self._tells_more = tells_more
        self._write = write
        self._made: list[Line] = []

    def remake(self) -> None:
        """Make the text again: what it is made from has changed."""
        width = self.scrollable_content_region.width - 1  # beside a scroll bar
        if width > 0:
            self._made = self._write(width)
            self.show(range(len(self._made)), lambda row, cells: self._made[row])

    def on_resize(self) -> None:
        self._shown.clear()
        self.remake()

    def _line(self, y: int, top: int, width: int) -> Line:
        height = self.scrollable_content_region.height
        below = self.rows - top - height
        if self._tells_more and below > 0 and y == height - 1:
            told = f"{self.glyphs.then} {count(below + 1, 'more line')} below: PgDn"
            return [(told.rjust(width - self.show_vertical_scrollbar), "warn")]
        return super()._line(y, top, width)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._write(max(1, width - 1)))

    def action_move(self, by: int) -> None:
        self.scroll_relative(y=by, animate=False)

    def action_page(self, by: int) -> None:
        self.scroll_relative(y=by * max(1, self.size.height - 1), animate=False)

    def action_edge(self, end: int) -> None:
        self.scroll_to(y=self.virtual_size.height if end else 0, animate=False)

    def under_cursor(self) -> bool:
        """A text has no cursor row."""
        return False


class Title(LinesWidget):
    """Shows what `make(width)` returns."""

    def __init__(self, make: Callable[[int], list[Line]], *, id: str = "title") -> None:
        super().__init__(id=id)
        self._make = make

    def build(self, width: int, height: int) -> list[Line]:
        return [fit(line, width) for line in self._make(width)][:height]
