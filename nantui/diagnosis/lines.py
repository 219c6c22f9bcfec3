"""One label file read word by word, exactly as Ultralytics reads it.

Slower than `nantui.diagnosis.parse` and used only for the files that are not plain decimals: those are
the ones whose faults need words.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from nantui.diagnosis.parse import Array

LONGEST_QUOTE = 40


@dataclass
class Rows:
    """The rows of a file: `values[i]` are the numbers on line `lines[i]`; `faults` are (line, kind, text)."""

    values: list[Array] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    faults: list[tuple[int, str, str]] = field(default_factory=list)


def read_rows(data: bytes) -> Rows:
    """Return the rows of a label file's content, and what cannot be read of it.

    Words become numbers by `float`, so that `1_0`, `infinity` and non-ASCII digits are what they are to
    Ultralytics; a row with a word that is no number has a fault and is not among the rows.
    """
    rows = Rows()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        rows.faults.append((data.count(b"\n", 0, error.start) + 1, "encoding", _what_encoding(data, error)))
        return rows
    # `open` in text mode turns every line end into a newline before Ultralytics splits lines.
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").splitlines(), 1):
        words = line.split()
        if words:
            _add_row(rows, number, words)
    return rows


def _add_row(rows: Rows, number: int, words: list[str]) -> None:
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        rows.faults.append((number, "not_a_number", f"{quote(next(_no_numbers(words)))} is no number"))
        return
    with np.errstate(over="ignore"):
        rows.values.append(np.array(numbers, np.float64).astype(np.float32))
    rows.lines.append(number)


def _no_numbers(words: list[str]) -> Iterator[str]:
    for word in words:
        try:
            float(word)
        except ValueError:
            yield word


def quote(word: str) -> str:
    """Return `word` in quotes, escaped and shortened, safe to show."""
    shown = ascii(word)
    return shown if len(shown) <= LONGEST_QUOTE else shown[: LONGEST_QUOTE - 1] + "…"


def _what_encoding(data: bytes, error: UnicodeDecodeError) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16 text; save it as UTF-8"
    return f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
