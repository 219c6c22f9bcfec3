"""From counts to findings: what is wrong with the weights, and how the file itself proves it.

Healthy files have zeros too: biases of a young network, layers that Ultralytics initialises with zeros
and that have not been trained yet, parts of a user's own modules. So a zero tensor is evidence only
where a healthy file cannot have one; the rest waits for an older file of the run.

Of that one only the tensors under suspicion are read. Two things keep healthy files out: a channel that has
died slowly goes through tiny values first, so it counts only if the older file has a normal fp16 number in
it; and a BatchNorm variance, which really does decay to zero where the input died, counts only if the EMA
cannot have decayed that far in the steps between the two files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from nantui.checkpoint.metadata import not_finite, own_row, read
from nantui.checkpoint.pickle.allowlist import CLASSES
from nantui.checkpoint.pickle.interpreter import Interpreter
from nantui.checkpoint.pickle.stand_ins import Refused, Tensor
from nantui.checkpoint.tensors.segments import BATCH, FLOATS, MOST_ROWS, Counts, Segment, is_norm, record_of
from nantui.checkpoint.tensors.tensor_tree import MASK, OPTIMIZER, SCALER, WEIGHTS, Leaf, Tree, walk
from nantui.checkpoint.tensors.zip_archive import Archive, opened, read_pickle
from nantui.checkpoint.verdict import LIMIT, ZERO, Finding, Metadata, Suspect

# Weight matrices that Ultralytics initialises with zeros (nn/modules/transformer.py, head.py, block.py):
# class name -> path below the module. They stay zero while frozen or before the first optimizer step.
_BORN_ZERO = {
    "MSDeformAttn": re.compile(r"(sampling_offsets|attention_weights)\.weight"),
    "RTDETRDecoder": re.compile(r"(enc_bbox_head|dec_bbox_head\.\d+)\.layers\.\d+\.weight"),
    "Residual": re.compile(r"m\.w3\.weight"),
}
# Where the classes are not known, one zero matrix may be meant so; this share of all matrices is not.
_TOO_MANY_ZERO = 0.2
_AT_LEAST_ZERO = 3
ALIVE = 2.0**-14  # the smallest normal fp16 number: weight decay has not worn this channel away
SMALLEST = 2.0**-24  # the smallest fp16 number there is
FAR_FROM_LIMIT = 65504 / 16
_EMA_DECAY, _EMA_TAU = 0.9999, 2000.0  # ModelEMA in Ultralytics' utils/torch_utils.py
_MOST_UPDATES = 1_000_000
_MOST_BYTES = 4 << 20  # read at a time
BY_ITS_RECORD = "and there is NaN in optimizer or metrics"
"""How a finding ends that the weights alone would not prove."""


def review_weights(
    counts: Mapping[Segment, Counts], tree: Tree, metadata: Metadata
) -> tuple[list[Finding], tuple[Suspect, ...]]:
    """Return the findings that counts and recorded metrics prove, and the suspects that an older file may
    clear or convict.
    """
    metrics = _metrics(metadata)
    suspicious = {id(leaf): (segment, count) for segment, count in counts.items() for leaf in segment.leaves}
    heard = [(leaf, suspicious[id(leaf)][1]) for leaf in tree.leaves if id(leaf) in suspicious]
    optimizer, nan_state = _states(heard, metadata)
    works = _vouched_for(metadata) and not nan_state
    review = _WeightReview(tree, poisoned=bool(metrics) or nan_state, vouched_for=works)
    for leaf in tree.leaves:
        if leaf.role in (WEIGHTS, MASK) and id(leaf) in suspicious:
            review.hear(leaf, *suspicious[id(leaf)])
    review.settle()
    return [*review.findings, *metrics, *optimizer], tuple(review.suspects)


def doubtful(counts: Mapping[Segment, Counts]) -> list[str]:
    """Return the records of weights that look wrong: their CRC tells bit rot from what was saved."""
    names = (
        f"data/{leaf.tensor.storage.key}"
        for segment, count in counts.items()
        for leaf in segment.leaves
        if leaf.role == WEIGHTS and (count.nan or count.inf or count.limit or _is_matrix(leaf))
    )
    return list(dict.fromkeys(names))


def _metrics(metadata: Metadata) -> list[Finding]:
    findings = []
    for where, values in (("train_metrics", metadata.train_metrics), ("train_results", own_row(metadata))):
        bad = not_finite(values)
        if bad:
            shown = ", ".join(bad[:4]) + (f" and {len(bad) - 4} more" if len(bad) > 4 else "")
            text = f"not finite in its own epoch: {shown}"
            if _works(values, bad):
                text += "; its metrics show a network that works"
            findings.append(Finding("validation" if _works(values, bad) else "metrics", where, text))
    return findings


def _works(values: Mapping[str, object], bad: Sequence[str]) -> bool:
    """Tell whether only validation losses are not finite, beside metrics above 0: a network with NaN in it
    has none. It is the loss that overflowed, as half precision does on GPUs.
    """
    return all(name.strip().startswith("val/") for name in bad) and _has_metrics(values)


def _has_metrics(values: Mapping[str, object]) -> bool:
    metrics = [value for name, value in values.items() if name.strip().startswith("metrics/")]
    return any(
        isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 for value in metrics
    )


def _vouched_for(metadata: Metadata) -> bool:
    """Tell whether the file's own record shows that this network works: its epoch has metrics above 0, and
    nothing in it is not finite. NaN in a network leaves metrics of 0, and NaN in its losses.
    """
    records = [values for values in (metadata.train_metrics, own_row(metadata)) if values]
    return bool(records) and not any(map(not_finite, records)) and _has_metrics(records[0])


def _states(heard: list[tuple[Leaf, Counts]], metadata: Metadata) -> tuple[list[Finding], bool]:
    """Return one finding for optimizer and scaler state each, and whether there is NaN in a tensor of it."""
    findings, any_nan = [], False
    for role in (OPTIMIZER, SCALER):
        bad = [(leaf, count) for leaf, count in heard if leaf.role == role and (count.nan or count.inf)]
        if bad:
            nan, inf = sum(count.nan for _, count in bad), sum(count.inf for _, count in bad)
            any_nan = any_nan or nan > 0
            spread = f" in {len(bad)} tensors" if len(bad) > 1 else ""
            detail = f"{nan} NaN and {inf} infinite values{spread}: a rebase rebuilds the {role} state"
            findings.append(Finding("optimizer", bad[0][0].name, detail))
    for where, value in metadata.bad_state:
        detail = f"{value}: a rebase rebuilds the {where.partition('.')[0]} state"
        findings.append(Finding("optimizer", where, detail))
    return findings, any_nan


class _WeightReview:
    """Hears the tensors of the weights one by one; zeros in unknown surroundings are decided on together."""

    def __init__(self, tree: Tree, poisoned: bool, vouched_for: bool) -> None:
        self.tree = tree
        self.beside = any(part == "ema" for part, _ in tree.modules)
        self.poisoned = poisoned  # NaN in optimizer or metrics: something has gone through this network
        self.vouched_for = vouched_for  # the record of its own epoch shows that it works
        self.findings: list[Finding] = []
        self.suspects: list[Suspect] = []
        self.unknown: list[Leaf] = []
        self.zeros: list[tuple[Leaf, str]] = []

    def hear(self, leaf: Leaf, segment: Segment, count: Counts) -> None:
        total = leaf.tensor.numel
        where = f"model: {leaf.name}" if leaf.part == "model" and self.beside else leaf.name
        if count.nan:
            self.findings.append(Finding("nan", where, f"{count.nan} of {total} values are NaN"))
        if count.inf and leaf.role == WEIGHTS:
            self.findings.append(Finding("inf", where, f"{count.inf} of {total} values are infinite"))
        if leaf.role == WEIGHTS and not count.nan and not count.inf:
            self._zeros(leaf, where, segment, count)
            self._limits(leaf, where, segment, count)

    def settle(self) -> None:
        """Judge what only the whole tells: tensors of zeros, and those whose module is not known.

        A few tensors of zeros in a network that works have decayed: weight decay drives the weights of a
        branch that never gets a gradient (a scale without objects, say) below what fp16 can hold.
        """
        tensors = sum(1 for leaf in self.tree.leaves if leaf.role == WEIGHTS)
        decayed = self.vouched_for and len(self.zeros) < max(_AT_LEAST_ZERO, _TOO_MANY_ZERO * tensors)
        for leaf, where in self.zeros:
            detail = f"all {leaf.tensor.numel} values are exactly 0"
            if decayed:
                text = f"{detail}; the metrics of its epoch show a network that works: decayed, or never used"
                self.findings.append(Finding("decayed", where, text))
            else:
                text = f"{detail}, as training never makes them: washed NaN"
                self.findings.append(Finding("laundered", where, text))
        matrices = sum(1 for leaf in self.tree.leaves if leaf.role == WEIGHTS and _is_matrix(leaf))
        if len(self.unknown) >= max(_AT_LEAST_ZERO, _TOO_MANY_ZERO * matrices):
            detail = f"all values are exactly 0, in {len(self.unknown)} of {matrices} matrices: washed NaN"
            self.findings += [Finding("laundered", leaf.name, detail) for leaf in self.unknown]

    def _zeros(self, leaf: Leaf, where: str, segment: Segment, count: Counts) -> None:
        """Whole tensors and channels of exact zeros, where training does not make them."""
        if not count.zeros or not (_is_matrix(leaf) or is_norm(leaf)):
            return
        whole = count.zeros == _pieces(segment)
        if whole and not _may_be_zero(leaf, self.tree):
            self.zeros.append((leaf, where))
            return
        if whole and _is_matrix(leaf) and not leaf.module:
            self.unknown.append(leaf)
        if whole or segment.channels:
            rows = () if whole else tuple(count.zero_rows)
            self.suspects.append(Suspect(leaf.name, ZERO, rows, leaf.tensor.shape))
        if self.poisoned and not whole and _is_matrix(leaf) and segment.channels:
            detail = f"{count.zeros} channels are exactly 0, {BY_ITS_RECORD}"
            self.findings.append(Finding("laundered", where, detail))

    def _limits(self, leaf: Leaf, where: str, segment: Segment, count: Counts) -> None:
        """Values at the dtype's limit: proof together with zeros or NaN, else a warning."""
        if not count.limit:
            return
        total = leaf.tensor.numel
        shown = f"{count.limit} of {total} values are at the limit of {leaf.tensor.dtype}"
        nothing_else = count.limits_only + count.zeros == _pieces(segment)
        kind, why = "laundered", ""
        if _is_matrix(leaf) and count.limits_only and (segment.channels or nothing_else):
            why = "filling whole channels: washed infinities"
        elif count.zeros and (nothing_else or _is_matrix(leaf)):
            why = "beside exact zeros: washed infinities and NaN"
        elif leaf.attribute == "weight" and is_norm(leaf) and count.limit == total:
            why = "all there are: washed infinities"
        elif self.poisoned:
            why = BY_ITS_RECORD
        else:
            kind, why = "saturated", "clamped: large healthy values, or infinities"
            if segment.channels:
                rows = tuple(count.limit_rows)
                self.suspects.append(Suspect(leaf.name, LIMIT, rows, leaf.tensor.shape))
        self.findings.append(Finding(kind, where, f"{shown}, {why}"))


def _pieces(segment: Segment) -> int:
    """Number of rows a sweep reports for a segment: channels, or the pieces it was read in."""
    if segment.channels:
        return segment.rows
    step = BATCH // segment.format.size * segment.format.size
    return 1 if segment.strides is not None else -(-(segment.end - segment.start) // step)


def _is_matrix(leaf: Leaf) -> bool:
    return len(leaf.tensor.shape) > 1


def _may_be_zero(leaf: Leaf, tree: Tree) -> bool:
    """Whether a healthy file can have this tensor all zero: born so, or part of a user's own module."""
    if not leaf.module:
        return not is_norm(leaf)  # a bare state_dict does not say what its tensors belong to
    parts = leaf.name.split(".")
    for depth in range(len(parts)):
        owner = tree.modules.get((leaf.part, ".".join(parts[:depth])))
        if owner is None:
            continue
        if not CLASSES.fullmatch(owner):
            return True
        born = _BORN_ZERO.get(owner.rpartition(".")[2])
        if born and born.fullmatch(".".join(parts[depth:])):
            return True
    return False


def compare(suspects: tuple[Suspect, ...], updates: int | None, older: Path) -> tuple[Finding, ...]:
    """Return a `laundered` finding for each suspect that was alive in `older`; () where none can be told.

    `updates` is the number of EMA updates that the file under suspicion has seen, None where it does not
    say. An `older` that cannot be read proves nothing.
    """
    findings = []
    try:
        with opened(older) as (descriptor, status):
            archive = Archive(descriptor, status.st_size)
            root = Interpreter(read_pickle(archive)).run()
            leaves = {leaf.name: leaf.tensor for leaf in reversed(walk(root).leaves) if leaf.role == WEIGHTS}
            before = read(root).updates
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
    import numpy as np

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
        if tensor.dtype == "bfloat16":
            values: Any = (np.frombuffer(raw, "<u2").astype(np.uint32) << 16).view(np.float32)
        else:
            values = np.frombuffer(raw, f"<f{form.size}")
        found += np.abs(values).reshape(some, -1).max(axis=1).tolist()
    return found


def _contiguous(tensor: Tensor) -> bool:
    expected = 1
    for size, step in zip(reversed(tensor.shape), reversed(tensor.stride), strict=True):
        if size > 1 and step != expected:
            return False
        expected *= size
    return True
