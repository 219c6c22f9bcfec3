"""From label files to one table of numbers, a batch of files at a time.

All the words of a batch become numbers in one go, and array operations tell which row each belongs to. A file
with anything in it but plain numbers (other encodings, nonsense) is read line by line, exactly as Ultralytics
reads it, and goes on as plain text of what could be read.
"""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from nantui.labels.problem_kinds import Found

Array: TypeAlias = np.ndarray
BOM = b"\xef\xbb\xbf"
NEWLINE, SPACE, DOT = 10, 32, 46
LONGEST_QUOTE = 40
FIRST_READ = 1 << 13
_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
_FRONT = b"\n" * 8  # so that eight bytes before any byte can be looked at
_POWERS = 10.0 ** np.arange(9)


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


def read_all(folder: str, names: Sequence[str]) -> tuple[list[bytes], list[Found]]:
    """Return the contents of files, empty where there is none that could be read, and which these are."""
    faults: list[Found] = []
    try:
        # Names relative to an open folder spare the system a walk along the path, a fifth of the time.
        opened = os.open(folder or ".", os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
    except OSError:
        return [b""] * len(names), [_missing(index, folder, name) for index, name in enumerate(names)]
    try:
        contents = []
        for index, name in enumerate(names):
            try:
                contents.append(_read(opened, name))
            except OSError as error:
                contents.append(b"")
                # A directory or a broken link is no label file to Ultralytics; a file that cannot be read is.
                is_file = not isinstance(error, FileNotFoundError) and _is_file(opened, name)
                unread = Found(index, 0, "unreadable", error.strerror or str(error))
                faults.append(unread if is_file else _missing(index, folder, name))
    finally:
        os.close(opened)
    return contents, faults


def _missing(index: int, folder: str, name: str) -> Found:
    return Found(index, 0, "no_label", f"no {os.path.join(folder, name)}")


def _read(folder: int, name: str) -> bytes:
    descriptor = os.open(name, _FLAGS, dir_fd=folder)
    try:
        data = os.read(descriptor, FIRST_READ)
        while len(data) % FIRST_READ == 0 and (more := os.read(descriptor, max(FIRST_READ << 4, len(data)))):
            data += more
        return data
    finally:
        os.close(descriptor)


def _is_file(folder: int, name: str) -> bool:
    with suppress(OSError):
        return stat.S_ISREG(os.stat(name, dir_fd=folder).st_mode)
    return False


def parse(files: list[bytes]) -> tuple[Table, list[Found]]:
    """Return the rows of label files, and what cannot be read of them.

    A row with a word that is no number has a fault and is not among the rows.
    """
    faults: list[Found] = []
    try:
        return _table(files), faults
    except ValueError:
        return _table([_plain(index, data, faults) for index, data in enumerate(files)]), faults


def _table(files: list[bytes]) -> Table:
    text = b"\n".join((_FRONT, *files, b""))
    data = np.frombuffer(text, np.uint8)
    blank = data <= SPACE
    edges: Array = np.flatnonzero(blank[1:] != blank[:-1]) + 1
    begin, end = edges[0::2], edges[1::2]
    values = _decimals(text, data, begin, end)
    if values is None:
        values = _floats(text)
    line_ends: Array = np.flatnonzero(data[len(_FRONT) + 1 :] == NEWLINE) + len(_FRONT) + 1
    start: Array = np.append(0, np.searchsorted(begin, line_ends))
    filled = np.flatnonzero(np.diff(start))
    lines: Array = np.fromiter((data.count(b"\n") + 1 for data in files), np.int64, len(files))
    file = np.repeat(np.arange(len(files)), lines)[filled]
    first_line: Array = np.cumsum(lines) - lines
    starts: Array = np.append(start[filled], start[-1])
    with np.errstate(over="ignore"):
        return Table(values.astype(np.float32), starts, file, filled - first_line[file] + 1)


def _decimals(text: bytes, data: Array, begin: Array, end: Array) -> Array | None:
    """Return the words as numbers where all are what labelling tools write, else None.

    That is at most eight digits, or one, a dot and at most eight more. Eight digits are one number of 64
    bits: pairs of digits, of pairs, of fours are joined in three multiplications for all words at once, three
    times as fast as `float`. One division of exact numbers is the correctly rounded decimal.
    """
    dotted = data[begin + 1] == DOT
    digits = end - begin - 2 * dotted
    odd = text.translate(None, b"0123456789. \t\r\n") or text.count(b".") != np.count_nonzero(dotted)
    if odd or not digits.size or digits.min() < 1 or digits.max() > 8 or not _ends_lines(text):
        return None
    eight = np.ndarray((data.size - 7,), "<u8", data, strides=(1,))[end - 8]
    eight &= np.uint64(0x0F0F0F0F0F0F0F0F) << ((8 - digits) * 8).astype(np.uint64)
    eight = (eight * np.uint64(2561)) >> np.uint64(8)
    eight = ((eight & np.uint64(0x00FF00FF00FF00FF)) * np.uint64(6553601)) >> np.uint64(16)
    eight = ((eight & np.uint64(0x0000FFFF0000FFFF)) * np.uint64(42949672960001)) >> np.uint64(32)
    power = _POWERS[digits * dotted]
    return ((data[begin] & 15) * dotted * power + eight) / power


def _floats(text: bytes) -> Array:
    if text.translate(None, b"0123456789.+-eEinfa \t\r\n") or not _ends_lines(text):
        raise ValueError
    return np.fromiter(map(float, text.split()), np.float64)


def _ends_lines(text: bytes) -> bool:
    return text.count(b"\r") == text.count(b"\r\n")


def _plain(index: int, data: bytes, faults: list[Found]) -> bytes:
    """Return a file with its rows in plain words, on the lines where they are; adds to `faults`.

    Words become numbers by `float`, so that `1_0`, `infinity` and non-ASCII digits are what they are to
    Ultralytics.
    """
    with suppress(ValueError):
        _floats(data)
        return data
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data.count(b"\n", 0, error.start)
        faults.append(Found(index, before + 1, "encoding", _what_encoding(data, error)))
        text = ""
    rows = []
    # `open` in text mode turns every line end into a newline before Ultralytics splits lines.
    for number, line in enumerate(text.replace("\r\n", "\n").replace("\r", "\n").splitlines(), 1):
        row = []
        for word in line.split():
            try:
                row.append(repr(float(word)))
            except ValueError:
                faults.append(Found(index, number, "not_a_number", f"{_quote(word)} is no number"))
                row = []
                break
        rows.append(" ".join(row))
    if data.startswith(BOM):
        faults.append(Found(index, 1, "bom", "the file begins with a byte-order mark"))
    return "\n".join(rows).encode()


def _quote(word: str) -> str:
    shown = ascii(word)
    return shown if len(shown) <= LONGEST_QUOTE else shown[: LONGEST_QUOTE - 1] + "…"


def _what_encoding(data: bytes, error: UnicodeDecodeError) -> str:
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "UTF-16 text; save it as UTF-8"
    return f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
