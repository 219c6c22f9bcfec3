"""A canvas of dots: eight to a cell in braille, or one sign a cell where only ASCII is safe.

A history so small that it fits beside the number it belongs to.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from nantui.ui.styled_text import Line

_BITS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_ASCII_LEVELS = "'-._"
ASCII_LEVELS = "_.-=#"


class Canvas:
    """`columns` x `rows` cells; dots are addressed from the top left in dot units.

    With `spare` the lowest row has no dots, only signs.
    """

    def __init__(self, columns: int, rows: int, braille: bool, spare: bool = False) -> None:
        self.columns, self.rows, self.braille = columns, rows, braille
        self.width = columns * 2 if braille else columns
        self.height = (rows - spare) * 4
        self._spare = spare
        self._dash = 8 if braille else 4
        self._dots = [0] * (columns * rows)
        self._inks = [""] * (columns * rows)
        self._signs: dict[int, tuple[str, str]] = {}
        self._behind: dict[int, tuple[str, str]] = {}

    def dot(self, x: int, y: int, ink: str) -> None:
        """Set one dot; outside the canvas nothing happens. The last ink of a cell wins."""
        if not (0 <= x < self.width and 0 <= y < self.height):
            return
        across = 2 if self.braille else 1
        cell = (y // 4) * self.columns + x // across
        self._dots[cell] |= _BITS[y % 4][x % across]
        self._inks[cell] = ink

    def line(self, start: tuple[int, int], end: tuple[int, int], ink: str, dashed: bool = False) -> None:
        """Draw a straight line of dots; when dashed, two cells of it and two cells of nothing in turn."""
        (x0, y0), (x1, y1) = start, end
        length = max(abs(x1 - x0), abs(y1 - y0))
        for index in range(length + 1):
            if dashed and (x0 + index) % self._dash >= self._dash // 2:
                continue
            share = index / length if length else 0.0
            self.dot(round(x0 + (x1 - x0) * share), round(y0 + (y1 - y0) * share), ink)

    def sign(self, column: int, row: int, text: str, ink: str) -> None:
        """Put one character over a cell."""
        if 0 <= column < self.columns and 0 <= row < self.rows:
            self._signs[row * self.columns + column] = (text, ink)

    def below(self, column: int, text: str, ink: str) -> None:
        """Mark a column in the lowest row, which may not cover a curve."""
        put = self.sign if self._spare else self.background
        put(column, self.rows - 1, text, ink)

    def background(self, column: int, row: int, text: str, ink: str) -> None:
        """Put one character into a cell that shows only where no dot is set."""
        if 0 <= column < self.columns and 0 <= row < self.rows:
            self._behind[row * self.columns + column] = (text, ink)

    def lines(self) -> list[Line]:
        """Return the canvas as lines of spans, neighbours with the same ink joined."""
        return [self._row(row) for row in range(self.rows)]

    def _row(self, row: int) -> Line:
        cells = map(self._cell, range(row * self.columns, (row + 1) * self.columns))
        same_ink = groupby(cells, key=lambda cell: cell[1])
        return [("".join(text for text, _ in found), ink) for ink, found in same_ink]

    def _cell(self, index: int) -> tuple[str, str]:
        if index in self._signs:
            return self._signs[index]
        dots = self._dots[index]
        if not dots:
            return self._behind.get(index, (" ", "text"))
        return chr(0x2800 + dots) if self.braille else _ascii(dots), self._inks[index]


def _ascii(dots: int) -> str:
    """Return a sign for the set levels of a cell: one level is its height, several are a rise."""
    levels = [level for level in range(4) if dots & (_BITS[level][0] | _BITS[level][1])]
    return _ASCII_LEVELS[levels[0]] if len(levels) == 1 else ":" if len(levels) == 2 else "|"


def spark(shares: Sequence[float], cells: int, braille: bool) -> str:
    """Return the newest of `shares` (0 to 1) as columns, the newest at the right, `cells` cells wide.

    A braille cell holds two columns of up to four dots; the lowest dot is always set, so that nothing is
    told apart from not known.
    """
    newest = list(shares)[-cells * (2 if braille else 1) :]
    if not braille:
        text = "".join(ASCII_LEVELS[round(_inside(share) * (len(ASCII_LEVELS) - 1))] for share in newest)
        return text.rjust(cells)
    canvas = Canvas(cells, 1, True)
    first = canvas.width - len(newest)
    for index, share in enumerate(newest):
        for level in range(max(1, round(_inside(share) * 4))):
            canvas.dot(first + index, 3 - level, "")
    return "".join(text for text, _ in canvas.lines()[0])


def _inside(share: float) -> float:
    return min(1.0, max(0.0, share))
