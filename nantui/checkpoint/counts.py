"""What a sweep is asked and what it counts: values that can be made and judged without numpy."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nantui.checkpoint.formats import Format

if TYPE_CHECKING:
    from nantui.checkpoint.tree import Leaf

BATCH = 4 << 20  # bytes read at once
MOST_LISTED = 4096
MOST_LISTED_IN_ALL = 1 << 17


@dataclass(eq=False, slots=True)
class Segment:
    """Values that lie together: `rows` rows of `length` values from byte `start` of the record.

    `channels` says that rows mean something: output channels, or the single values of a normalization
    layer's scale and variance.
    `judged` is whether zeros and limits matter in it, because it holds weights.
    `leaves` are the tensors that are exactly these values (tied weights share one segment). A segment
    with `strides` is not dense and is gathered value by value.
    """

    start: int
    rows: int
    length: int
    format: Format
    channels: bool
    leaves: list[Leaf] = field(default_factory=list)
    judged: bool = False
    strides: tuple[tuple[int, ...], tuple[int, ...]] | None = None

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

    def values(self) -> tuple[Any, ...]:
        """Return all of it, in the order of the constructor's arguments."""
        return (
            self.nan, self.inf, self.limit, self.zeros, self.limits_only, self.zero_rows, self.limit_rows,
        )  # fmt: skip


class Found(dict[Segment, Counts]):
    """Counts of the segments in which something was found; how many rows may still be listed."""

    room = MOST_LISTED_IN_ALL

    def enter(self, listed: list[int], rows: Any) -> None:
        """Add row numbers, an array of them, to a list of one of the counts, as far as there is room."""
        more = rows[: min(MOST_LISTED - len(listed), self.room)].tolist()
        self.room -= len(more)
        listed.extend(more)


@dataclass(slots=True)
class Swept:
    """Result of a sweep: counts of the segments in which something was found, records with a bad CRC."""

    counts: Found = field(default_factory=Found)
    bad_crc: list[str] = field(default_factory=list)
