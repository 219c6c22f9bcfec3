"""Numbers, times and names as people read them: aligned, with units."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import PurePath

from nantui.run.documents import table
from nantui.terminal_text import printable

_PICTURES = re.compile("[\U0001f000-\U0001faff]+ ?")
NOTHING = "-"
WORDS: Mapping[str, Mapping[str, str]] = table("words")
"""What things are called, by their names in files."""


def clean(text: object, longest: int = 400) -> str:
    """Return `text` as one printable line, cut to `longest` characters with two dots at its end."""
    return printable(str(text)[: longest * 4].replace("\t", "    "), longest, cut="..")


def without_pictures(text: str) -> str:
    """Return `text` without emoji: terminals do not agree on how wide they are."""
    return _PICTURES.sub("", text)


def number(value: float | None, digits: int = 4) -> str:
    """Return `value` with about `digits` significant digits, never longer than 9 characters."""
    if value is None:
        return NOTHING
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    if value == 0:
        return "0"
    size = abs(value)
    if size >= 10**6 or size < 10**-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    decimals = max(0, digits - 1 - math.floor(math.log10(size)))
    return f"{value:.{min(decimals, 5)}f}"


def duration(seconds: float | None) -> str:
    """Return a span with its two largest units, e.g. `2 h 14 min`."""
    if seconds is None or not math.isfinite(seconds):
        return NOTHING
    seconds = max(0, int(round(seconds)))
    days, rest = divmod(seconds, 86400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def age(seconds: float) -> str:
    """Return how long ago, with one unit, at most 4 characters: `<1m`, `3m`, `2h`, `5d`."""
    for unit, word in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= unit:
            return f"{int(seconds // unit)}{word}"
    return "<1m"


def size(count: float | None) -> str:
    """Return a number of bytes with a unit, e.g. `21.4 MB`, `273 MB`, at most 7 characters."""
    if count is None or not math.isfinite(count):
        return NOTHING
    for limit, unit in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= limit:
            return f"{count / limit:.{0 if count >= 99.95 * limit else 1}f} {unit}"
    return f"{int(count)} B"


def gigabytes(used: float, total: float | None = None) -> str:
    """Return memory in GB, e.g. `21.4 / 80.0 GB`; inputs are GB."""
    return f"{used:.1f} GB" if total is None else f"{used:.1f} / {total:.1f} GB"


def short_path(path: PurePath, parts: int = 2) -> str:
    """Return the last `parts` parts of a path, cleaned."""
    return clean("/".join(path.parts[-parts:]), 200)
