"""A list of rows with a cursor, and a text to scroll: arrows and vi keys; only visible rows are drawn, only
changed ones repainted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from textual.binding import Binding
from textual.events import Click
from textual.geometry import Region, Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.scrollbar import ScrollBar, ScrollBarRender

from nantui.ui.styled_text import Line, fit, spread
from nantui.ui.textual_internals import update_scrollbars
from nantui.ui.widgets.line_widget import Inked, Write
from nantui.words import count

WIDE = 400
Draw = Callable[[int, int], Line]


class PlainScrollBar(ScrollBarRender):
    """A scroll bar of spaces only: the usual eighth blocks have an ambiguous width."""

    VERTICAL_BARS: ClassVar[list[str]] = [" "]
    HORIZONTAL_BARS: ClassVar[list[str]] = [" "]


ScrollBar.renderer = PlainScrollBar


class Listing(Inked, ScrollView, can_focus=True):
    """Rows with keys. `draw(row, width)` returns a row; rows are asked for only when they are seen.

    The cursor stays on its key; with `follow` on the last row, with `keeps_first` on the first once it is
    there, whichever rows come before it. One that `follows` does so until the cursor is moved up.
    """

    follows = False

    BINDINGS = [
        Binding("up,k", "move(-1)", "up", show=False), Binding("down,j", "move(1)", "down", show=False),
        Binding("pageup,ctrl+b", "page(-1)", "page up", show=False),
        Binding("pagedown,ctrl+f", "page(1)", "page down", show=False),
        Binding("home,g", "edge(0)", "first", show=False), Binding("end,G", "edge(1)", "last", show=False),
        Binding("enter", "choose", "open", show=False),
    ]  # fmt: skip
    cursor: reactive[int] = reactive(0, repaint=False)
    # Textual lays the whole screen out again, and repaints it, for each row more; only the bar has changed.
    virtual_size: reactive[Size] = reactive(Size(0, 0), repaint=False)

    @dataclass
    class Moved(Message):
        """The cursor stands on another row."""

        listing: Listing
        row: int

    class Chosen(Moved):
        """Enter was pressed on a row."""

    def __init__(
        self, *, id: str | None = None, header: Line | None = None, empty: str = "nothing here yet"
    ) -> None:
        super().__init__(id=id)
        self._keys: Sequence[object] = ()
        self._draw: Draw = lambda row, width: []
        self.header: Line | None = header
        self.empty = empty
        self.follow = self.follows
        self.keeps_first = False

    @property
    def head(self) -> int:
        return 1 if self.header is not None else 0

    @property
    def key(self) -> object | None:
        return self._keys[self.cursor] if 0 <= self.cursor < len(self._keys) else None

    @property
    def rows(self) -> int:
        return len(self._keys)

    def text_of(self, row: int) -> str:
        return "".join(text for text, _ in self._draw(row, WIDE))

    def show(self, keys: Sequence[object], draw: Draw) -> None:
        """Show these rows; the cursor stays on its key, or at the end while following."""
        before, self._draw = self.key, draw
        self._keys = keys
        self.virtual_size = Size(self.size.width, len(keys) + self.head)
        stood, self.cursor = self.cursor, self._find(before)
        if self.follow or stood != self.cursor:
            self._reveal(self.cursor)
        self.redraw()

    def watch_virtual_size(self, _before: Size, now: Size) -> None:
        update_scrollbars(self, now)

    def _find(self, key: object | None) -> int:
        if self.follow:
            return max(0, len(self._keys) - 1)
        if self.keeps_first and self.cursor == 0:
            return 0
        if self.key == key:
            return self.cursor
        row = next((row for row, one in enumerate(self._keys) if one == key), self.cursor)
        return max(0, min(row, len(self._keys) - 1))

    def line_at(self, y: int, width: int) -> Line:
        width -= self.show_vertical_scrollbar  # text does not touch the bar
        if self.head and y == 0:
            return fit(self.heading(width), width)
        row = y + self.scroll_offset.y - self.head
        if not self._keys:
            return [(self.empty, "muted")] if row == 0 else []
        return self._draw(row, width) if 0 <= row < len(self._keys) else []

    def ground(self, y: int) -> str:
        here = y >= self.head and y + self.scroll_offset.y - self.head == self.cursor < self.rows
        return "" if not here else "cursor" if self.has_focus else "chosen"

    def heading(self, width: int) -> Line:
        return spread(self.header, [], width, self.glyphs.rule) if self.header else []

    def watch_cursor(self, before: int, now: int) -> None:
        self._repaint_row(before)
        self._repaint_row(now)
        if before != now:
            self.post_message(self.Moved(self, now))

    def _repaint_row(self, row: int) -> None:
        y = row + self.head - self.scroll_offset.y
        if self.head <= y < self.size.height:
            self.refresh(Region(0, y, self.size.width, 1))

    def _reveal(self, row: int) -> None:
        height = self.size.height - self.head
        top = self.scroll_offset.y
        wanted = min(row, max(top, row - height + 1))
        if height > 0 and wanted != top:
            self.scroll_to(y=wanted, animate=False, immediate=True, force=True)

    def go(self, row: int) -> None:
        self.cursor = max(0, min(row, len(self._keys) - 1))
        self._reveal(self.cursor)
        self.follow = self.follows and self.cursor >= self.rows - 1

    def watch_has_focus(self, has_focus: bool) -> None:
        super().watch_has_focus(has_focus)
        self._repaint_row(self.cursor)

    def on_resize(self) -> None:
        self.shown.clear()
        self.virtual_size = Size(self.size.width, len(self._keys) + self.head)
        self._reveal(self.cursor)

    def on_click(self, event: Click) -> None:
        row = event.y + self.scroll_offset.y - self.head
        if 0 <= row < len(self._keys):
            again = row == self.cursor
            self.go(row)
            if again:
                self.action_choose()

    def action_move(self, by: int) -> None:
        self.go(self.cursor + by)

    def action_page(self, by: int) -> None:
        self.go(self.cursor + by * max(1, self.size.height - self.head - 1))

    def action_edge(self, end: int) -> None:
        self.go(len(self._keys) - 1 if end else 0)

    def action_choose(self) -> None:
        if self._keys:
            self.post_message(self.Chosen(self, self.cursor))


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
        self.shown.clear()
        self.remake()

    def line_at(self, y: int, width: int) -> Line:
        height = self.scrollable_content_region.height
        below = self.rows - self.scroll_offset.y - height
        if self._tells_more and below > 0 and y == height - 1:
            told = f"{self.glyphs.then} {count(below + 1, 'more line')} below: PgDn"
            return [(told.rjust(width - self.show_vertical_scrollbar), "warn")]
        return super().line_at(y, width)

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._write(max(1, width - 1)))

    def action_move(self, by: int) -> None:
        self.scroll_relative(y=by, animate=False)

    def action_page(self, by: int) -> None:
        self.scroll_relative(y=by * max(1, self.size.height - 1), animate=False)

    def action_edge(self, end: int) -> None:
        self.scroll_to(y=self.virtual_size.height if end else 0, animate=False)

    def ground(self, y: int) -> str:
        return ""
