"""From label files to one table of numbers, thousands of files at a time.

A plain loop spends its time in `open`, `split` and `float`. Here a batch of files is read into one buffer
and the whole buffer is parsed with array operations, as long as its bytes are the plain decimals that
labels consist of. A file with anything else in it (signs, exponents, other encodings, nonsense) is read word
by word, exactly as Ultralytics does: slower, and those are the files whose faults need words.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

Array: TypeAlias = np.ndarray
FRONT = 16
NEWLINE, RETURN, DOT = 10, 13, 46
LONGEST_FRACTION = 16
LONGEST_WHOLE = 8
_PLAIN = b"0123456789. \t\r\n"
_FOREIGN: Array = np.ones(256, bool)
_POWERS = 10.0 ** np.arange(LONGEST_FRACTION + 1)
LONGEST_QUOTE = 40

_FOREIGN[list(_PLAIN)] = False


@dataclass(frozen=True)
class Table:
    """Rows of labels of many files.

    `values` float32 of all rows in one line; row i is `values[start[i]:start[i + 1]]`, `file[i]` says which
    file it is from (an index) and `line[i]` on which line of it, counted from 1.
    """

    values: Array
    start: Array
    file: Array
    line: Array

    @property
    def columns(self) -> Array:
        """Return how many numbers each row has."""
        return np.diff(self.start)


@dataclass(frozen=True)
class Text:
    """The bytes of many files, each ended by a newline of ours: file i begins at `begin[i]`.

    The first `FRONT` bytes belong to nobody, so that eight bytes before any byte can be looked at.
    """

    raw: bytes
    begin: Array

    @property
    def data(self) -> Array:
        return np.frombuffer(self.raw, np.uint8)

    @classmethod
    def of(cls, files: list[bytes]) -> Text:
        lengths = np.fromiter(map(len, files), np.int64, len(files)) + 1
        joined = b"\n".join((b"\n" * FRONT + files[0], *files[1:], b"")) if files else b"\n" * FRONT
        begin = np.concatenate(([FRONT], FRONT + np.cumsum(lengths)))[: len(files)]
        return cls(joined, begin)


def parse_plain(text: Text) -> tuple[Table, Array]:
    """Return the table of the files that are plain decimals, and the indices of the files that are not.

    Values are what `np.float32(float(word))` gives, except that a number written with more than 15 digits
    may differ in the last bit of a float64 before it becomes a float32.
    """
    words = _Words(text)
    odd = words.odd_files()
    if odd.size == 0:
        return words.table(), odd
    if odd.size == text.begin.size:
        nothing: Array = np.zeros(0, np.int64)
        return Table(np.zeros(0, np.float32), np.zeros(1, np.int64), nothing, nothing), odd
    plain = np.setdiff1d(np.arange(text.begin.size), odd)
    ends: Array = np.append(text.begin[1:], len(text.raw))
    kept = Text.of([text.raw[text.begin[i] : ends[i] - 1] for i in plain])
    table = _Words(kept).table()
    return Table(table.values, table.start, plain[table.file], table.line), odd


def join_tables(tables: list[Table]) -> Table:
    """Return the rows of all `tables`, one table after the other."""
    sizes = np.cumsum([0, *(table.values.size for table in tables)])
    starts = [table.start[:-1] + size for table, size in zip(tables, sizes, strict=False)]
    return Table(
        np.concatenate([table.values for table in tables]),
        np.concatenate([*starts, sizes[-1:]]).astype(np.int64),
        np.concatenate([table.file for table in tables]),
        np.concatenate([table.line for table in tables]),
    )


class _Words:
    """The words of a buffer: where each begins and ends, and whether it is a plain decimal."""

    def __init__(self, text: Text) -> None:
        self.text = text
        self.data = data = text.data
        space = data <= 32
        edges: Array = np.flatnonzero(space[1:] != space[:-1]) + 1
        self.begin, self.end = edges[0::2], edges[1::2]
        self.decimal = data[self.begin + 1] == DOT
        self.length = self.end - self.begin

    def odd_files(self) -> Array:
        """Return the indices of files with anything but plain decimals."""
        positions = [self._foreign_bytes(), self._unusual_words(), self._lone_returns()]
        where: Array = np.concatenate(positions)
        if not where.size:
            # `np.unique` imports numpy.ma at its first call, which takes longer than reading a batch.
            return where
        return np.unique(np.searchsorted(self.text.begin, where, "right") - 1)

    def _foreign_bytes(self) -> Array:
        # `translate` is several times faster than an array lookup, and almost always there is nothing left.
        if not self.text.raw.translate(None, _PLAIN):
            return np.zeros(0, np.int64)
        return np.flatnonzero(_FOREIGN[self.data])

    def _unusual_words(self) -> Array:
        """Words that are neither D.DDD nor a whole number, or have more digits than are handled here."""
        fraction = self.length - 2
        good = np.where(
            self.decimal, (fraction >= 1) & (fraction <= LONGEST_FRACTION), self.length <= LONGEST_WHOLE
        )
        odd = [self.begin[~good]]
        if self.text.raw.count(b".") != np.count_nonzero(self.decimal) or odd[0].size:
            odd.append(np.setdiff1d(np.flatnonzero(self.data == DOT), self.begin[self.decimal] + 1))
        odd.append(self.begin[self.data[self.begin] == DOT])
        return np.concatenate(odd)

    def _lone_returns(self) -> Array:
        if b"\r" not in self.text.raw:
            return np.zeros(0, np.int64)
        returns = np.flatnonzero(self.data == RETURN)
        return returns[self.data[returns + 1] != NEWLINE]

    def table(self) -> Table:
        """Return the table; only right when no file is odd."""
        ends: Array = np.flatnonzero(self.data[FRONT:] == NEWLINE) + FRONT
        start: Array = np.concatenate(([0], np.searchsorted(self.begin, ends)))
        filled = np.flatnonzero(start[1:] > start[:-1])
        first_line = np.searchsorted(ends, self.text.begin)
        file = np.searchsorted(self.text.begin, ends[filled], "right") - 1
        starts: Array = np.append(start[filled], start[-1])
        return Table(self._values(), starts, file, filled - np.take(first_line, file) + 1)

    def _values(self) -> Array:
        values = (self.data[self.begin] & 15).astype(np.float64)
        whole = np.flatnonzero(~self.decimal & (self.length > 1))
        if whole.size:
            values[whole] = self._digits(self.end[whole], self.length[whole])
        decimal = np.flatnonzero(self.decimal)
        values[decimal] = self._decimals(values[decimal], self.end[decimal], self.length[decimal] - 2)
        return values.astype(np.float32)

    def _decimals(self, whole: Array, end: Array, digits: Array) -> Array:
        """Return the numbers of one digit, a dot and `digits` digits that end before `end`.

        One tool writes one number of digits, and then nothing has to be looked up word by word.
        """
        if digits.size and 0 < (usual := int(digits[0])) <= 8 and (digits == usual).all():
            return (whole * _POWERS[usual] + self._digits(end, usual)) / _POWERS[usual]
        fraction: Array = self._digits(end, np.minimum(digits, 8)).astype(np.float64)
        long = np.flatnonzero(digits > 8)
        if long.size:
            fraction[long] += self._digits(end[long] - 8, digits[long] - 8) * 1e8
        power = _POWERS[digits]
        # One division of exact numbers is the correctly rounded decimal, up to 15 digits.
        return (whole * power + fraction) / power

    def _digits(self, end: Array, count: Array | int) -> Array:
        """Return the whole numbers of the `count` (1 to 8) digits before `end`, eight bytes at a time."""
        eight = np.ndarray((self.data.size - 7,), "<u8", self.data, strides=(1,))
        value = eight[end - 8]
        value &= np.uint64(0x0F0F0F0F0F0F0F0F) << np.uint64((8 - count) * 8)
        # Pairs of digits, then of pairs, then of fours: three multiplications instead of eight.
        value = (value * np.uint64(2561)) >> np.uint64(8)
        value = ((value & np.uint64(0x00FF00FF00FF00FF)) * np.uint64(6553601)) >> np.uint64(16)
        return ((value & np.uint64(0x0000FFFF0000FFFF)) * np.uint64(42949672960001)) >> np.uint64(32)


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
        numbers = []
        for word in line.split():
            try:
                numbers.append(float(word))
            except ValueError:
                rows.faults.append((number, "not_a_number", f"{quote(word)} is no number"))
                break
        else:
            if numbers:
                with np.errstate(over="ignore"):
                    rows.values.append(np.array(numbers, np.float64).astype(np.float32))
                rows.lines.append(number)
    return rows


def quote(word: str) -> str:
    """Return `word` in quotes, escaped and shortened, safe to show."""
    shown = ascii(word)
    return shown if len(shown) <= LONGEST_QUOTE else shown[: LONGEST_QUOTE - 1] + "…"


def _what_encoding(data: bytes, error: UnicodeDecodeError) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16 text; save it as UTF-8"
    return f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
