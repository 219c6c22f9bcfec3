"""A widget that draws lines, and repaints only what changed of them.

Over a slow link the bytes of a repaint are what is felt, so lines are compared before they are sent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from rich.cells import cell_len
from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region
from textual.strip import Strip
from textual.widget import Widget

from nantui.ui.context import InCockpit
from nantui.ui.glyphs import Glyphs
from nantui.ui.styled_text import Line, fit

Write = Callable[[int], list[Line]]
NEAR, LEAST_CONTRAST = 12, 4.5
QUIET = frozenset({"muted", "faint"})
"""Inks that could not be read on the cursor's ground."""


class Inked(InCockpit, Widget):
    """Draws lines in inks, whose colours the app knows. Call `redraw` when they may have changed."""

    def __init__(self, *, id: str | None = None, classes: str | None = None) -> None:
        super().__init__(id=id, classes=classes)
        self.shown: dict[int, Line] = {}

    def line_at(self, y: int, width: int) -> Line:
        """Return the line that is to be seen at `y`."""
        return []

    def ground(self, y: int) -> str:
        """Return the ink on whose background all of this line stands, if any."""
        return ""

    def redraw(self) -> None:
        """Repaint what differs from what is on the screen."""
        width, height = self.scrollable_content_region.size
        changed = []
        for y in range(height):
            line, before = self.line_at(y, width), self.shown.get(y)
            if before != line:
                self.shown[y] = line
                runs = [(0, width)] if before is None else changed_runs(before, line, width)
                changed += [Region(start, y, end - start, 1) for start, end in runs]
        if changed:
            self.refresh(*changed)

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        line = self.shown[y] = self.line_at(y, width)
        return self.to_strip(line, width, self.ground(y))

    def on_resize(self) -> None:
        self.shown.clear()
        self.redraw()

    @property
    def glyphs(self) -> Glyphs:
        return self.cockpit.glyphs

    def recolour(self) -> None:
        """Repaint everything: the theme or the glyphs have changed."""
        self.shown.clear()
        self.redraw()

    def to_strip(self, line: Line, width: int, under: str = "") -> Strip:
        """Return a line as a strip of `width` cells, with `under` all of it on that ink's ground."""
        ground, inks = self.rich_style, self.cockpit.inks
        base = ground + inks[under] if under else ground
        segments = [Segment(text, _over(inks[ink], ink, base, under)) for text, ink in line if text]
        return Strip(segments).adjust_cell_length(width, base)


def _over(style: Style, ink: str, base: Style, under: str) -> Style:
    """Return an ink on its ground; under a cursor the ground stays the cursor's."""
    if base.reverse and not under:  # a bar without colours of its own
        return style + Style(reverse=False) if ink.startswith("pill") else base + Style(bold=style.bold)
    if not under or ink.startswith("pill"):
        return base + style
    if base.reverse or (under == "cursor" and ink in QUIET) or not legible(style.color, base.bgcolor):
        return base
    return base + style + Style(bgcolor=base.bgcolor, bold=base.bold)


@lru_cache(maxsize=256)
def legible(ink: Color | None, ground: Color | None) -> bool:
    """Tell whether text in one colour can be read on another: with a contrast of 4.5 or more."""
    if ink is None or ground is None or ink.is_default or ground.is_default:
        return True
    return contrast(ink, ground) >= LEAST_CONTRAST


def contrast(one: Color, other: Color) -> float:
    """Return the contrast of two colours as WCAG 2.1 counts it, from 1 to 21."""
    dark, light = sorted((_luminance(one), _luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: Color) -> float:
    """Relative luminance of an sRGB colour (WCAG 2.1), from 0 to 1."""
    shares = [part / 255 for part in colour.get_truecolor()]
    red, green, blue = (
        share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


class LinesWidget(Inked):
    """Shows what `build` returns."""

    lines: Sequence[Line] = ()

    def build(self, width: int, height: int) -> list[Line]:
        """Return the lines to show in `width` x `height` cells."""
        return []

    def line_at(self, y: int, width: int) -> Line:
        return self.lines[y] if y < len(self.lines) else []

    def redraw(self) -> None:
        size = self.content_size
        if size.width and size.height:
            self.lines = self.build(size.width, size.height)
            super().redraw()

    def watch_has_focus(self, has_focus: bool) -> None:
        super().watch_has_focus(has_focus)
        self.redraw()


class Title(LinesWidget):
    """Shows what `make(width)` returns."""

    def __init__(self, make: Write, *, id: str = "title") -> None:
        super().__init__(id=id)
        self._make = make

    def build(self, width: int, height: int) -> list[Line]:
        return [fit(line, width) for line in self._make(width)][:height]


def changed_runs(before: Line, now: Line, width: int) -> list[tuple[int, int]]:
    """Return (first, end) of the stretches of cells in which two lines differ.

    Stretches that are near each other are one: to go there costs more bytes than to write what is between.
    """
    if before == now:
        return []
    one, other = _cells(before, width), _cells(now, width)
    if len(one) != width or len(other) != width:
        return [(0, width)]
    runs: list[tuple[int, int]] = []
    for cell in range(width):
        if one[cell] != other[cell]:
            near = bool(runs) and cell - runs[-1][1] < NEAR
            runs[-1:] = [(runs[-1][0], cell + 1)] if near else [*runs[-1:], (cell, cell + 1)]
    return runs


def _cells(line: Line, width: int) -> list[tuple[str, str]]:
    """Return a line cell by cell; one with characters of two cells is too short and counts as changed."""
    cells = [(character, ink) for text, ink in line for character in text]
    wide = any(not text.isascii() and cell_len(text) != len(text) for text, _ in line)
    return [] if wide else (cells + [(" ", "")] * width)[:width]
