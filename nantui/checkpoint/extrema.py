"""The two maxima per tensor, and the exact counts where something looks wrong.

Healthy files are nearly all there is to read, so the common case is two reductions at memory speed: the
maximum over the unsigned and over the signed view. Only a row whose first value is exactly zero can be a
zero row, so rows cost one value each; everything else is counted only where these signs point.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from nantui.checkpoint.counts import Counts, Found, Segment
from nantui.checkpoint.formats import Format

Array = Any
_UNSIGNED = {16: np.dtype("<u2"), 32: np.dtype("<u4"), 64: np.dtype("<u8")}
_SIGNED = {16: np.dtype("<i2"), 32: np.dtype("<i4"), 64: np.dtype("<i8")}


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
    _zero_rows(form, [job for job in jobs if job.segment.judged], words, found)


def _reduce_one(form: Format, job: Job, words: Array, found: Found) -> None:
    """The same for a single job, which is where the bytes are: no array but the values themselves."""
    begin = job.at // form.size
    values = words[begin : begin + job.rows * job.length]
    high = int(values.max())
    low = int(values.view(_SIGNED[form.bits]).max()) if high >= form.infinity else high
    if max(low, high & ~form.sign) >= form.infinity or low in form.limits or high ^ form.sign in form.limits:
        _count(job, words, found)
    if job.segment.judged and not (values[:: job.length] & (form.sign - 1)).all():
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
    if not job.segment.judged:
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
    """Judge a segment with gaps: only the values its strides reach, as one row."""
    assert segment.strides is not None
    flat = span.view(_UNSIGNED[segment.format.bits])
    values = np.ascontiguousarray(np.lib.stride_tricks.as_strided(flat, *segment.strides)).reshape(-1)
    reduce(segment.format, [Job(segment, 0, 0, 1, values.size)], values.view(np.uint8), found)
