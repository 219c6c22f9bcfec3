"""The verdict on a table of label rows: every kind of problem, for thousands of files at once.

Each judge looks at one property of all rows and says which rows have it. What makes Ultralytics drop an
image follows `verify_image_label` (8.4.190), float32 comparisons included.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from nantui.diagnosis.judge_boxes import BoxJudge
from nantui.diagnosis.judge_polygons import PolygonJudge
from nantui.diagnosis.judge_rows import Found
from nantui.diagnosis.parse import Array, Table
from nantui.diagnosis.rules import Rules


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
        yield from BoxJudge(_regular(table, boxes, rules.columns), boxes, table, rules, shapes).findings()
    polygons = np.flatnonzero(polygon & (columns % 2 == 1) & (columns != 5) & (columns > 1))
    if polygons.size:
        yield from PolygonJudge(polygons, table, rules, shapes).findings()


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


def _regular(table: Table, rows: Array, columns: int) -> Array:
    """Return `rows`, which all have `columns` columns, as a (n, columns) array."""
    if rows.size == table.columns.size:
        return table.values.reshape(-1, columns)
    return table.values[table.start[rows][:, None] + np.arange(columns)]
