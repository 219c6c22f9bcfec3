"""What the judges of boxes and of polygons share: how a finding looks, classes, sizes, repetitions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from nantui.diagnosis.parse import Array, Table
from nantui.diagnosis.rules import EXTREME_ASPECT, TOLERANCE, Rules

HIGH, LOW = np.float32(1 + TOLERANCE), np.float32(-TOLERANCE)


class Found(NamedTuple):
    """One finding: the index of the file, the line (from 1), the kind and the words."""

    file: int
    line: int
    kind: str
    text: str


class RowJudge:
    """What boxes and polygons share.

    `boxes` is a float32 (5, n) array of class, x, y, w, h; column i of it is row `rows[i]` of `table`.
    `shapes` are the images' sides as shares of the longer one, float32 (files, 2), None where nobody looked.
    """

    def __init__(self, boxes: Array, rows: Array, table: Table, rules: Rules, shapes: Array | None) -> None:
        self.boxes, self.rows, self.table, self.rules, self.shapes = boxes, rows, table, rules, shapes
        self.file = table.file[rows]
        self.finite = np.isfinite(boxes).all(0)

    def tell(self, mask: Array, kind: str, words: Callable[[int], str]) -> Iterator[Found]:
        """Yield a finding for each row where `mask` is true; `words` gets its index among ours."""
        for index in np.flatnonzero(mask).tolist():
            yield Found(int(self.file[index]), int(self.table.line[self.rows[index]]), kind, words(index))

    def classes(self) -> Iterator[Found]:
        classes = self.boxes[0]
        known = np.isfinite(classes)
        broken = known & (np.floor(classes) != classes)
        negative = known & ~broken & (classes < 0)
        large = known & ~broken & (classes >= self.rules.classes) & (not self.rules.single_class)
        last = self.rules.classes - 1
        yield from self.tell(negative, "class_negative", lambda i: f"class {classes[i]:g}")
        yield from self.tell(broken, "class_not_whole", lambda i: f"class {classes[i]:g}")
        yield from self.tell(
            large, "class_too_large", lambda i: f"class {classes[i]:.0f}; names go from 0 to {last}"
        )

    def sizes(self, judged: Array) -> Iterator[Found]:
        """Yield what is wrong with width and height of the rows where `judged` is true.

        The longer side of an image becomes imgsz pixels (`LetterBox`). Where its shape is not known it is
        taken as square, so that a box has at most as many pixels as are said here.
        """
        size = self.boxes[3:5]
        imgsz, known = self.rules.imgsz, self.shapes is not None
        sides = size * self.shapes[self.file].T if self.shapes is not None else size
        least, most = sides.min(0), sides.max(0)
        positive = judged & (size.min(0) > 0)
        yield from self.tell(judged & (size.min(0) == 0), "size_zero", self.size)
        yield from self.tell(
            positive & (least * imgsz < 1),
            "below_pixel",
            lambda i: (
                f"{self.size(i)}: {'' if known else 'at most '}{least[i] * imgsz:.2g} pixels at imgsz {imgsz}"
            ),
        )
        yield from self.tell(
            positive & (most > least * EXTREME_ASPECT),
            "extreme_aspect",
            lambda i: f"{self.size(i)}: {most[i] / least[i]:.0f} to 1",
        )

    def duplicates(self, found: tuple[Array, Array]) -> Iterator[Found]:
        """Yield a finding for each row that repeats an earlier one of its file."""
        mask, earlier = found
        line = self.table.line
        yield from self.tell(mask, "duplicate", lambda i: f"the same as line {line[self.rows[earlier[i]]]}")

    def size(self, index: int) -> str:
        return f"width {self.boxes[3, index]:g}, height {self.boxes[4, index]:g}"
