"""The screen as an SVG of our own: every character in its cell, braille as dots.

Viewers that lay text out by themselves shift everything after a character their font lacks; here each
character has its own place, and the curves look the same without any font.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from rich.cells import cell_len
from rich.color import Color
from rich.segment import Segment
from rich.style import Style

from nantui.ui.textual_internals import screen_rows

if TYPE_CHECKING:
    from textual.app import App

WIDTH, HEIGHT, FONT_SIZE, MARGIN, BAR = 8.4, 18.0, 14.0, 12.0, 28.0
DOTS = ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3))


def screen_text(app: App[object]) -> str:
    """Return what is on the screen as plain text, one line a row."""
    rows = screen_rows(app)
    return "\n".join("".join(segment.text for segment in row).rstrip() for row in rows)


def screen_svg(app: App[object], title: str) -> str:
    """Return what is on the screen as an SVG with a window around it."""
    rows = [list(strip) for strip in screen_rows(app)]
    theme = app.current_theme
    background, foreground = (
        (theme.background, theme.foreground) if not theme.ansi else ("#101010", "#d0d0d0")
    )
    return to_svg(rows, title, background or "#101010", foreground or "#d0d0d0")


def to_svg(rows: Sequence[Iterable[Segment]], title: str, background: str, foreground: str) -> str:
    """Return `rows` of segments as an SVG document."""
    cells = max((sum(cell_len(segment.text) for segment in row) for row in rows), default=80)
    width, height = cells * WIDTH + 2 * MARGIN, len(rows) * HEIGHT + BAR + MARGIN
    body = "".join(_row(row, y, foreground) for y, row in enumerate(rows))
    buttons = "".join(
        f'<circle cx="{MARGIN + 6 + 18 * index}" cy="{BAR / 2}" r="5" fill="{colour}"/>'
        for index, colour in enumerate(("#ff5f57", "#febc2e", "#28c840"))
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}">'
        f'<rect width="100%" height="100%" rx="8" fill="{background}" stroke="#808080" stroke-opacity="0.4"/>'
        f'{buttons}<text x="{width / 2:.0f}" y="{BAR / 2 + 4:.0f}" text-anchor="middle" '
        f'font-family="sans-serif" font-size="12" fill="#808890">{escape(title)}</text>'
        f'<g transform="translate({MARGIN},{BAR})" font-family="Fira Code,DejaVu Sans Mono,monospace" '
        f'font-size="{FONT_SIZE}" stroke-width="2.9" stroke-linecap="round">{body}</g></svg>\n'
    )


def _row(row: Iterable[Segment], y: int, foreground: str) -> str:
    """Backgrounds first, since the next segment's would cover what reaches over."""
    column, rectangles, texts = 0, [], []
    for text, style, _ in row:
        colour, back = _colours(style or Style(), foreground)
        cells = cell_len(text)
        if back:
            rectangles.append(
                f'<rect x="{column * WIDTH:.1f}" y="{y * HEIGHT:.0f}" width="{cells * WIDTH + 0.3:.1f}" '
                f'height="{HEIGHT + 0.3:.1f}" fill="{back}"/>'
            )
        texts.append(_text(text, column, y, colour, style or Style()))
        column += cells
    return "".join(rectangles) + "".join(texts)


def _colours(style: Style, foreground: str) -> tuple[str, str]:
    colour = _hex(style.color) or foreground
    back = _hex(style.bgcolor)
    return (back or "#000000", colour) if style.reverse else (colour, back)


def _hex(colour: Color | None) -> str:
    return "" if colour is None or colour.is_default else colour.get_truecolor().hex


def _text(text: str, column: int, y: int, colour: str, style: Style) -> str:
    """Words are placed one by one; inside an ASCII word the font's own advance is the cell's width."""
    looks = f'fill="{colour}"'
    looks += ' font-weight="bold"' if style.bold else ""
    looks += ' text-decoration="underline"' if style.underline else ""
    looks += ' opacity="0.6"' if style.dim else ""
    drawn = dots = ""
    for word, start in _words(text, column):
        if 0x2800 < ord(word[0]) < 0x2900:
            dots += _dots(ord(word) - 0x2800, start, y)
        else:
            place = f'x="{start * WIDTH:.1f}" y="{y * HEIGHT + 13.4:.1f}"'
            drawn += f"<text {place} {looks}>{escape(word)}</text>"
    return f'{drawn}<path d="{dots}" stroke="{colour}"/>' if dots else drawn


def _words(text: str, column: int) -> list[tuple[str, int]]:
    """Return runs of visible ASCII, and every other visible character alone, with their columns."""
    words: list[tuple[str, int]] = []
    joins = False
    for character in text:
        visible = not character.isspace()
        if visible and joins and character.isascii():
            words[-1] = (words[-1][0] + character, words[-1][1])
        elif visible:
            words.append((character, column))
        joins = visible and character.isascii()
        column += cell_len(character)
    return words


def _dots(bits: int, column: int, y: int) -> str:
    """Return the dots of one character as moves of a path; a stroke of no length with round ends is a dot."""
    return "".join(
        f"M{column * WIDTH + 2.1 + 4.2 * across:.1f} {y * HEIGHT + 2.25 + 4.5 * down:.1f}h0"
        for bit, (across, down) in enumerate(DOTS)
        if bits & (1 << bit)
    )
