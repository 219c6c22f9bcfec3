"""Lines of a log, the newest hundred thousand of them.

The last lines of the training's output, where the screen is large enough for them.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right

from rich.cells import chop_cells

from nantui.ui.format import clean, without_pictures
from nantui.ui.styled_text import Line, fit, spread
from nantui.ui.widgets.line_widget import LinesWidget
from nantui.ui.widgets.list_view import Listing
from nantui.words import count

NAN = re.compile(r"(?<![a-z])(nan|inf)(?![a-z])", re.IGNORECASE)
MOST_LINES, LONGEST, SIDEWAYS = 100_000, 4000, 20


class Output(LinesWidget):
    """Newest line at the bottom."""

    def __init__(self) -> None:
        super().__init__(id="output", classes="panel")
        self.tail: tuple[str, ...] = ()

    def show(self, tail: tuple[str, ...]) -> None:
        """Draw other lines."""
        if tail != self.tail:
            self.tail = tail
            self.redraw()

    def build(self, width: int, height: int) -> list[Line]:
        head: Line = [("output", "title"), ("   o opens it", "faint")]
        lines = [spread(head, [], width, self.glyphs.rule)]
        for text in self.tail[-(height - 1) :] if height > 1 else ():
            text = " ".join(without_pictures(clean(text, 600)).split())
            lines.append(fit([(text, "bad" if NAN.search(text) else "muted")], width))
        return lines


class LogList(Listing):
    """Follows the end until the cursor is moved up. Lines are cut at the edge, moved sideways or wrapped."""

    follows = True

    def __init__(self) -> None:
        super().__init__(id="log", empty="nothing was written yet")
        self._text: list[str] = []
        self._dropped = 0
        self._parts: list[tuple[int, int]] = []
        self._wrapped_for = 0
        self._matches: list[int] = []
        self.wanted = ""
        self.wraps, self.left = False, 0

    def clear(self) -> None:
        """Forget every line: another log follows."""
        self._text, self._parts, self._matches, self._dropped = [], [], [], 0
        self.follow, self.cursor = True, 0
        self.lay_out()

    def add(self, lines: list[str], restarted: bool) -> None:
        """Take new lines; a progress bar rewrites its line with carriage returns,
        of which the last counts.
        """
        if restarted:
            self.clear()
        first = self._dropped + len(self._text)
        self._text += [line.rstrip("\r").rpartition("\r")[2] for line in lines]
        if len(self._text) > MOST_LINES:
            self._dropped += len(self._text) - MOST_LINES
            del self._text[: len(self._text) - MOST_LINES]
        self._count(first)
        self.lay_out(first)

    def search(self, wanted: str) -> None:
        """Look for another text."""
        self.wanted = wanted
        self._count(0)
        self.recolour()

    def _count(self, first: int) -> None:
        """Note the lines from number `first` on that have the wanted text."""
        wanted, first = self.wanted.lower(), max(first, self._dropped)
        self._matches = [number for number in self._matches if self._dropped <= number < first]
        fresh = enumerate(self._text[first - self._dropped :], first)
        self._matches += [number for number, text in fresh if wanted and wanted in text.lower()]

    @property
    def _end(self) -> int:
        return self._dropped + len(self._text)

    def lay_out(self, first: int = 0) -> None:
        """Lay out the lines from number `first` on; all of them where the width has changed."""
        if not self.wraps:
            self.show(range(self._dropped, self._end), self._row)
            return
        width = self.scrollable_content_region.width - 1  # beside a scroll bar
        if width != self._wrapped_for or (self._parts and self._parts[0][0] < self._dropped):
            self._parts, self._wrapped_for, first = [], width, 0
        numbers = range(max(first, self._dropped), self._end) if width > 0 else ()
        self._parts += [(number, part) for number in numbers for part in range(len(self._in_parts(number)))]
        self.show(self._parts, self._row)

    def on_resize(self) -> None:
        super().on_resize()
        if self.wraps and self.scrollable_content_region.width - 1 != self._wrapped_for:
            self.lay_out()

    def _in_parts(self, number: int) -> list[str]:
        return chop_cells(self.line(number), max(8, self._wrapped_for)) or [""]

    def line(self, number: int) -> str:
        """Return the line with this number as it is shown."""
        return without_pictures(clean(self._text[number - self._dropped], LONGEST))

    @property
    def number(self) -> int:
        """The number of the line under the cursor."""
        return self._number_at(self.cursor)

    def _number_at(self, row: int) -> int:
        return self._parts[row][0] if self.wraps and row < len(self._parts) else self._dropped + row

    def _row_of(self, number: int) -> int:
        return bisect_left(self._parts, (number, 0)) if self.wraps else number - self._dropped

    def wrap(self) -> None:
        """Break long lines, or cut them; the cursor stays on its line."""
        number, follow = self.number, self.follow
        self.wraps, self.left, self._parts = not self.wraps, 0, []
        self.lay_out()
        self.go(self._row_of(number))
        self.follow = follow
        self.recolour()

    def sideways(self, by: int) -> None:
        """Show what is further to the right, or to the left."""
        self.left = 0 if self.wraps else max(0, self.left + by * SIDEWAYS)
        self.recolour()

    def state(self) -> str:
        """Say how many lines there are, whether the end is followed, and how many have the wanted text."""
        told = [count(len(self._text), "line"), "following" if self.follow else "held"]
        told += ["wrapped"] if self.wraps else [f"from column {self.left + 1}"] if self.left else []
        if self.wanted:
            at = bisect_left(self._matches, self.number)
            here = at < len(self._matches) and self._matches[at] == self.number
            place = f"match {at + 1} of {len(self._matches)}" if here else count(len(self._matches), "line")
            told.append(f"{place} with {self.wanted!r}")
        return ", ".join(told)

    def _row(self, row: int, width: int) -> Line:
        number = self._number_at(row)
        line = self._in_parts(number)[self._parts[row][1]] if self.wraps else self.line(number)
        text = line[self.left :]
        ink = "bad" if NAN.search(text) else "text"
        if self.wanted and (start := text.lower().find(self.wanted.lower())) >= 0:
            end = start + len(self.wanted)
            return fit([(text[:start], ink), (text[start:end], "pill-warn"), (text[end:], ink)], width)
        return fit([(text, ink)], width)

    def find(self, direction: int) -> bool:
        """Go to the next line that has the wanted text, around the ends; False when no other has it."""
        if not self._matches:
            return False
        at = (bisect_right if direction > 0 else bisect_left)(self._matches, self.number)
        self._go_to(self._matches[(at if direction > 0 else at - 1) % len(self._matches)])
        return True

    def find_nan(self) -> bool:
        """Go to the next line that has a NaN."""
        here = self.number + 1
        for number in (*range(here, self._end), *range(self._dropped, here)):
            if NAN.search(self._text[number - self._dropped]):
                self._go_to(number)
                return True
        return False

    def _go_to(self, number: int) -> None:
        self.go(self._row_of(number))
        self.follow = False
