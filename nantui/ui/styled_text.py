"""Text with meaning instead of colours: a span is (text, ink), a line is a list of spans.

What is drawn is decided without a terminal library, so that it is tested as text; the inks get their
colours from styles/ink.tcss.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from rich.cells import cell_len, chop_cells, set_cell_size

Span = tuple[str, str]
Line = list[Span]

_TIE = "\u00a0"
_UNIT = re.compile(r"(?<=\d) (?=(?:s|min|h|d|B|kB|MB|GB|TB|W|C|%)(?![^\W_]))")

INKS = (
    "text", "muted", "faint", "strong", "accent", "good", "bad", "warn", "info", "train", "val", "extra",
    "old", "key", "title", "cursor", "alarm", "alarm-key", "pill-good", "pill-bad", "pill-warn", "pill-info",
    "pill-muted", "chosen", "rule", "grid",
)  # fmt: skip


def width(line: Iterable[Span]) -> int:
    """Return the cells a line takes."""
    return sum(cell_len(text) for text, _ in line)


def fit(line: Line, cells: int) -> Line:
    """Return `line` cut to at most `cells` cells, with two dots where something was cut."""
    if width(line) <= cells:
        return line
    kept: Line = []
    left = max(0, cells - 2)
    for text, ink in line:
        needed = cell_len(text)
        if needed > left:
            kept.append((set_cell_size(text, left), ink))
            break
        kept.append((text, ink))
        left -= needed
    return [*kept, (".." if cells >= 2 else "." * cells, "muted")]


def spread(left: Line, right: Line, cells: int, filler: str = " ") -> Line:
    """Return `left` and `right` at the ends of `cells` cells; `right` goes first when space is short."""
    gap = cells - width(left) - width(right)
    if gap < 2:
        if width(left) + 4 > cells:
            return fit(left, cells)
        return spread(left, fit(right, cells - width(left) - 2), cells)
    space = " " * gap if filler == " " else f" {filler * (gap - 2)} "
    return [*left, (space, "rule"), *right]


def column(text: str, cells: int, right: bool = False) -> str:
    """Return `text` in exactly `cells` cells."""
    needed = cell_len(text)
    if needed > cells:
        return set_cell_size(text, max(0, cells - 2)) + ".."[:cells]
    return " " * (cells - needed) + text if right else text + " " * (cells - needed)


def wrap(text: str, cells: int, ink: str = "text", indent: str = "") -> list[Line]:
    """Return `text` broken at spaces into lines of at most `cells` cells, later ones indented.

    A figure is not parted from its unit; a word that is longer than a line is broken where the line ends.
    """
    lines: list[Line] = []
    current = ""
    for word in _words(text, max(8, cells - cell_len(indent))):
        lead = indent if lines else ""
        trial = f"{current} {word}" if current else f"{lead}{word}"
        if current and cell_len(trial) > cells:
            lines.append([(current, ink)])
            trial = f"{indent}{word}"
        current = trial
    return [*lines, [(current, ink)]] if current else lines or [[]]


def hanging(head: Line, text: str, cells: int, ink: str = "text", indent: str = "") -> list[Line]:
    """Return `text` beside `head`, in lines of at most `cells` cells; below `head` is room for it."""
    room = width(head)
    first, *others = wrap(text, max(10, cells - room), ink, indent)
    return [[*head, *first], *([(" " * room, "text"), *line] for line in others)]


def _words(text: str, longest: int) -> Iterator[str]:
    for word in _UNIT.sub(_TIE, text).split(" "):
        if word:
            yield from (part.replace(_TIE, " ") for part in chop_cells(word, longest))
