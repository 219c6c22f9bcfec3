"""What became zero, or jumped to the limit, since an older checkpoint of the same run.

Only the tensors under suspicion are read from the older file. A channel that has died slowly goes through
tiny values first, so a channel counts only if the older file has a normal fp16 number in it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from nantui.checkpoint.archive import Archive
from nantui.checkpoint.formats import FLOATS, SIZES
from nantui.checkpoint.layout import record_of
from nantui.checkpoint.machine import MOST_BYTES, Machine
from nantui.checkpoint.suspect import Suspect
from nantui.checkpoint.symbols import Refused, Tensor
from nantui.checkpoint.tree import WEIGHTS, Leaf, walk
from nantui.checkpoint.verdict import Finding

ALIVE = 2.0**-14  # the smallest normal fp16 number: weight decay has not worn this channel away
FAR_FROM_LIMIT = 65504 / 16
_MOST_BYTES = 64 << 20


def compare(suspects: tuple[Suspect, ...], older: Path) -> tuple[Finding, ...]:
    """Return a `laundered` finding for each suspect that was alive in `older`; () where none can be told.

    An `older` that cannot be read proves nothing.
    """
    try:
        descriptor = os.open(older, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ()
    try:
        archive = Archive(descriptor, os.fstat(descriptor).st_size)
        record = archive.records["data.pkl"]
        if record.size > MOST_BYTES:
            return ()
        leaves = walk(Machine(archive.read(record)).run()).leaves
        known = {leaf.name: leaf for leaf in reversed(leaves) if leaf.role == WEIGHTS}
        found = [_convict(suspect, known.get(suspect.name), archive, older.name) for suspect in suspects]
        return tuple(finding for finding in found if finding is not None)
    except (Refused, OSError, KeyError):
        return ()
    finally:
        os.close(descriptor)


def _convict(suspect: Suspect, leaf: Leaf | None, archive: Archive, older: str) -> Finding | None:
    if leaf is None or leaf.tensor.shape != suspect.shape:
        return None
    sizes = _magnitudes(leaf.tensor, archive)
    if sizes is None:
        return None
    rows = [row for row in suspect.rows if row < len(sizes)] if suspect.rows else list(range(len(sizes)))
    if suspect.kind == "zero":
        guilty = [row for row in rows if sizes[row] >= ALIVE]
        what = "became exactly 0"
    else:
        guilty = [row for row in rows if sizes[row] < FAR_FROM_LIMIT]
        what = "jumped to the limit of the dtype"
    if not guilty:
        return None
    if suspect.rows:
        shown = ", ".join(map(str, guilty[:8])) + (" ..." if len(guilty) > 8 else "")
        what = f"{len(guilty)} channels ({shown}) {what}"
    return Finding("laundered", suspect.name, f"{what} since {older}: washed NaN or infinity")


def _magnitudes(tensor: Tensor, archive: Archive) -> Any:
    """Return the largest magnitude of each output channel of a contiguous tensor, else None."""
    import numpy as np

    record = record_of(tensor.storage, archive)
    form, count = FLOATS.get(tensor.dtype), tensor.numel
    if form is None or tensor.dtype.startswith("complex") or not 0 < count * form.size <= _MOST_BYTES:
        return None
    expected = 1
    for size, step in zip(reversed(tensor.shape), reversed(tensor.stride), strict=True):
        if size > 1 and step != expected:
            return None
        expected *= size
    start = tensor.offset * SIZES[tensor.dtype]
    if start + count * form.size > record.size:
        return None
    raw = archive.read_at(archive.data_offset(record) + start, count * form.size)
    if tensor.dtype == "bfloat16":
        values = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
    else:
        values = np.frombuffer(raw, f"<f{form.size}")
    rows = tensor.shape[0] if len(tensor.shape) > 1 else 1
    return np.abs(values.reshape(rows, -1)).max(axis=1)
