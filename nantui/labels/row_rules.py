"""The verdict on a table of label rows: every kind of problem, for thousands of files at once.

What makes Ultralytics drop an image follows `verify_image_label`
(8.4.190), float32 comparisons included; the polygons of all files are arrays with their boxes as it computes
them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from nantui.labels.label_files import Array, Table
from nantui.labels.problem_kinds import Found
from nantui.words import count

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""Odd, with well-spread bits: multiplying by it scatters neighbouring whole numbers."""
TOLERANCE = 0.01
"""Ultralytics accepts coordinates up to 1 % outside (`verify_image_label`)."""
EXTREME_ASPECT = 100.0
"""`RandomPerspective.box_candidates(ar_thr=100)`."""
HIGH, LOW = np.float32(1 + TOLERANCE), np.float32(-TOLERANCE)
NAMES = ("x", "y", "width", "height")
FLAT = 1e-6
"""A polygon that fills less of its box than this is a line."""


@dataclass(frozen=True)
class Rules:
    """`classes`: how many; `keypoints` and `dimensions`: data.yaml's kpt_shape; `imgsz` in pixels."""

    classes: int
    task: str = "detect"
    keypoints: int = 0
    dimensions: int = 0
    single_class: bool = False
    imgsz: int = 640

    @property
    def pose(self) -> bool:
        return self.task == "pose"

    @property
    def pose_columns(self) -> int:
        """Return how many columns a row with keypoints has; 5 where the data set has none."""
        return 5 + self.keypoints * self.dimensions

    @property
    def columns(self) -> int:
        """Return how many columns a row that is not a polygon has."""
        return self.pose_columns if self.pose else 5


def findings(table: Table, files: int, rules: Rules, shapes: Array | None = None) -> Iterator[Found]:
    """Yield everything that is wrong with the rows of `files` files, whose images have these `shapes`."""
    table = drop_keypoints(table, rules)
    columns = table.columns
    if columns.size == 0:
        return
    polygon = among_polygons(table, files, rules)

    def how_many(row: int) -> str:
        expected = "a class and pairs of x y" if polygon[row] else f"class and {rules.columns - 1} numbers"
        return f"{columns[row]} columns; {expected} expected"

    wrong = np.flatnonzero(np.where(polygon, (columns % 2 == 0) | (columns == 1), columns != rules.columns))
    yield from _tell(table, wrong, "columns", how_many)
    mixed = np.flatnonzero(polygon & (columns == 5))
    yield from _tell(table, mixed, "mixed_rows", lambda row: "a box in a file with polygons")
    boxes = np.flatnonzero(~polygon & (columns == rules.columns))
    if boxes.size:
        where = table.start[boxes][:, None] + np.arange(rules.columns)
        numbers = table.values[where] if boxes.size < columns.size else table.values.reshape(where.shape)
        yield from BoxRules(numbers, boxes, table, rules, shapes).findings()
    polygons = np.flatnonzero(polygon & (columns % 2 == 1) & (columns != 5) & (columns > 1))
    if polygons.size:
        yield from polygon_findings(polygons, table, rules, shapes)
    yield from repeated(table, np.concatenate((boxes, polygons)))


def _tell(table: Table, rows: Array, kind: str, words: Callable[[int], str]) -> Iterator[Found]:
    for row in rows.tolist():
        yield Found(int(table.file[row]), int(table.line[row]), kind, words(row))


def among_polygons(table: Table, files: int, rules: Rules) -> Array:
    """Return which rows are in a file that Ultralytics reads as polygons: it has a row of over 6 columns."""
    has_polygon: Array = np.zeros(files, bool)
    if not rules.pose:
        has_polygon[table.file[table.columns > 6]] = True
    return has_polygon[table.file]


def drop_keypoints(table: Table, rules: Rules) -> Table:
    """Return `table` without the keypoints of pose rows where the task is not pose, as Ultralytics does."""
    if rules.pose or not rules.keypoints:
        return table
    columns = table.columns
    cut = np.where(columns == rules.pose_columns, 5, columns)
    place = np.arange(table.values.size) - np.repeat(table.start[:-1], columns)
    keep = place < np.repeat(cut, columns)
    return Table(table.values[keep], np.concatenate(([0], np.cumsum(cut))), table.file, table.line)


def repeated(table: Table, rows: Array) -> Iterator[Found]:
    """Yield a finding for each of `rows` that repeats an earlier one of its file, its numbers being equal.

    The hashes of all are sorted, and only rows with equal ones compared. A file's `rows` are in their order.
    """
    values, start = table.values + np.float32(0), table.start  # -0 is 0, as it is to `np.unique`
    place = np.arange(values.size) - np.repeat(start[:-1], table.columns)
    mixed = values.view(np.uint32) + place.astype(np.uint64) * GOLDEN
    for shift in (np.uint64(29), np.uint64(32)):
        mixed ^= mixed >> shift
        mixed *= GOLDEN
    keys = np.add.reduceat(mixed, start[:-1])[rows] ^ (table.file[rows].astype(np.uint64) * GOLDEN)
    order = np.argsort(keys, kind="stable")
    rows, keys = rows[order], keys[order]
    first: dict[int, int] = {}
    for position in np.flatnonzero(keys[1:] == keys[:-1]).tolist():
        one, other = rows[position : position + 2].tolist()
        said = [values[start[row] : start[row + 1]].tobytes() for row in (one, other)]
        if table.file[one] == table.file[other] and said[0] == said[1]:
            first[other] = first.get(one, one)
    again: Array = np.array(sorted(first), np.int64)
    yield from _tell(table, again, "duplicate", lambda row: f"the same as line {table.line[first[row]]}")


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
        yield from self.tell(negative, "class_negative", lambda i: f"class {classes[i]:g}")
        yield from self.tell(broken, "class_not_whole", lambda i: f"class {classes[i]:g}")
        too_large = f"names go from 0 to {self.rules.classes - 1}"
        yield from self.tell(large, "class_too_large", lambda i: f"class {classes[i]:.0f}; {too_large}")

    def sizes(self, checked: Array) -> Iterator[Found]:
        """Yield what is wrong with width and height of the rows where `checked` is true.

        The longer side of an image becomes imgsz pixels (`LetterBox`). Where its shape is not known it is
        taken as square, so that a box has at most as many pixels as are said here.
        """
        size, imgsz = self.boxes[3:5], self.rules.imgsz
        known = "at most " if self.shapes is None else ""
        sides = size if self.shapes is None else size * self.shapes[self.file].T
        least, most = sides.min(0), sides.max(0)
        positive = checked & (size.min(0) > 0)

        def pixels(index: int) -> str:
            return f"{self.size(index)}: {known}{least[index] * imgsz:.2g} pixels at imgsz {imgsz}"

        def aspect(index: int) -> str:
            return f"{self.size(index)}: {most[index] / least[index]:.0f} to 1"

        yield from self.tell(checked & (size.min(0) == 0), "size_zero", self.size)
        yield from self.tell(positive & (least * imgsz < 1), "below_pixel", pixels)
        yield from self.tell(positive & (most > least * EXTREME_ASPECT), "extreme_aspect", aspect)

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
        if self.rules.pose:
            yield from self._keypoints()

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
        points, half = self.boxes[1:], self.boxes[3:5] / 2
        highest, lowest = points.max(0), points.min(0)
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
        over = np.maximum((points[:2] + half).max(0) - 1, (half - points[:2]).max(0))
        edge = self.finite & (over > TOLERANCE) & (lowest >= 0) & (highest <= HIGH)
        yield from self.tell(edge, "over_edge", lambda i: f"{over[i]:.2g} of the image beyond its edge")

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

    def _literal(self, index: int) -> str:
        column = int(np.flatnonzero(self._broken(self.numbers[[index]])[0])[0])
        return f"column {column + 1} is {self.numbers[index, column]:g}"

    def _where(self, index: int) -> str:
        pairs = zip(NAMES, self.boxes[1:, index].tolist(), strict=True)
        return ", ".join(f"{name} {value:.6g}" for name, value in pairs if value < 0 or value > 1)


def polygon_findings(polygons: Array, table: Table, rules: Rules, shapes: Array | None) -> Iterator[Found]:
    """Yield what is wrong with the rows `polygons`, each of a class and at least one x y pair.

    Ultralytics looks only at the box around them, which is here as `segments2boxes` gives it.
    """
    points = (table.columns[polygons] - 1) // 2
    ends = np.cumsum(points)
    first = ends - points  # the place of each polygon's first point in `coordinates`
    place = np.arange(ends[-1]) - np.repeat(first, points)
    x = np.repeat(table.start[polygons] + 1, points) + 2 * place
    coordinates = table.values[x[:, None] + np.arange(2)]
    least = np.minimum.reduceat(coordinates, first, axis=0)
    most = np.maximum.reduceat(coordinates, first, axis=0)
    classes = table.values[table.start[polygons]]
    boxes = np.vstack((classes, ((least + most) / 2).T, (most - least).T))
    rows = RowRules(boxes, polygons, table, rules, shapes)
    box, lowest, highest = rows.boxes[1:], least.min(1), most.max(1)
    finite = rows.finite & np.isfinite(lowest) & np.isfinite(highest)
    outside = finite & ((box.min(0) < LOW) | (box.max(0) > HIGH))
    kept = finite & ~outside & ((lowest < LOW) | (highest > HIGH))
    slight = finite & ~outside & ~kept & ((lowest < 0) | (highest > 1))
    few = finite & (points < 3)
    area = _areas(coordinates.astype(np.float64), first, points)
    flat = finite & ~few & (area <= FLAT * (box[2] * box[3]))

    def span(index: int) -> str:
        return f"coordinates from {lowest[index]:.6g} to {highest[index]:.6g}"

    yield from rows.tell(~finite, "not_finite", lambda i: "NaN or Inf among the numbers")
    yield from rows.classes()
    yield from rows.tell(outside, "outside", span)
    yield from rows.tell(kept, "outside_kept", span)
    yield from rows.tell(slight, "slightly_outside", span)
    yield from rows.tell(few, "few_points", lambda i: count(int(points[i]), "point"))
    yield from rows.tell(flat, "zero_area", rows.size)
    yield from rows.sizes(finite & ~few & ~flat)


def _areas(coordinates: Array, first: Array, points: Array) -> Array:
    """Return the area of each polygon (shoelace), relative to its first point so that digits are not lost."""
    x, y = (coordinates - np.repeat(coordinates[first], points, axis=0)).T
    after = np.arange(1, len(x) + 1)
    after[first + points - 1] = first
    return np.abs(np.add.reduceat(x * y[after] - x[after] * y, first)) / 2
