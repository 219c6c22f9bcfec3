"""Rows that are in a file twice: hashes of all rows are sorted, and only equal ones compared."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nantui.diagnosis.parse import Array

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
"""Odd, with well-spread bits: multiplying by it scatters neighbouring whole numbers."""


def repeated_rows(rows: Array, file: Array) -> tuple[Array, Array]:
    """Return which rows of a float32 (n, k) array repeat an earlier row of their file, and which that is.

    0 and -0 are the same, as they are to `np.unique`.
    """
    rows = rows + np.float32(0)
    bits = np.ascontiguousarray(rows).view(np.uint32)
    keys = file.astype(np.uint64) * GOLDEN
    for column in range(rows.shape[1]):
        keys = (keys ^ bits[:, column]) * GOLDEN
        keys ^= keys >> np.uint64(29)
    return repeated_keys(
        keys, lambda one, other: bool(file[one] == file[other] and (rows[one] == rows[other]).all())
    )


def repeated_keys(keys: Array, same: Callable[[int, int], bool]) -> tuple[Array, Array]:
    """Return (mask, earlier): items whose key an earlier item has and that are the `same`, and that item."""
    mask, earlier = np.zeros(keys.size, bool), np.zeros(keys.size, np.int64)
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    for position in (np.flatnonzero(ordered[1:] == ordered[:-1]) + 1).tolist():
        one, other = int(order[position - 1]), int(order[position])
        if same(one, other):
            mask[other], earlier[other] = True, earlier[one] if mask[one] else one
    return mask, earlier
