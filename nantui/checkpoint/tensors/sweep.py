"""One pass over the bytes of a checkpoint: bounded reads, two maxima per row, nothing kept.

Records are read in batches of four megabytes, which stay in the processor's cache while the maxima are
taken. Two threads share the batches (numpy and the reads release the interpreter lock). With `crc` the
same bytes are also summed, so that nothing is read twice.

Healthy files are nearly all there is to read, so the common case is two reductions at memory speed: the
maximum over the unsigned and over the signed view. Only a row whose first value is exactly zero can be a
zero row, so rows cost one value each; exact counts are taken only where these signs point.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from nantui.checkpoint.pickle.stand_ins import Refused
from nantui.checkpoint.tensors.float_formats import Format
from nantui.checkpoint.tensors.segments import BATCH, Counts, Found, Segment, Swept
from nantui.checkpoint.tensors.zip_archive import LOCAL_SIZE, Archive, Record, check_local

Array = Any
_UNSIGNED = {16: np.dtype("<u2"), 32: np.dtype("<u4"), 64: np.dtype("<u8")}
_SIGNED = {16: np.dtype("<i2"), 32: np.dtype("<i4"), 64: np.dtype("<i8")}
_SLACK = 16384  # local header, padding and data descriptor around the last record of a batch
_PARALLEL_FROM = 16 << 20
_PAGE = 4096


class Job(NamedTuple):
    """Rows of a segment that lie in the buffer: `rows` rows of `length` values from byte `at`."""

    segment: Segment
    first_row: int
    at: int
    rows: int
    length: int


def reduce(form: Format, jobs: list[Job], buffer: Array, found: Found) -> None:
    """Look at every value of `jobs`, which lie in ascending order in `buffer`; enter the suspicious ones."""
    words = buffer[: buffer.size // form.size * form.size].view(_UNSIGNED[form.bits])
    if len(jobs) == 1:
        _reduce_one(form, jobs[0], words, found)
        return
    for index in _suspicious(form, jobs, words):
        _count(jobs[index], words, found)
    _zero_rows(form, [job for job in jobs if job.segment.of_weights], words, found)


def _reduce_one(form: Format, job: Job, words: Array, found: Found) -> None:
    """The same for a single job, which is where the bytes are: no array but the values themselves."""
    begin = job.at // form.size
    values = words[begin : begin + job.rows * job.length]
    high = int(values.max())
    low = int(values.view(_SIGNED[form.bits]).max()) if high >= form.infinity else high
    if max(low, high & ~form.sign) >= form.infinity or low in form.limits or high ^ form.sign in form.limits:
        _count(job, words, found)
    if job.segment.of_weights and not (values[:: job.length] & (form.sign - 1)).all():
        _zero_rows(form, [job], words, found)


def _suspicious(form: Format, jobs: list[Job], words: Array) -> list[int]:
    """Return the indices of jobs in which a value is not finite or at the limit."""
    bounds: Array = np.empty(2 * len(jobs), np.intp)
    bounds[0::2] = [job.at // form.size for job in jobs]
    bounds[1::2] = bounds[0::2] + [job.rows * job.length for job in jobs]
    some = words[: bounds[-1] + 1]
    high = np.maximum.reduceat(some, bounds)[0::2]
    low = np.maximum.reduceat(some.view(_SIGNED[form.bits]), bounds)[0::2]
    wrong = (low >= form.infinity) | (high >= (form.infinity | form.sign))
    for limit in form.limits:
        wrong |= (low == limit) | (high == (limit | form.sign))
    return list(np.flatnonzero(wrong).tolist())


def _count(job: Job, words: Array, found: Found) -> None:
    """Count what a suspicious job holds, value by value."""
    form, counts = job.segment.format, found.setdefault(job.segment, Counts())
    begin = job.at // form.size
    magnitude = words[begin : begin + job.rows * job.length] & (form.sign - 1)
    counts.nan += int(np.count_nonzero(magnitude > form.infinity))
    counts.inf += int(np.count_nonzero(magnitude == form.infinity))
    if not job.segment.of_weights:
        return
    at_limit = magnitude == form.limits[0]
    for limit in form.limits[1:]:
        at_limit |= magnitude == limit
    counts.limit += int(np.count_nonzero(at_limit))
    rows = at_limit.reshape(job.rows, job.length)
    some = np.flatnonzero(rows.any(axis=1))
    nothing_else = (rows | (magnitude == 0).reshape(rows.shape))[some].all(axis=1)
    counts.limits_only += int(np.count_nonzero(nothing_else))
    found.enter(counts.limit_rows, some + job.first_row)


def _zero_rows(form: Format, jobs: list[Job], words: Array, found: Found) -> None:
    """Enter the rows that hold nothing but zeros: those whose first value is zero, if the rest is too."""
    if not jobs:
        return
    rows = np.array([job.rows for job in jobs])
    begins = np.array([job.at // form.size for job in jobs])
    ends = np.cumsum(rows)
    within = np.arange(ends[-1]) - np.repeat(ends - rows, rows)
    starts = np.repeat(begins, rows) + within * np.repeat([job.length for job in jobs], rows)
    candidates = np.flatnonzero((words[starts] & (form.sign - 1)) == 0)
    edges: Array = np.searchsorted(candidates, ends)
    first = 0
    for job, begin, last in zip(jobs, begins.tolist(), edges.tolist(), strict=True):
        if first < last:
            values = words[begin : begin + job.rows * job.length].reshape(job.rows, job.length)
            zero = _all_zero(values, within[candidates[first:last]], form)
            if zero.size:
                counts = found.setdefault(job.segment, Counts())
                counts.zeros += zero.size
                found.enter(counts.zero_rows, zero + job.first_row)
        first = last


def _all_zero(values: Array, rows: Array, form: Format) -> Array:
    """Return those of `rows` that are zero throughout; a column at a time where rows are many and short."""
    if values.shape[1] < rows.size:
        for column in range(1, values.shape[1]):
            rows = rows[(values[rows, column] & (form.sign - 1)) == 0]
        return rows
    return np.array([row for row in rows.tolist() if not (values[row] & (form.sign - 1)).any()], np.intp)


def gather(segment: Segment, span: Array, found: Found) -> None:
    """Count in a segment with gaps: only the values its strides reach, as one row."""
    assert segment.strides is not None
    flat = span.view(_UNSIGNED[segment.format.bits])
    values = np.ascontiguousarray(np.lib.stride_tricks.as_strided(flat, *segment.strides)).reshape(-1)
    reduce(segment.format, [Job(segment, 0, 0, 1, values.size)], values.view(np.uint8), found)


def sweep(archive: Archive, segments: dict[str, list[Segment]], crc: bool) -> Swept:
    """Look at every value once. Raises Refused where the file is torn under our hands."""
    swept = Swept()
    batches = list(_batches(archive, segments, crc))
    work = _Work(archive, segments, crc, swept)
    if archive.size < _PARALLEL_FROM:
        work.do(batches)
        return swept
    errors: list[BaseException] = []

    def do_the_others() -> None:
        try:
            work.do(batches[1::2])
        except BaseException as error:  # raised again where it is waited for
            errors.append(error)

    # `concurrent.futures` would be shorter, and would import logging.
    helper = threading.Thread(target=do_the_others, daemon=True)
    helper.start()
    try:
        work.do(batches[0::2])
    finally:
        helper.join()
    if errors:
        raise errors[0]
    return swept


def _batches(archive: Archive, segments: dict[str, list[Segment]], crc: bool) -> Iterator[list[Record]]:
    """Group neighbouring records until a batch is full; a record larger than a batch comes alone."""
    wanted = [record for name, record in archive.records.items() if crc or name in segments]
    batch: list[Record] = []
    for record in sorted(wanted, key=lambda record: record.header):
        if batch and record.header + record.size + _SLACK > batch[0].header + BATCH:
            yield batch
            batch = []
        batch.append(record)
    if batch:
        yield batch


class _Work:
    """What the threads of a sweep share; each has a buffer of its own."""

    def __init__(self, archive: Archive, segments: dict[str, list[Segment]], crc: bool, swept: Swept) -> None:
        self.archive, self.segments, self.crc, self.swept = archive, segments, crc, swept

    def do(self, batches: list[list[Record]]) -> None:
        """Do several batches one after the other in one buffer."""
        buffer = _buffer(BATCH + 2 * _SLACK)
        for batch in batches:
            fits = len(batch) > 1 or batch[0].size + _SLACK <= BATCH
            for record in self._together(batch, buffer) if fits else batch:
                self._alone(record, buffer)

    def _together(self, batch: list[Record], buffer: Array) -> list[Record]:
        """Do records that fit into one read; return those that need a read of their own."""
        base, last, limit = batch[0].header // _PAGE * _PAGE, batch[-1], self.archive.size
        size = min(last.header + last.size + _SLACK, limit) - base
        raw = memoryview(self._fill(buffer, base, size))
        jobs: dict[Format, list[Job]] = {}
        alone = []
        for record in batch:
            at = record.header - base
            header = raw[at : at + LOCAL_SIZE + len(record.raw_name)].tobytes()
            start = check_local(header, record, limit) - base
            segments = self.segments.get(record.name, ())
            if start + record.size > size or not all(_simple(segment, start) for segment in segments):
                alone.append(record)
                continue
            if self.crc:
                self._sum_pieces(record, iter((buffer[start : start + record.size],)))
            for segment in segments:
                job = Job(segment, 0, start + segment.start, segment.rows, segment.length)
                jobs.setdefault(segment.format, []).append(job)
        for form, some in jobs.items():
            reduce(form, some, buffer, self.swept.counts)
        return alone

    def _alone(self, record: Record, buffer: Array) -> None:
        """Do one record piece by piece, in one pass if a single tensor fills it, as almost always."""
        start = self.archive.data_offset(record)
        segments = self.segments.get(record.name, [])
        fills = len(segments) == 1 and segments[0].strides is None and segments[0].end == record.size
        if fills and (not segments[0].start or not self.crc):
            self._sum_pieces(record, self._segment(segments[0], start, buffer))
            return
        if self.crc:
            whole = ((start + at, min(BATCH, record.size - at)) for at in range(0, record.size, BATCH))
            self._sum_pieces(record, (self._fill(buffer, at, size) for at, size in whole))
        for segment in segments:
            for _ in self._segment(segment, start, buffer):
                pass

    def _segment(self, segment: Segment, start: int, buffer: Array) -> Iterator[Array]:
        """Count in one segment of a record whose bytes begin at `start`; yields the bytes as they come."""
        if segment.strides is not None:
            span = _buffer(segment.end - segment.start)
            yield self._fill(span, start + segment.start, len(span))
            gather(segment, span, self.swept.counts)
            return
        size = segment.format.size
        row = segment.length * size if segment.channels else size
        step = BATCH // row * row
        for at in range(segment.start, segment.end, step):
            piece = self._fill(buffer, start + at, min(step, segment.end - at))
            yield piece
            job = Job(segment, 0, 0, 1, len(piece) // size)
            if segment.channels:
                job = Job(segment, (at - segment.start) // row, 0, len(piece) // row, segment.length)
            reduce(segment.format, [job], buffer, self.swept.counts)

    def _sum_pieces(self, record: Record, pieces: Iterator[Array]) -> None:
        total = 0
        for piece in pieces:
            if self.crc:
                total = zlib.crc32(piece, total)
        if self.crc and total != record.crc:
            self.swept.bad_crc.append(record.name)

    def _fill(self, buffer: Array, offset: int, size: int) -> Array:
        """Read exactly `size` bytes at `offset` into the beginning of `buffer`, and return that part."""
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


def _simple(segment: Segment, start: int) -> bool:
    """Whether a segment can be read where it lies in a shared buffer: dense and aligned."""
    return segment.strides is None and (start + segment.start) % segment.format.size == 0
