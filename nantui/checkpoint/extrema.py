"""The two maxima per row, and the exact counts where a row looks wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from nantui.checkpoint.formats import Format
from nantui.checkpoint.layout import Segment
from nantui.checkpoint.tree import MASK, WEIGHTS

Array = Any
MOST_LISTED = 4096
_UNSIGNED = {16: "<u2", 32: "<u4", 64: "<u8"}
_SIGNED = {16: "<i2", 32: "<i4", 64: "<i8"}


class Job(NamedTuple):
    """Rows of a segment that lie in the buffer: `rows` rows of `length` values from byte `at`."""

    segment: Segment
    first_row: int
    at: int
    rows: int
    length: int


@dataclass(slots=True)
class Counts:
    """What the values of one segment are.

    `nan`, `inf` and `limit` count values, `zeros` and `limits_only` rows: one holds nothing but zeros,
    the other nothing but zeros and at least one value at the dtype's limit. The first 4096 rows that are
    zero, and that have a value at the limit, are listed. Without channels a row is a piece of the segment.
    """

    nan: int = 0
    inf: int = 0
    limit: int = 0
    zeros: int = 0
    limits_only: int = 0
    zero_rows: list[int] = field(default_factory=list)
    limit_rows: list[int] = field(default_factory=list)


def reduce(form: Format, jobs: list[Job], buffer: Array, found: dict[Segment, Counts]) -> None:
    """Take both maxima of every row of `jobs` and enter what is suspicious into `found`."""
    starts, ends = _boundaries(form, jobs)
    end = int(starts[-1])
    unsigned = buffer[: (end + 1) * form.size].view(_UNSIGNED[form.bits])
    high = np.maximum.reduceat(unsigned, starts)
    low = np.maximum.reduceat(unsigned.view(_SIGNED[form.bits]), starts)
    infinite = (low >= form.infinity) | (high >= (form.infinity | form.sign))
    zero = (high == 0) | ((high == form.sign) & (low <= 0))
    limit: Array = np.zeros(len(high), bool)
    for value in form.limits:
        limit |= (low == value) | (high == (value | form.sign))
    flagged = infinite | zero | limit
    flagged[ends - 1] = False  # the gap behind each job
    for index in np.unique(np.searchsorted(ends, np.flatnonzero(flagged), "right")):
        rows = slice(ends[index] - 1 - jobs[index].rows, ends[index] - 1)
        _enter(jobs[index], infinite[rows], zero[rows], limit[rows], buffer, found)


def _boundaries(form: Format, jobs: list[Job]) -> tuple[Array, Array]:
    """Return where rows begin (in values), and where each job's rows end in that list.

    The last entry of each job is the gap behind it, which has no meaning.
    """
    rows = np.array([job.rows for job in jobs])
    begins = np.array([job.at // form.size for job in jobs])
    lengths = np.array([job.length for job in jobs])
    each = rows + 1
    ends = np.cumsum(each)
    within = np.arange(ends[-1]) - np.repeat(ends - each, each)
    return np.repeat(begins, each) + within * np.repeat(lengths, each), ends


def _enter(job: Job, infinite: Array, zero: Array, limit: Array, buffer: Array, found: Any) -> None:
    counts = found.setdefault(job.segment, Counts())
    form = job.segment.format
    if infinite.any():
        values = _values(job, buffer, infinite)
        magnitude = values & (form.sign - 1)
        counts.nan += int(np.count_nonzero(magnitude > form.infinity))
        counts.inf += int(np.count_nonzero(magnitude == form.infinity))
    if any(leaf.role in (WEIGHTS, MASK) for leaf in job.segment.leaves):
        counts.zeros += int(np.count_nonzero(zero))
        _list(counts.zero_rows, zero, job.first_row)
        if limit.any():
            _limits(job, limit, counts, buffer)


def _limits(job: Job, limit: Array, counts: Counts, buffer: Array) -> None:
    form = job.segment.format
    magnitude = _values(job, buffer, limit) & (form.sign - 1)
    at_limit = np.isin(magnitude, np.array(form.limits, magnitude.dtype))
    counts.limit += int(np.count_nonzero(at_limit))
    counts.limits_only += int(np.count_nonzero((at_limit | (magnitude == 0)).all(axis=1)))
    _list(counts.limit_rows, limit, job.first_row)


def _list(listed: list[int], rows: Array, first: int) -> None:
    listed.extend((np.flatnonzero(rows)[: MOST_LISTED - len(listed)] + first).tolist())


def _values(job: Job, buffer: Array, rows: Array) -> Array:
    """Return the chosen rows of a job as unsigned integers, shape (rows, length)."""
    form = job.segment.format
    flat = buffer[job.at : job.at + job.rows * job.length * form.size].view(_UNSIGNED[form.bits])
    return flat.reshape(job.rows, job.length)[rows]


def gather(segment: Segment, span: Array, found: dict[Segment, Counts]) -> None:
    """Judge a segment with gaps: only the values its strides reach, as one row."""
    assert segment.strides is not None
    flat = span.view(_UNSIGNED[segment.format.bits])
    values = np.ascontiguousarray(np.lib.stride_tricks.as_strided(flat, *segment.strides))
    job = Job(segment, 0, 0, 1, values.size)
    padded = np.concatenate([values.reshape(-1).view(np.uint8), np.zeros(8, np.uint8)])
    reduce(segment.format, [job], padded, found)
