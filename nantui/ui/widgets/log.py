"""Lines of a log, the newest hundred thousand of them.

The last lines of the training's output, where the screen is large enough for them.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from nantui.ui.format import clean, without_pictures
from nantui.ui.styled_text import Line, fit, spread
from nantui.ui.widgets.line_widget import LinesWidget
from nantui.ui.widgets.list_view import Listing

NAN = re.compile(r"(?<![a-z])(nan|inf)(?![a-z])", re.IGNORECASE)
MOST_LINES = 100_000


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
    """Follows the end until the cursor is moved up."""

    def __init__(self) -> None:
        super().__init__(id="log", empty="nothing was written yet")
        self._text: list[str] = []
        self._dropped = 0
        self.wanted = ""
        self.follow = True

    def add(self, lines: list[str], restarted: bool) -> None:
        """Take new lines; a progress bar rewrites its line with carriage returns,
        of which the last counts.
        """
        if restarted:
            self._text, self._dropped = [], 0
        self._text += [line.rstrip("\r").rpartition("\r")[2] for line in lines]
        if len(self._text) > MOST_LINES:
            self._dropped += len(self._text) - MOST_LINES
            del self._text[: len(self._text) - MOST_LINES]
        self.show(range(self._dropped, self._dropped + len(self._text)), self._row)

    def state(self) -> str:
        """Say how many lines there are and whether the end is followed."""
        searched = f", search {self.wanted!r}" if self.wanted else ""
        return f"{len(self._text):,} lines, {'following' if self.follow else 'held'}{searched}"

    def _row(self, index: int, width: int) -> Line:
        text = without_pictures(clean(self._text[index], 1000))
        ink = "bad" if NAN.search(text) else "text"
        if self.wanted and (start := text.lower().find(self.wanted.lower())) >= 0:
            end = start + len(self.wanted)
            return fit([(text[:start], ink), (text[start:end], "pill-warn"), (text[end:], ink)], width)
        return fit([(text, ink)], width)

    def go(self, row: int) -> None:
        super().go(row)
        self.follow = self.cursor >= self.rows - 1

    def find(self, direction: int) -> bool:
        """Go to the next line that has the wanted text, around the ends; False when no other has it."""
        wanted = self.wanted.lower()
        return self._go_where(lambda text: wanted in text.lower(), direction)

    def find_nan(self) -> bool:
        """Go to the next line that has a NaN."""
        return self._go_where(lambda text: bool(NAN.search(text)), 1)

    def _go_where(self, matches: Callable[[str], bool], direction: int) -> bool:
        total = len(self._text)
        for offset in range(1, total + 1):
            row = (self.cursor + offset * direction) % total
            if matches(self._text[row]):
                self.go(row)
                self.follow = False
                return True
        return False
