"""The verdict on boxes, and on keypoints where rows have them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nantui.diagnosis.duplicates import repeated_rows
from nantui.diagnosis.judge_rows import HIGH, LOW, Found, RowJudge
from nantui.diagnosis.parse import Array, Table
from nantui.diagnosis.rules import TOLERANCE, Rules

NAMES = ("x", "y", "width", "height")


class BoxJudge(RowJudge):
    """Judges rows of class, x, y, w, h and, for pose, keypoints: a float32 (n, columns) array."""

    def __init__(self, numbers: Array, rows: Array, table: Table, rules: Rules, shapes: Array | None) -> None:
        super().__init__(np.ascontiguousarray(numbers.T[:5]), rows, table, rules, shapes)
        self.numbers = numbers
        self.whole = self.finite
        if rules.pose:
            self.whole = ~self._broken(numbers).any(1)

    def findings(self) -> Iterator[Found]:
        yield from self.tell(~self.whole, "not_finite", self._literal)
        if self.rules.pose:
            unseen = self.whole & ~np.isfinite(self.numbers).all(1)
            yield from self.tell(unseen, "inf_kept", lambda i: "Inf in the box or among the visibilities")
        yield from self.classes()
        yield from self._coordinates()
        yield from self.sizes(self.finite)
        yield from self._edges()
        if self.rules.pose:
            yield from KeypointJudge(self).findings()
        yield from self.duplicates(repeated_rows(self.numbers, self.file))

    def _broken(self, numbers: Array) -> Array:
        """Return which numbers are not finite and do not slip through Ultralytics' checks either.

        With keypoints its upper limit looks only at them: an Inf in the box or a visibility is accepted.
        """
        broken = ~np.isfinite(numbers)
        if self.rules.pose:
            broken[:, 1:5] &= numbers[:, 1:5] != np.inf
        if self.rules.pose and self.rules.dimensions == 3:
            broken[:, 7::3] &= numbers[:, 7::3] != np.inf
        return broken

    def _coordinates(self) -> Iterator[Found]:
        points = self.boxes[1:]
        highest, lowest = points.max(0), points.min(0)
        if not (highest > 1).any() and not (lowest < 0).any():
            return
        negative = self.whole & (points[2:].min(0) < 0)
        low = self.whole & (points[:2].min(0) < LOW)
        high = self.finite & (highest > HIGH)
        outside = low | (high & (not self.rules.pose))
        # For pose the upper limit is asked of the keypoints only, not of the box.
        kept = high & ~low & self.rules.pose
        slight = self.finite & ~(negative | outside | kept) & ((lowest < 0) | (highest > 1))
        yield from self.tell(negative, "size_negative", self.size)
        yield from self.tell(outside, "outside", self._where)
        yield from self.tell(kept, "outside_kept", self._where)
        yield from self.tell(slight, "slightly_outside", self._where)

    def _edges(self) -> Iterator[Found]:
        centre, half = self.boxes[1:3], self.boxes[3:5] / 2
        over = np.maximum((centre + half).max(0) - 1, (half - centre).max(0))
        mask = self.finite & (over > TOLERANCE)
        if mask.any():
            mask &= (self.boxes[1:].min(0) >= 0) & (self.boxes[1:].max(0) <= HIGH)
            yield from self.tell(mask, "over_edge", lambda i: f"{over[i]:.2g} of the image beyond its edge")

    def _literal(self, index: int) -> str:
        column = int(np.flatnonzero(self._broken(self.numbers[[index]])[0])[0])
        return f"column {column + 1} is {self.numbers[index, column]:g}"

    def _where(self, index: int) -> str:
        pairs = zip(NAMES, self.boxes[1:, index].tolist(), strict=True)
        return ", ".join(f"{name} {value:.6g}" for name, value in pairs if value < 0 or value > 1)


class KeypointJudge:
    """Judges the keypoints of rows with boxes."""

    def __init__(self, boxes: BoxJudge) -> None:
        self.boxes = boxes
        rules = boxes.rules
        points = boxes.numbers[:, 5:].reshape(-1, rules.keypoints, rules.dimensions)
        self.x, self.y = points[..., 0], points[..., 1]
        self.visibility = points[..., 2] if rules.dimensions == 3 else np.full(self.x.shape, 2, np.float32)

    def findings(self) -> Iterator[Found]:
        whole = self.boxes.whole
        bad = (
            (np.maximum(self.x, self.y) > HIGH) | (np.minimum(self.x, self.y) < LOW) | (self.visibility < LOW)
        )
        good = whole & ~bad.any(1)
        strange = np.isfinite(self.visibility) & ~np.isin(self.visibility, (0, 1, 2))
        off = self._off_box()
        yield from self.boxes.tell(whole & bad.any(1), "keypoint_outside", lambda i: self._which(i, bad))
        yield from self.boxes.tell(good & strange.any(1), "visibility", lambda i: self._which(i, strange))
        yield from self.boxes.tell(good & off.any(1), "keypoint_off_box", lambda i: self._which(i, off))

    def _off_box(self) -> Array:
        x, y, width, height = self.boxes.boxes[1:, :, None]
        far_x = np.abs(self.x - x) > width / 2 + TOLERANCE
        far_y = np.abs(self.y - y) > height / 2 + TOLERANCE
        nowhere = (self.x == 0) & (self.y == 0)
        return (far_x | far_y) & (self.visibility > 0) & ~nowhere

    def _which(self, index: int, mask: Array) -> str:
        point = int(np.flatnonzero(mask[index])[0])
        x, y, visibility = (float(values[index, point]) for values in (self.x, self.y, self.visibility))
        shown = f", visibility {visibility:g}" if self.boxes.rules.dimensions == 3 else ""
        return f"keypoint {point + 1} at {x:g}, {y:g}{shown}"
