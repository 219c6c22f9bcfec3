"""A picture drawn into a number of cells: y labels on the left, a row of x labels below, marks, a readout."""

from __future__ import annotations

import math
from dataclasses import replace

from rich.cells import cell_len

from nantui.ui.charts.axis import Scale, limits, linear_ticks, on_rows, rounded_end
from nantui.ui.charts.canvas import Canvas
from nantui.ui.charts.series import Curve, Picture, nearest, smooth, thin, window
from nantui.ui.format import number
from nantui.ui.glyphs import Glyphs
from nantui.ui.styled_text import Line, fit, spread, width

LABELS, ROOMY = 6, 6
NARROWEST = 12
"""Cells: the longest label of a tick, and a little to see beside it."""
MARKS = {
    "incident": ("bad", "bad"), "skip": ("skip", "warn"), "rollback": ("rollback", "info"),
    "attempt": ("separator", "faint"),
}  # fmt: skip
"""The glyph and the ink of each kind of mark below the curves."""
LARGEST = 1e300
"""No axis reaches farther: the ends of its rows, and its steps, have to be floats, too."""


def draw(picture: Picture, columns: int, rows: int, glyphs: Glyphs) -> list[Line]:
    """Return `rows` lines of at most `columns` cells: title with the newest values, plot, x labels."""
    if rows < 1 or columns < NARROWEST:
        return [[] for _ in range(rows)]
    shown = [curve for curve in picture.curves if curve.xs]
    if not shown or rows < 4:
        empty: list[Line] = [fit([(picture.empty, "muted")], columns)] if not shown else []
        lines = [_title(picture, columns, glyphs), *empty]
        return (lines + [[] for _ in range(rows)])[:rows]
    across = x_range(picture)
    curves = [_prepare(curve, picture, across) for curve in shown]
    view = picture.view
    bounds = limits(_scaled_by(curves, view.whole), log=view.log, whole=view.whole, floor=picture.floor)
    gaps = any(not math.isfinite(y) for curve in picture.curves for y in curve.coarse.ys)
    spare = rows >= ROOMY and (gaps or any(mark.kind in MARKS for mark in picture.marks))
    scale, ticks = on_rows(bounds, rows - 2 - spare)
    margin = max(LABELS, max(map(len, ticks.values()), default=0) + 1)
    canvas = Canvas(columns - margin, rows - 2, glyphs.braille, spare)
    for row in ticks:
        for column in range(1, canvas.columns, 4):  # faint dots, to read a height by
            canvas.background(column, row, "⠄" if glyphs.braille else ".", "grid")
    for curve in curves:
        _plot(canvas, curve, scale, across, glyphs)
    _marks(canvas, picture, across, glyphs)
    plot = [
        [(f"{ticks.get(row, ''):>{margin - 1}} ", "muted"), *line] for row, line in enumerate(canvas.lines())
    ]
    return [_title(picture, columns, glyphs), *plot, _x_labels(picture, across, columns, margin)]


def _scaled_by(curves: list[Curve], whole: bool) -> list[float]:
    """Return the values that the y axis is for: of what was rolled back those near to what stands."""
    values = [y for curve in curves for y in curve.ys if abs(y) < LARGEST]
    standing = [y for curve in curves if curve.ink != "old" for y in curve.ys if abs(y) < LARGEST]
    if whole or len(standing) < 2:
        return values
    low, high = min(standing), max(standing)
    return [y for y in values if 2 * low - high <= y <= 2 * high - low]


def x_range(picture: Picture) -> tuple[float, float]:
    """Return the first and the last x that is shown.

    Unless it was asked for, the end is a round number with some room before it, so that a point more only
    lengthens the curve and does not move all of it.
    """
    firsts = [curve.xs[0] for curve in picture.curves if curve.xs]
    lasts = [curve.xs[-1] for curve in picture.curves if curve.xs]
    low = min(firsts, default=0.0) if picture.view.low is None else picture.view.low
    high = rounded_end(low, max(lasts, default=1.0)) if picture.view.high is None else picture.view.high
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _prepare(curve: Curve, picture: Picture, across: tuple[float, float]) -> Curve:
    view = picture.view
    if view.low is None and view.high is None and view.smooth < 2:
        return curve.coarse
    return window(replace(curve, ys=smooth(curve.ys, view.smooth)), *across)


def _plot(canvas: Canvas, curve: Curve, scale: Scale, across: tuple[float, float], glyphs: Glyphs) -> None:
    low, high = across
    dots = 2 if canvas.braille else 1  # a cell is so many wide
    previous: tuple[int, int] | None = None
    alone = True
    for x, y in thin(curve.xs, curve.ys, canvas.columns):
        column = round((x - low) / (high - low) * (canvas.width - 1))
        if not math.isfinite(y):
            previous = None
            if low <= x <= high:
                ink = "old" if curve.ink == "old" else "bad"
                canvas.below(column // dots, glyphs.bad, ink)
            continue
        share = scale.place(y)
        if share > 1.0 and low <= x <= high:
            canvas.sign(column // dots, 0, glyphs.above, curve.ink)
        point = (column, round((1 - min(1.4, max(-0.4, share))) * (canvas.height - 1)))
        if previous is not None:
            canvas.line(previous, point, curve.ink, curve.dashed)
            alone = False
        else:
            canvas.dot(*point, curve.ink)
        previous = point
    if alone and previous is not None:
        canvas.sign(previous[0] // dots, previous[1] // 4, glyphs.dot, curve.ink)


def _place(x: float | None, across: tuple[float, float], cells: int) -> int | None:
    """Return the column that an x falls into, None outside."""
    low, high = across
    return round((x - low) / (high - low) * (cells - 1)) if x is not None and low <= x <= high else None


def _marks(canvas: Canvas, picture: Picture, across: tuple[float, float], glyphs: Glyphs) -> None:
    """Signs below the curves; where a phase begins a line behind them, and its title where that fits."""
    for mark in picture.marks:
        column = _place(mark.x, across, canvas.columns)
        if column is None:
            continue
        if mark.kind in MARKS:
            glyph, ink = MARKS[mark.kind]
            canvas.below(column, getattr(glyphs, glyph), ink)
            continue
        for row in range(canvas.rows):
            canvas.background(column, row, glyphs.separator, "old")
        if column + 2 + cell_len(mark.text) <= canvas.columns and mark.text.isascii():
            for index, letter in enumerate(mark.text):
                canvas.background(column + 2 + index, 0, letter, "muted")
    if (column := _place(picture.view.cursor, across, canvas.columns)) is not None:
        for row in range(canvas.rows):
            canvas.sign(column, row, glyphs.separator, "accent")


def _title(picture: Picture, columns: int, glyphs: Glyphs) -> Line:
    """The newest values on the right; a digit, names but for a letter, then all go where space is short."""
    flags = " log" if picture.view.log else ""
    flags += f" mean {picture.view.smooth}" if picture.view.smooth > 1 else ""
    flags += f" last {picture.view.last:,}" if picture.view.last else ""
    title: Line = [(picture.title, "title"), (flags, "muted")]
    note: Line = [(f" {picture.note}", "faint")] if picture.note else []
    if note and width(title) + width(note) + width(_values(picture, 99)) + 4 <= columns:
        title += note
    names = [curve.name[:1] for curve in picture.curves if curve.ink != "old" and curve.ys]
    letter = 1 < len(names) == len({*names})
    for named, digits in ((99, 4), (99, 3), (letter, 4 - letter), (0, 4), (0, 3)):
        values = _values(picture, named, digits)
        if width(title) + width(values) + 2 <= columns:
            return spread(title, values, columns, glyphs.rule)
    return fit(title, columns)


def _values(picture: Picture, named: int, digits: int = 4) -> Line:
    values: Line = []
    for curve in picture.curves:
        if curve.ink != "old" and curve.ys:
            text, ink = _readout(curve, picture, digits)
            values += [("  " if values else "", "text"), (f"{curve.name[:named]} ".lstrip(), curve.ink)]
            values.append((text, ink if named or ink == "bad" else curve.ink))
    return [*values, (f" {picture.unit}", "muted")] if picture.unit and values else values


def _readout(curve: Curve, picture: Picture, digits: int) -> tuple[str, str]:
    point = nearest(curve, picture.view.cursor) if picture.view.cursor is not None else None
    value = point[1] if point else curve.ys[-1]
    return number(value, digits), "strong" if math.isfinite(value) else "bad"


def _x_labels(picture: Picture, across: tuple[float, float], columns: int, margin: int) -> Line:
    """Put round x values under their columns, the name of the axis at the far left."""
    low, high = across
    cells = columns - margin
    text = [" "] * columns
    for tick in linear_ticks(low, high, max(2, cells // 10), whole=True):
        label = f"{tick:,.0f}" if abs(tick) < 10**6 else f"{tick / 10**6:g}M"
        start = margin + round((tick - low) / (high - low) * (cells - 1)) - len(label) // 2
        start = max(margin, min(start, columns - len(label)))
        if all(character == " " for character in text[max(0, start - 1) : start + len(label) + 1]):
            text[start : start + len(label)] = label
    name = picture.x_name[: margin - 1]
    text[: len(name)] = name
    return [("".join(text), "muted")]
