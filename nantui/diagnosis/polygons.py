"""Polygons of many files as arrays: their boxes as Ultralytics computes them, points, extents and areas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nantui.diagnosis.duplicates import GOLDEN, repeated_keys
from nantui.diagnosis.parse import Array, Table


@dataclass(frozen=True)
class Polygons:
    """`values` float32 (class, x, y, x, y …) of all polygons in one line, polygon i from `start[i]`.

    `points`: how many; `boxes`: float32 (5, n) of class, x, y, w, h as `segments2boxes` gives them;
    `lowest`/`highest`: extreme coordinates; `area`: in parts of the image.
    """

    values: Array
    start: Array
    points: Array
    boxes: Array
    lowest: Array
    highest: Array
    area: Array

    @classmethod
    def of(cls, table: Table, rows: Array) -> Polygons:
        """Return the polygons in `rows` of `table`; each row has a class and at least one pair."""
        columns = table.columns[rows]
        start = np.concatenate(([0], np.cumsum(columns)))
        where = np.arange(start[-1]) + np.repeat(table.start[rows] - start[:-1], columns)
        values = table.values[where]
        points = (columns - 1) // 2
        coordinates: Array = np.delete(values, start[:-1]).reshape(-1, 2)
        first = np.concatenate(([0], np.cumsum(points)))[:-1]
        least = np.minimum.reduceat(coordinates, first, axis=0)
        most = np.maximum.reduceat(coordinates, first, axis=0)
        boxes = np.vstack((values[start[:-1]], ((least + most) / 2).T, (most - least).T))
        area = _areas(coordinates.astype(np.float64), first, points)
        return cls(values, start, points, boxes, least.min(1), most.max(1), area)

    def repeated(self, file: Array) -> tuple[Array, Array]:
        """Return which polygons repeat an earlier one of the same file, byte for byte, and which that is."""
        bits = self.values.view(np.uint32).astype(np.uint64)
        column = np.arange(bits.size) - np.repeat(self.start[:-1], np.diff(self.start))
        scattered = (bits + np.uint64(1)) * (
            (column.astype(np.uint64) * np.uint64(2) + np.uint64(1)) * GOLDEN
        )
        keys = np.add.reduceat(scattered, self.start[:-1]) ^ (file.astype(np.uint64) * GOLDEN)
        return repeated_keys(
            keys, lambda one, other: bool(file[one] == file[other] and self._same(one, other))
        )

    def _same(self, one: int, other: int) -> bool:
        return self._bytes(one) == self._bytes(other)

    def _bytes(self, index: int) -> bytes:
        return bytes(self.values[self.start[index] : self.start[index + 1]].tobytes())


def _areas(coordinates: Array, first: Array, points: Array) -> Array:
    """Return the area of each polygon (shoelace), relative to its first point so that digits are not lost."""
    x, y = (coordinates - np.repeat(coordinates[first], points, axis=0)).T
    after = np.arange(1, len(x) + 1)
    after[first + points - 1] = first
    return np.abs(np.add.reduceat(x * y[after] - x[after] * y, first)) / 2
