"""The verdict on polygons: segments, and the four corners of oriented boxes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nantui.diagnosis.judge_rows import HIGH, LOW, Found, RowJudge
from nantui.diagnosis.parse import Array, Table
from nantui.diagnosis.polygons import Polygons
from nantui.diagnosis.rules import Rules

FLAT = 1e-6
"""A polygon that fills less of its box than this is a line."""


class PolygonJudge(RowJudge):
    """Judges rows of a class and x y pairs; Ultralytics looks only at the box around them."""

    def __init__(self, rows: Array, table: Table, rules: Rules, shapes: Array | None) -> None:
        self.polygons = Polygons.of(table, rows)
        super().__init__(self.polygons.boxes, rows, table, rules, shapes)
        self.finite &= np.isfinite(self.polygons.lowest) & np.isfinite(self.polygons.highest)

    def findings(self) -> Iterator[Found]:
        yield from self.tell(~self.finite, "not_finite", lambda i: "NaN or Inf among the numbers")
        yield from self.classes()
        yield from self._coordinates()
        yield from self._shapes()
        yield from self.duplicates(self.polygons.repeated(self.file))

    def _coordinates(self) -> Iterator[Found]:
        box, lowest, highest = self.boxes[1:], self.polygons.lowest, self.polygons.highest
        outside = self.finite & ((box.min(0) < LOW) | (box.max(0) > HIGH))
        kept = self.finite & ~outside & ((lowest < LOW) | (highest > HIGH))
        slight = self.finite & ~outside & ~kept & ((lowest < 0) | (highest > 1))
        yield from self.tell(outside, "outside", self._span)
        yield from self.tell(kept, "outside_kept", self._span)
        yield from self.tell(slight, "slightly_outside", self._span)

    def _shapes(self) -> Iterator[Found]:
        points, box = self.polygons.points, self.boxes[3] * self.boxes[4]
        few = self.finite & (points < 3)
        flat = self.finite & ~few & (self.polygons.area <= FLAT * box)
        yield from self.tell(
            few, "few_points", lambda i: "1 point" if points[i] == 1 else f"{points[i]} points"
        )
        yield from self.tell(flat, "zero_area", self.size)
        yield from self.sizes(self.finite & ~few & ~flat)

    def _span(self, index: int) -> str:
        return f"coordinates from {self.polygons.lowest[index]:.6g} to {self.polygons.highest[index]:.6g}"
