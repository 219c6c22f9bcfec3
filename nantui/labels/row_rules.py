"""The verdict on a table of label rows: every kind of problem, for thousands of files at once.

Each rule looks at one property of all rows and says which rows have it: classes, sizes, repetitions, boxes,
keypoints, polygons and oriented boxes. What makes Ultralytics drop an image follows `verify_image_label`
(8.4.190), float32 comparisons included; the polygons of all files are arrays with their boxes as it computes
them. To find repeated rows the hashes of all are sorted, and only equal ones compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from nantui.labels.data_set import EXTREME_ASPECT, TOLERANCE, Rules
from nantui.labels.parser import Array, Table
from nantui.labels.problem_kinds import Found

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""Odd, with well-spread bits: multiplying by it scatters neighbouring whole numbers."""
HIGH, LOW = np.float32(1 + TOLERANCE), np.float32(-TOLERANCE)
NAMES = ("x", "y", "width", "height")
FLAT = 1e-6
"""A polygon that fills less of its box than this is a line."""


def findings(table: Table, files: int, rules: Rules, shapes: Array | None = None) -> Iterator[Found]:
    """Yield everything that is wrong with the rows of `files` files, whose images have these `shapes`."""
    table = drop_keypoints(table, rules)
    columns = table.columns
    if columns.size == 0:
        return
    polygon = among_polygons(table, files, rules)
    yield from wrong_columns(table, polygon, rules)
    boxes = np.flatnonzero(~polygon & (columns == rules.columns))
    if boxes.size:
        where = table.start[boxes][:, None] + np.arange(rules.columns)
        numbers = table.values[where] if boxes.size < columns.size else table.values.reshape(where.shape)
        yield from BoxRules(numbers, boxes, table, rules, shapes).findings()
    polygons = np.flatnonzero(polygon & (columns % 2 == 1) & (columns != 5) & (columns > 1))
    if polygons.size:
        yield from PolygonRules(polygons, table, rules, shapes).findings()


def among_polygons(table: Table, files: int, rules: Rules) -> Array:
    """Return which rows are in a file that Ultralytics reads as polygons: it has a row of over 6 columns."""
    has_polygon: Array = np.zeros(files, bool)
    if not rules.pose:
        has_polygon[table.file[table.columns > 6]] = True
    return has_polygon[table.file]


def wrong_columns(table: Table, polygon: Array, rules: Rules) -> Iterator[Found]:
    """Yield the rows with a wrong number of columns; `polygon` is what `among_polygons` says."""
    columns = table.columns
    expected = f"class and {rules.columns - 1} numbers expected"
    for row in np.flatnonzero(
        np.where(polygon, (columns % 2 == 0) | (columns == 1), columns != rules.columns)
    ).tolist():
        text = "a class and pairs of x y expected" if polygon[row] else expected
        yield Found(int(table.file[row]), int(table.line[row]), "columns", f"{columns[row]} columns; {text}")
    for row in np.flatnonzero(polygon & (columns == 5)).tolist():
        yield Found(int(table.file[row]), int(table.line[row]), "mixed_rows", "a box in a file with polygons")


def drop_keypoints(table: Table, rules: Rules) -> Table:
    """Return `table` without the keypoints of pose rows where the task is not pose, as Ultralytics does."""
    if rules.pose or not rules.keypoints:
        return table
    columns = table.columns
    cut = np.where(columns == rules.pose_columns, 5, columns)
    place = np.arange(table.values.size) - np.repeat(table.start[:-1], columns)
    keep = place < np.repeat(cut, columns)
    return Table(table.values[keep], np.concatenate(([0], np.cumsum(cut))), table.file, table.line)


class RowRules:
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

    def sizes(self, checked: Array) -> Iterator[Found]:
        """Yield what is wrong with width and height of the rows where `checked` is true.

        The longer side of an image becomes imgsz pixels (`LetterBox`). Where its shape is not known it is
        taken as square, so that a box has at most as many pixels as are said here.
        """
        size = self.boxes[3:5]
        imgsz, known = self.rules.imgsz, self.shapes is not None
        sides = size * self.shapes[self.file].T if self.shapes is not None else size
        least, most = sides.min(0), sides.max(0)
        positive = checked & (size.min(0) > 0)
        yield from self.tell(checked & (size.min(0) == 0), "size_zero", self.size)
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

    def duplicates(self, keys: Array, said: Callable[[int], bytes]) -> Iterator[Found]:
        """Yield a finding for each row that repeats an earlier one of its file.

        Only rows with equal `keys`, which are hashes, are compared by what they have `said`.
        """
        line = self.table.line[self.rows]
        order = np.argsort(keys, kind="stable")
        ordered = keys[order]
        first: dict[int, int] = {}
        for position in np.flatnonzero(ordered[1:] == ordered[:-1]).tolist():
            one, other = order[position : position + 2].tolist()
            if self.file[one] == self.file[other] and said(one) == said(other):
                first[other] = first.get(one, one)
        for row, earlier in sorted(first.items()):
            text = f"the same as line {line[earlier]}"
            yield Found(int(self.file[row]), int(line[row]), "duplicate", text)

    def size(self, index: int) -> str:
        return f"width {self.boxes[3, index]:g}, height {self.boxes[4, index]:g}"


class BoxRules(RowRules):
    """Boxes: rows of class, x, y, w, h and, for pose, keypoints: a float32 (n, columns) array."""

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
            yield from self._keypoints()
        yield from self._repeated()

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

    def _keypoints(self) -> Iterator[Found]:
        rules = self.rules
        points = self.numbers[:, 5:].reshape(-1, rules.keypoints, rules.dimensions)
        x, y = points[..., 0], points[..., 1]
        visibility = points[..., 2] if rules.dimensions == 3 else np.full(x.shape, 2, np.float32)
        bad = (np.maximum(x, y) > HIGH) | (np.minimum(x, y) < LOW) | (visibility < LOW)
        strange = np.isfinite(visibility) & ~np.isin(visibility, (0, 1, 2))
        box_x, box_y, width, height = self.boxes[1:, :, None]
        far = (np.abs(x - box_x) > width / 2 + TOLERANCE) | (np.abs(y - box_y) > height / 2 + TOLERANCE)
        off = far & (visibility > 0) & ~((x == 0) & (y == 0))

        def which(index: int, mask: Array) -> str:
            point = int(np.flatnonzero(mask[index])[0])
            shown = f", visibility {visibility[index, point]:g}" if rules.dimensions == 3 else ""
            return f"keypoint {point + 1} at {x[index, point]:g}, {y[index, point]:g}{shown}"

        good = self.whole & ~bad.any(1)
        yield from self.tell(self.whole & bad.any(1), "keypoint_outside", lambda i: which(i, bad))
        yield from self.tell(good & strange.any(1), "visibility", lambda i: which(i, strange))
        yield from self.tell(good & off.any(1), "keypoint_off_box", lambda i: which(i, off))

    def _repeated(self) -> Iterator[Found]:
        numbers = np.ascontiguousarray(self.numbers + np.float32(0))  # -0 is 0, as it is to `np.unique`
        keys = self.file.astype(np.uint64) * GOLDEN
        for column in numbers.view(np.uint32).T:
            keys = (keys ^ column) * GOLDEN
            keys ^= keys >> np.uint64(29)
        return self.duplicates(keys, lambda row: bytes(numbers[row].tobytes()))

    def _literal(self, index: int) -> str:
        column = int(np.flatnonzero(self._broken(self.numbers[[index]])[0])[0])
        return f"column {column + 1} is {self.numbers[index, column]:g}"

    def _where(self, index: int) -> str:
        pairs = zip(NAMES, self.boxes[1:, index].tolist(), strict=True)
        return ", ".join(f"{name} {value:.6g}" for name, value in pairs if value < 0 or value > 1)


class PolygonRules(RowRules):
    """Polygons: rows of a class and at least one x y pair; Ultralytics looks only at the box around them.

    `values` float32 (class, x, y, x, y …) of all polygons in one line, polygon i from `start[i]`; `points`:
    how many; `boxes` as `segments2boxes` gives them; `lowest`/`highest`: extreme coordinates; `area`: in
    parts of the image.
    """

    def __init__(self, rows: Array, table: Table, rules: Rules, shapes: Array | None) -> None:
        columns = table.columns[rows]
        self.start = start = np.concatenate(([0], np.cumsum(columns)))
        where = np.arange(start[-1]) + np.repeat(table.start[rows] - start[:-1], columns)
        self.values = values = table.values[where]
        self.points = points = (columns - 1) // 2
        coordinates: Array = np.delete(values, start[:-1]).reshape(-1, 2)
        first = np.concatenate(([0], np.cumsum(points)))[:-1]
        least = np.minimum.reduceat(coordinates, first, axis=0)
        most = np.maximum.reduceat(coordinates, first, axis=0)
        boxes = np.vstack((values[start[:-1]], ((least + most) / 2).T, (most - least).T))
        super().__init__(boxes, rows, table, rules, shapes)
        self.area = _areas(coordinates.astype(np.float64), first, points)
        self.lowest, self.highest = least.min(1), most.max(1)
        self.finite &= np.isfinite(self.lowest) & np.isfinite(self.highest)

    def findings(self) -> Iterator[Found]:
        yield from self.tell(~self.finite, "not_finite", lambda i: "NaN or Inf among the numbers")
        yield from self.classes()
        yield from self._coordinates()
        yield from self._shapes()
        yield from self._repeated()

    def _coordinates(self) -> Iterator[Found]:
        box, lowest, highest = self.boxes[1:], self.lowest, self.highest
        outside = self.finite & ((box.min(0) < LOW) | (box.max(0) > HIGH))
        kept = self.finite & ~outside & ((lowest < LOW) | (highest > HIGH))
        slight = self.finite & ~outside & ~kept & ((lowest < 0) | (highest > 1))
        yield from self.tell(outside, "outside", self._span)
        yield from self.tell(kept, "outside_kept", self._span)
        yield from self.tell(slight, "slightly_outside", self._span)

    def _shapes(self) -> Iterator[Found]:
        points, box = self.points, self.boxes[3] * self.boxes[4]
        few = self.finite & (points < 3)
        flat = self.finite & ~few & (self.area <= FLAT * box)
        yield from self.tell(
            few, "few_points", lambda i: "1 point" if points[i] == 1 else f"{points[i]} points"
        )
        yield from self.tell(flat, "zero_area", self.size)
        yield from self.sizes(self.finite & ~few & ~flat)

    def _span(self, index: int) -> str:
        return f"coordinates from {self.lowest[index]:.6g} to {self.highest[index]:.6g}"

    def _repeated(self) -> Iterator[Found]:
        values, start = self.values, self.start
        bits: Array = values.view(np.uint32).astype(np.uint64)
        column = (np.arange(bits.size) - np.repeat(start[:-1], np.diff(start))).astype(np.uint64)
        scattered = (bits + np.uint64(1)) * ((column * np.uint64(2) + np.uint64(1)) * GOLDEN)
        keys = np.add.reduceat(scattered, start[:-1]) ^ (self.file.astype(np.uint64) * GOLDEN)
        return self.duplicates(keys, lambda row: bytes(values[start[row] : start[row + 1]].tobytes()))


def _areas(coordinates: Array, first: Array, points: Array) -> Array:
    """Return the area of each polygon (shoelace), relative to its first point so that digits are not lost."""
    x, y = (coordinates - np.repeat(coordinates[first], points, axis=0)).T
    after = np.arange(1, len(x) + 1)
    after[first + points - 1] = first
    return np.abs(np.add.reduceat(x * y[after] - x[after] * y, first)) / 2
