"""Where each tensor's values lie in its record, what a sweep is asked about them and what it counts.

A row is an output channel of a weight matrix, or a whole vector. Anything whose claimed shape does not
fit into its record, or that would have us read bytes many times over, is refused here, before a single
byte of it is read. All of it can be made and checked without numpy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from operator import itemgetter
from typing import Any

from nantui.checkpoint.pickle.stand_ins import Refused, Storage
from nantui.checkpoint.tensors.tensor_tree import MASK, WEIGHTS, Leaf
from nantui.checkpoint.tensors.zip_archive import Archive, Record

BATCH = 4 << 20  # bytes read at once
MOST_LISTED = 4096
MOST_LISTED_IN_ALL = 1 << 17
MOST_ROWS = 1 << 18
MOST_ROW_BYTES = 1 << 20
MOST_VALUES_ALONE = 1 << 16
FEWEST_VALUES = 4  # a row with fewer values can be zero by chance
_MOST_SPARSE_BYTES = 12 << 20
_MOST_OVERLAP = 4
Sizes = tuple[int, ...]
_NORMS = re.compile(r"torch\.nn\.modules\.(batchnorm|instancenorm|normalization)\.\w+")


@dataclass(frozen=True)
class Format:
    """Bit patterns of one float format; `limits` are magnitudes that a clamp leaves behind.

    Ultralytics clamps in fp16, so 65504 counts as a limit in the wider formats too (65536 in bf16, which
    cannot hold 65504): a laundered file that was converted afterwards still shows it.
    """

    bits: int
    infinity: int
    limits: tuple[int, ...]

    @cached_property
    def size(self) -> int:  # bytes of a value
        return self.bits // 8

    @cached_property
    def sign(self) -> int:  # its bit alone
        return 1 << (self.bits - 1)


_SINGLE = Format(32, 0x7F800000, (0x7F7FFFFF, 0x477FE000))
_DOUBLE = Format(64, 0x7FF0000000000000, (0x7FEFFFFFFFFFFFFF, 0x40EFFC0000000000))

FLOATS: dict[str, Format] = {
    "float16": Format(16, 0x7C00, (0x7BFF,)), "bfloat16": Format(16, 0x7F80, (0x7F7F, 0x4780)),
    "float32": _SINGLE, "float64": _DOUBLE, "complex64": _SINGLE, "complex128": _DOUBLE,
}  # fmt: skip
SIZES = {
    "bool": 1, "uint8": 1, "int8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8,
    "uint64": 8, "float16": 2, "bfloat16": 2, "float32": 4, "float64": 8, "complex64": 8, "complex128": 16,
}  # fmt: skip


@dataclass(eq=False, slots=True)
class Segment:
    """Values that lie together: `rows` rows of `length` values from byte `start` of the record.

    `channels` says that rows mean something: output channels, or the single values of a normalization
    layer's scale and variance.
    `of_weights` is whether zeros and limits matter in it, because it holds weights.
    `leaves` are the tensors that are exactly these values (tied weights share one segment). A segment
    with `strides` is not dense and is gathered value by value.
    """

    format: Format
    start: int
    rows: int
    length: int
    channels: bool
    of_weights: bool = False
    strides: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    leaves: list[Leaf] = field(default_factory=list)

    @property
    def end(self) -> int:
        """The byte after the last value, in the record."""
        return self.start + self.rows * self.length * self.format.size


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


class Found(dict[Segment, Counts]):
    """Counts of the segments in which something was found; how many rows may still be listed."""

    room = MOST_LISTED_IN_ALL

    def enter(self, listed: list[int], rows: Any) -> None:
        """Add row numbers, an array of them, to a list of one of the counts, as far as they are kept."""
        more = rows[: min(MOST_LISTED - len(listed), self.room)].tolist()
        self.room -= len(more)
        listed.extend(more)


Swept = tuple[Found, list[str]]
"""What a sweep found, and the records with a bad CRC."""


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
            known.of_weights = known.of_weights or leaf.role in (WEIGHTS, MASK)
    for name, parts in found.items():
        covered = sum(segment.end - segment.start for segment in parts.values())
        if covered > _MOST_OVERLAP * max(archive.records[name].size, 1):
            raise Refused("cannot-read", name, "its tensors overlap each other many times")
    return {name: sorted(parts.values(), key=lambda segment: segment.start) for name, parts in found.items()}


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
        return Segment(form, start, count, 1, True) if alone else Segment(form, start, 1, count, False)
    rows = tensor.shape[0] if tensor.shape and tensor.stride[0] else 1
    length = count // rows
    if rows > 1 and not (rows <= MOST_ROWS and FEWEST_VALUES <= length <= MOST_ROW_BYTES // form.size):
        rows = 1
    if rows > 1 and any(step > tensor.stride[0] for _, step in dims):
        rows = 1  # the channels are not the outermost dimension
    return Segment(form, start, rows, count // rows, rows > 1)


def _sparse_segment(
    leaf: Leaf, dims: Iterable[Sizes], start: int, count: int, form: Format, parts: int
) -> Segment:
    span = 1 + sum((size - 1) * step for size, step in dims)
    if count > span or span * form.size * parts > _MOST_SPARSE_BYTES or parts > 1:
        raise Refused("cannot-read", leaf.name, "its strides are too unusual to be judged")
    strides = tuple(size for size, _ in dims), tuple(step * form.size for _, step in dims)
    return Segment(form, start, 1, span, channels=False, strides=strides)
