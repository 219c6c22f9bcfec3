"""A list of rows with a cursor: only visible rows are drawn, only changed rows repainted,
arrows and vi keys.
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
from textual.strip import Strip

from nantui.ui.styled_text import Line, fit, spread
from nantui.ui.textual_internals import update_scrollbars
from nantui.ui.widgets.line_widget import Inked, changed_runs

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
        Binding("up,k", "move(-1)", "up", show=False),
        Binding("down,j", "move(1)", "down", show=False),
        Binding("pageup,ctrl+b", "page(-1)", "page up", show=False),
        Binding("pagedown,ctrl+f", "page(1)", "page down", show=False),
        Binding("home,g", "edge(0)", "first", show=False),
        Binding("end,G", "edge(1)", "last", show=False),
        Binding("enter", "choose", "open", show=False),
    ]
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
        self._shown: dict[int, Line] = {}
        self.header: Line | None = header
        self.empty = empty
        self.follow = self.follows
        self.keeps_first = False

    @property
    def head(self) -> int:
        """How many lines the heading takes."""
        return 1 if self.header is not None else 0

    @property
    def key(self) -> object | None:
        """The key of the row under the cursor."""
        return self._keys[self.cursor] if 0 <= self.cursor < len(self._keys) else None

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self._keys)

    def text_of(self, row: int) -> str:
        """Return what is in a row."""
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
        if 0 <= self.cursor < len(self._keys) and self._keys[self.cursor] == key:
            return self.cursor
        try:
            return list(self._keys).index(key)
        except ValueError:
            return max(0, min(self.cursor, len(self._keys) - 1))

    def redraw(self) -> None:
        """Repaint the visible rows that differ from what is on the screen."""
        size = self.scrollable_content_region.size
        top = self.scroll_offset.y
        changed = []
        for y in range(size.height):
            line = self._line(y, top, size.width)
            before = self._shown.get(y)
            if before != line:
                self._shown[y] = line
                runs = [(0, size.width)] if before is None else changed_runs(before, line, size.width)
                changed += [Region(start, y, end - start, 1) for start, end in runs]
        if changed:
            self.refresh(*changed)

    def recolour(self) -> None:
        self._shown.clear()
        self.refresh()

    def _line(self, y: int, top: int, width: int) -> Line:
        width -= self.show_vertical_scrollbar  # text does not touch the bar
        if self.head and y == 0:
            return fit(self.heading(width), width)
        row = y + top - self.head
        if not self._keys:
            return [(self.empty, "muted")] if row == 0 else []
        return self._draw(row, width) if 0 <= row < len(self._keys) else []

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        top = self.scroll_offset.y
        line = self._line(y, top, width)
        self._shown[y] = line
        row = y + top - self.head
        here = self.under_cursor() and bool(self._keys) and row == self.cursor and y >= self.head
        under = ("cursor" if self.has_focus else "chosen") if here else ""
        return self.to_strip(line, width, under)

    def heading(self, width: int) -> Line:
        """Return the line above the rows."""
        return spread(self.header, [], width, self.glyphs.rule) if self.header else []

    def under_cursor(self) -> bool:
        """Whether the row under the cursor is set off."""
        return True

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
        if height <= 0:
            return
        if row < top:
            self.scroll_to(y=row, animate=False, immediate=True, force=True)
        elif row >= top + height:
            self.scroll_to(y=row - height + 1, animate=False, immediate=True, force=True)

    def go(self, row: int) -> None:
        """Put the cursor on `row`, as near as there are rows, and show it."""
        self.cursor = max(0, min(row, len(self._keys) - 1))
        self._reveal(self.cursor)
        self.follow = self.follows and self.cursor >= self.rows - 1

    def watch_has_focus(self, has_focus: bool) -> None:
        super().watch_has_focus(has_focus)
        self._repaint_row(self.cursor)

    def on_resize(self) -> None:
        self._shown.clear()
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
