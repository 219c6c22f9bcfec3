"""A history so small that it fits beside the number it belongs to."""

from __future__ import annotations

from collections.abc import Sequence

from nantui.ui.plot.canvas import Canvas

ASCII_LEVELS = "_.-=#"


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
