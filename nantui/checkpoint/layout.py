"""Where each tensor's values lie in its record, and in which rows they are judged.

A row is an output channel of a weight matrix, or a whole vector. Anything whose claimed shape does not
fit into its record, or that would have us read bytes many times over, is refused here, before a single
byte of it is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from operator import itemgetter

from nantui.checkpoint.archive import Archive, Record
from nantui.checkpoint.counts import Segment
from nantui.checkpoint.formats import FLOATS, SIZES, Format
from nantui.checkpoint.symbols import Refused, Storage
from nantui.checkpoint.tree import MASK, WEIGHTS, Leaf

MOST_ROWS = 1 << 18
MOST_ROW_BYTES = 1 << 20
MOST_VALUES_ALONE = 1 << 16
FEWEST_VALUES = 4  # a row with fewer values can be zero by chance
_MOST_SPARSE_BYTES = 12 << 20
_MOST_OVERLAP = 4

Sizes = tuple[int, ...]


_NORMS = re.compile(r"torch\.nn\.modules\.(batchnorm|instancenorm|normalization)\.\w+")


def is_norm(leaf: Leaf) -> bool:
    """Whether a tensor is a normalization layer's scale or variance, which are never all zero by training."""
    if leaf.attribute == "running_var":
        return True
    return leaf.attribute == "weight" and _NORMS.fullmatch(leaf.module) is not None


def layout(leaves: Iterable[Leaf], archive: Archive) -> dict[str, list[Segment]]:
    """Return the segments of each record that holds floats, sorted by where they start.

    Raises Refused for a shape that does not fit, a missing record, an exotic dtype.
    """
    found: dict[str, dict[tuple[int, ...], Segment]] = {}
    for leaf in leaves:
        record = record_of(leaf.tensor.storage, archive)
        segment = _segment(leaf, record)
        if segment is not None:
            key = (segment.start, segment.rows, segment.length, segment.format.bits)
            known = found.setdefault(record.name, {}).setdefault(key, segment)
            known.leaves.append(leaf)
            known.judged = known.judged or leaf.role in (WEIGHTS, MASK)
    return {name: _ordered(archive.records[name], list(parts.values())) for name, parts in found.items()}


def record_of(storage: Storage, archive: Archive) -> Record:
    """Return the record of a storage; its size has to be the size the pickle claims."""
    record = archive.records.get(f"data/{storage.key}")
    if record is None:
        raise Refused("torn", f"data/{storage.key}"[:100], "the record that holds this tensor is missing")
    if storage.numel * SIZES[storage.dtype] != record.size:
        claim = f"the pickle claims {storage.numel} x {storage.dtype}, the record has {record.size} bytes"
        raise Refused("unsafe", record.name, claim)
    return record


def _segment(leaf: Leaf, record: Record) -> Segment | None:
    """Return where a tensor's values lie in its record; None where there is nothing to judge."""
    tensor = leaf.tensor
    size = SIZES.get(tensor.dtype)
    if size is None:
        raise Refused("cannot-read", leaf.name, f"dtype {tensor.dtype[:30]} cannot be judged")
    dims, count, span, dense = _measure(tensor.shape, tensor.stride)
    if 0 in tensor.shape:
        return None
    if (tensor.offset + span) * size > record.size:
        shown = "x".join(map(str, tensor.shape))[:60]
        raise Refused("unsafe", leaf.name, f"its shape {shown} does not fit into its record")
    form = FLOATS.get(tensor.dtype)
    if form is None:
        return None
    if dense:
        return _dense_segment(leaf, dims, tensor.offset * size, count * (size // form.size), form)
    return _sparse_segment(leaf, dims, tensor.offset * size, count, form, size // form.size)


@lru_cache(maxsize=1024)
def _measure(shape: Sizes, stride: Sizes) -> tuple[tuple[Sizes, ...], int, int, bool]:
    """Return (dimensions with more than one place, distinct values, elements spanned, whether dense).

    Remembered, because weights, momentum and moments come in the same few shapes.
    """
    count, span, dims = 1, 1, []
    for length, step in zip(shape, stride, strict=True):
        if length > 1 and step:
            dims.append((length, step))
            count *= length
        span += (length - 1) * step
    return tuple(dims), count, span, _dense(dims)


def _dense(dims: Iterable[Sizes]) -> bool:
    """Whether the values fill a range without gaps or repeats, in whatever order (channels_last too)."""
    expected = 1
    for size, step in sorted(dims, key=itemgetter(1)):
        if step != expected:
            return False
        expected *= size
    return True


def _dense_segment(leaf: Leaf, dims: Iterable[Sizes], start: int, count: int, form: Format) -> Segment:
    tensor = leaf.tensor
    if len(tensor.shape) == 1:
        alone = 1 < count <= MOST_VALUES_ALONE and is_norm(leaf)
        return Segment(start, count, 1, form, True) if alone else Segment(start, 1, count, form, False)
    rows = tensor.shape[0] if tensor.shape and tensor.stride[0] else 1
    length = count // rows
    if rows > 1 and not (rows <= MOST_ROWS and FEWEST_VALUES <= length <= MOST_ROW_BYTES // form.size):
        rows = 1
    if rows > 1 and any(step > tensor.stride[0] for _, step in dims):
        rows = 1  # the channels are not the outermost dimension
    return Segment(start, rows, count // rows, form, rows > 1)


def _sparse_segment(
    leaf: Leaf, dims: Iterable[Sizes], start: int, count: int, form: Format, parts: int
) -> Segment:
    span = 1 + sum((size - 1) * step for size, step in dims)
    if count > span or span * form.size * parts > _MOST_SPARSE_BYTES or parts > 1:
        raise Refused("cannot-read", leaf.name, "its strides are too unusual to be judged")
    strides = tuple(size for size, _ in dims), tuple(step * form.size for _, step in dims)
    return Segment(start, 1, span, form, channels=False, strides=strides)


def _ordered(record: Record, segments: list[Segment]) -> list[Segment]:
    covered = sum(segment.end - segment.start for segment in segments)
    if covered > _MOST_OVERLAP * max(record.size, 1):
        raise Refused("cannot-read", record.name, "its tensors overlap each other many times")
    return sorted(segments, key=lambda segment: segment.start)
