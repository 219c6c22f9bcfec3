"""What became zero, or jumped to the limit, since an older checkpoint of the same run.

Only the tensors under suspicion are read from the older file. Two things keep healthy files out: a
channel that has died slowly goes through tiny values first, so it counts only if the older file has a
normal fp16 number in it; and a BatchNorm variance, which really does decay to zero where the input died,
counts only if the EMA cannot have decayed that far in the steps between the two files.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

from nantui.checkpoint import metadata
from nantui.checkpoint.contents import pickle_of
from nantui.checkpoint.pickle.interpreter import Interpreter
from nantui.checkpoint.pickle.stand_ins import Refused, Tensor
from nantui.checkpoint.tensors.float_formats import FLOATS
from nantui.checkpoint.tensors.segments import MOST_ROWS, record_of
from nantui.checkpoint.tensors.tensor_tree import WEIGHTS, walk
from nantui.checkpoint.tensors.zip_archive import Archive, opened
from nantui.checkpoint.verdict import ZERO, Finding, Suspect

ALIVE = 2.0**-14  # the smallest normal fp16 number: weight decay has not worn this channel away
SMALLEST = 2.0**-24  # the smallest fp16 number there is
FAR_FROM_LIMIT = 65504 / 16
_EMA_DECAY, _EMA_TAU = 0.9999, 2000.0  # ModelEMA in Ultralytics' utils/torch_utils.py
_MOST_UPDATES = 1_000_000
_MOST_BYTES = 4 << 20  # read at a time


def compare(suspects: tuple[Suspect, ...], updates: int | None, older: Path) -> tuple[Finding, ...]:
    """Return a `laundered` finding for each suspect that was alive in `older`; () where none can be told.

    `updates` is the number of EMA updates that the file under suspicion has seen, None where it does not
    say. An `older` that cannot be read proves nothing.
    """
    findings = []
    try:
        with opened(older) as (descriptor, status):
            archive = Archive(descriptor, status.st_size)
            root = Interpreter(pickle_of(archive, [])).run()
            leaves = {leaf.name: leaf.tensor for leaf in reversed(walk(root).leaves) if leaf.role == WEIGHTS}
            before = metadata.read(root).updates
            for suspect in suspects:
                tensor = leaves.get(suspect.name)
                same = tensor is not None and tensor.shape == suspect.shape
                sizes = _magnitudes(tensor, archive) if tensor is not None and same else None
                if sizes and (said := _convict(suspect, sizes, before, updates)):
                    text = f"{said} since {older.name}: washed NaN or Inf"
                    findings.append(Finding("laundered", suspect.name, text))
    except (Refused, OSError, KeyError):
        return ()
    return tuple(findings)


def _convict(suspect: Suspect, sizes: list[float], before: int | None, after: int | None) -> str:
    """Return what became of the suspect's channels, whose largest magnitudes were `sizes`; "" if nothing did.

    `before` and `after` are the EMA's updates up to the two files.
    """
    rows = [row for row in suspect.rows if row < len(sizes)] if suspect.rows else range(len(sizes))
    statistic = suspect.name.endswith("running_var")
    if suspect.kind == ZERO:
        floor = _floor(before, after) if statistic else ALIVE
        guilty, what = [row for row in rows if sizes[row] >= floor], "exactly 0"
    else:
        guilty, what = [row for row in rows if sizes[row] < FAR_FROM_LIMIT], "at the limit of the dtype"
        if statistic and 2 * len(guilty) < len(sizes):
            return ""  # single variances of huge activations are healthy
    if not guilty:
        return ""
    listed = ", ".join(map(str, guilty[:8])) + (", ..." if len(guilty) > 8 else "")
    shown = f"{len(guilty)} of {len(sizes)} channels ({listed})" if suspect.rows else "all values"
    return f"{shown} became {what}"


@lru_cache(maxsize=8)
def _floor(before: int | None, after: int | None) -> float:
    """Return the value from which the EMA cannot have decayed to zero between two numbers of updates.

    Each update multiplies by `decay * (1 - exp(-updates / tau))` and adds something that, for a variance,
    is not negative. Infinite where the numbers are not known: then nothing is proved.
    """
    if before is None or after is None or not 0 <= before <= after or after - before > _MOST_UPDATES:
        return math.inf
    shrunk = 0.0
    for update in range(before + 1, after + 1):
        shrunk += math.log(_EMA_DECAY * -math.expm1(-update / _EMA_TAU))
        if shrunk < -60:
            return math.inf
    return 2 * SMALLEST / math.exp(shrunk)


def _magnitudes(tensor: Tensor, archive: Archive) -> list[float] | None:
    """Return the largest magnitude of each output channel of a contiguous tensor, else None."""
    record = record_of(tensor.storage, archive)
    form, count = FLOATS.get(tensor.dtype), tensor.numel
    if form is None or tensor.dtype.startswith("complex") or not count or not _contiguous(tensor):
        return None
    rows = tensor.shape[0] if tensor.shape else 1
    row = count // rows * form.size
    start = tensor.offset * form.size
    if row > _MOST_BYTES or rows > MOST_ROWS or start + rows * row > record.size:
        return None
    found: list[float] = []
    step = max(1, _MOST_BYTES // row)
    for first in range(0, rows, step):
        some = min(step, rows - first)
        raw = archive.read_at(archive.data_offset(record) + start + first * row, some * row)
        found += _values(raw, tensor.dtype, form.size).reshape(some, -1).max(axis=1).tolist()
    return found


def _contiguous(tensor: Tensor) -> bool:
    expected = 1
    for size, step in zip(reversed(tensor.shape), reversed(tensor.stride), strict=True):
        if size > 1 and step != expected:
            return False
        expected *= size
    return True


def _values(raw: bytes, dtype: str, size: int) -> Any:
    """Return the magnitudes of raw values as an array."""
    import numpy as np

    if dtype == "bfloat16":
        return np.abs((np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32))
    return np.abs(np.frombuffer(raw, f"<f{size}"))
