"""One pass over the bytes of a checkpoint: bounded reads, two maxima per row, nothing kept.

Two threads share the batches (numpy and the reads release the interpreter lock), and with `crc` the records
whose sums are taken. Exact counts are taken only where the maxima, and for zero rows a row's first value,
point to something.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from nantui.checkpoint.pickle.stand_ins import Refused
from nantui.checkpoint.tensors.segments import BATCH, Counts, Found, Segment, Swept
from nantui.checkpoint.tensors.zip_archive import LOCAL_SIZE, Archive, Record, check_local

Array = Any
_UNSIGNED = {16: np.dtype("<u2"), 32: np.dtype("<u4"), 64: np.dtype("<u8")}
_SIGNED = {16: np.dtype("<i2"), 32: np.dtype("<i4"), 64: np.dtype("<i8")}
_SLACK = 16384  # local header, padding and data descriptor around the last record of a batch
_PARALLEL_FROM = 16 << 20
_PAGE = 4096


def reduce(segment: Segment, first_row: int, raw: Array, length: int, found: Found) -> None:
    """Look at every value in the bytes `raw`, rows of `length` values of a segment from its `first_row` on;
    enter what is suspicious.
    """
    form = segment.format
    values = raw.view(_UNSIGNED[form.bits])
    high = int(values.max())
    low = int(values.view(_SIGNED[form.bits]).max()) if high >= form.infinity else high
    if max(low, high & ~form.sign) >= form.infinity or low in form.limits or high ^ form.sign in form.limits:
        _count(segment, first_row, values, length, found)
    if segment.of_weights:
        _zero_rows(segment, first_row, values, length, found)


def _count(segment: Segment, first_row: int, values: Array, length: int, found: Found) -> None:
    form, counts = segment.format, found.setdefault(segment, Counts())
    magnitude = values & (form.sign - 1)
    counts.nan += int(np.count_nonzero(magnitude > form.infinity))
    counts.inf += int(np.count_nonzero(magnitude == form.infinity))
    if not segment.of_weights:
        return
    at_limit = magnitude == form.limits[0]
    for limit in form.limits[1:]:
        at_limit |= magnitude == limit
    counts.limit += int(np.count_nonzero(at_limit))
    rows = at_limit.reshape(-1, length)
    some = np.flatnonzero(rows.any(axis=1))
    nothing_else = (rows | (magnitude == 0).reshape(rows.shape))[some].all(axis=1)
    counts.limits_only += int(np.count_nonzero(nothing_else))
    found.enter(counts.limit_rows, some + first_row)


def _zero_rows(segment: Segment, first_row: int, values: Array, length: int, found: Found) -> None:
    firsts = values[::length] & (segment.format.sign - 1)
    if firsts.all():
        return
    rows, zero = values.reshape(-1, length), np.flatnonzero(firsts == 0)
    if length < zero.size:  # many and short: a column at a time
        for column in range(1, length):
            zero = zero[(rows[zero, column] & (segment.format.sign - 1)) == 0]
    else:
        kept = [row for row in zero.tolist() if not (rows[row] & (segment.format.sign - 1)).any()]
        zero = np.array(kept, np.intp)
    if zero.size:
        counts = found.setdefault(segment, Counts())
        counts.zeros += zero.size
        found.enter(counts.zero_rows, zero + first_row)


def gather(segment: Segment, span: Array, found: Found) -> None:
    """Count in a segment with gaps: only the values its strides reach, as one row."""
    assert segment.strides is not None
    flat = span.view(_UNSIGNED[segment.format.bits])
    values = np.ascontiguousarray(np.lib.stride_tricks.as_strided(flat, *segment.strides)).reshape(-1)
    reduce(segment, 0, values.view(np.uint8), values.size, found)


def sweep(archive: Archive, segments: dict[str, list[Segment]], crc: bool) -> Swept:
    """Look at every value once. Raises Refused where the file is torn under our hands."""
    found, bad_crc = Found(), list[str]()
    batches = list(_batches(archive, segments))
    summed = list(archive.records) if crc else []
    errors: list[BaseException] = []

    def do(first: int, step: int) -> None:
        try:
            _Work(archive, segments, found).do(batches[first::step])
            bad_crc.extend(name for name in summed[first::step] if not archive.is_sound(name))
        except BaseException as error:  # raised again where it is waited for
            errors.append(error)

    threads = 1 if archive.size < _PARALLEL_FROM else 2
    # `concurrent.futures` would be shorter, and would import logging.
    helper = threading.Thread(target=do, args=(1, 2), daemon=True) if threads == 2 else None
    if helper:
        helper.start()
    do(0, threads)
    if helper:
        helper.join()
    if errors:
        raise errors[0]
    return found, bad_crc


def _batches(archive: Archive, segments: dict[str, list[Segment]]) -> Iterator[list[Record]]:
    batch: list[Record] = []
    for record in sorted((archive.records[name] for name in segments), key=lambda record: record.header):
        if batch and record.header + record.size + _SLACK > batch[0].header + BATCH:
            yield batch
            batch = []
        batch.append(record)
    if batch:
        yield batch


class _Work:
    def __init__(self, archive: Archive, segments: dict[str, list[Segment]], found: Found) -> None:
        self.archive, self.segments, self.found = archive, segments, found
        self.buffer = _buffer(BATCH + 2 * _SLACK)

    def do(self, batches: list[list[Record]]) -> None:
        for batch in batches:
            fits = len(batch) > 1 or batch[0].size + _SLACK <= BATCH
            for record in self._together(batch) if fits else batch:
                start = self.archive.data_offset(record)
                for segment in self.segments[record.name]:
                    self._alone(segment, start)

    def _together(self, batch: list[Record]) -> list[Record]:
        base, last, limit = batch[0].header // _PAGE * _PAGE, batch[-1], self.archive.size
        size = min(last.header + last.size + _SLACK, limit) - base
        raw = memoryview(self._fill(self.buffer, base, size))
        alone = []
        for record in batch:
            at = record.header - base
            header = raw[at : at + LOCAL_SIZE + len(record.raw_name)].tobytes()
            start = check_local(header, record, limit) - base
            segments = self.segments[record.name]
            dense = all(segment.strides is None for segment in segments)
            aligned = all((start + segment.start) % segment.format.size == 0 for segment in segments)
            if start + record.size > size or not (dense and aligned):
                alone.append(record)
                continue
            for segment in segments:
                own = self.buffer[start + segment.start : start + segment.end]
                reduce(segment, 0, own, segment.length, self.found)
        return alone

    def _alone(self, segment: Segment, start: int) -> None:
        if segment.strides is not None:
            span = _buffer(segment.end - segment.start)
            gather(segment, self._fill(span, start + segment.start, len(span)), self.found)
            return
        size = segment.format.size
        row = segment.length * size if segment.channels else size
        step = BATCH // row * row
        for at in range(segment.start, segment.end, step):
            piece = self._fill(self.buffer, start + at, min(step, segment.end - at))
            length = segment.length if segment.channels else len(piece) // size
            reduce(segment, (at - segment.start) // row, piece, length, self.found)

    def _fill(self, buffer: Array, offset: int, size: int) -> Array:
        view = memoryview(buffer)[:size]
        done = 0
        while done < size:
            count = os.preadv(self.archive.descriptor, [view[done:]], offset + done)
            if count == 0:
                raise Refused("torn", "file", f"it ends at byte {offset + done}, in the middle")
            done += count
        return buffer[:size]


def _buffer(size: int) -> Array:
    """Return an empty buffer that begins on a page.

    On AMD Zen 3 a read runs at a quarter of its speed where buffer and file differ by 16 bytes within the
    page, which is just what a large malloc gives.
    """
    room: Array = np.empty(size + _PAGE, np.uint8)
    start = -room.ctypes.data % _PAGE
    return room[start : start + size]
