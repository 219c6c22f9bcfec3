"""From counts to findings: what is wrong with the weights, and how the file itself proves it.

Healthy files have zeros too: biases of a young network, layers that Ultralytics initialises with zeros
and that have not been trained yet, parts of a user's own modules. So a zero tensor is evidence only
where a healthy file cannot have one; the rest waits for a comparison with an older file (compare.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from nantui.checkpoint.extrema import Counts
from nantui.checkpoint.layout import Segment
from nantui.checkpoint.metadata import Metadata, not_finite, own_row
from nantui.checkpoint.names import CLASSES
from nantui.checkpoint.suspect import Suspect
from nantui.checkpoint.sweep import BATCH
from nantui.checkpoint.tree import ATTRIBUTE, MASK, OPTIMIZER, SCALER, WEIGHTS, Leaf, Tree
from nantui.checkpoint.verdict import Finding

# Weight matrices that Ultralytics initialises with zeros (nn/modules/transformer.py, head.py, block.py):
# class name -> path below the module. They stay zero while frozen or before the first optimizer step.
_BORN_ZERO = {
    "MSDeformAttn": re.compile(r"(sampling_offsets|attention_weights)\.weight"),
    "RTDETRDecoder": re.compile(r"(enc_bbox_head|dec_bbox_head\.\d+)\.layers\.\d+\.weight"),
    "Residual": re.compile(r"m\.w3\.weight"),
}
_NORMS = re.compile(r"torch\.nn\.modules\.(batchnorm|instancenorm|normalization)\.\w+")


@dataclass(frozen=True)
class Evidence:
    """Findings of the file alone, and the suspects that an older file may clear or convict."""

    findings: tuple[Finding, ...]
    suspects: tuple[Suspect, ...]
    poisoned: bool  # NaN in the optimizer or the metrics: something went through this network


def judge(counts: Mapping[Segment, Counts], tree: Tree, metadata: Metadata) -> Evidence:
    """Return what the counts and the recorded metrics prove."""
    metrics = _metrics(metadata)
    optimizer, optimizer_nan = _optimizer(counts)
    poisoned = bool(metrics) or optimizer_nan
    findings, suspects = [*metrics, *optimizer], []
    for segment, count in counts.items():
        for leaf in segment.leaves:
            found, suspect = _weights(leaf, segment, count, tree, poisoned)
            findings += found
            suspects += suspect
    return Evidence(tuple(findings), tuple(suspects), poisoned)


def pieces(segment: Segment) -> int:
    """Number of rows a sweep reports for a segment: channels, or the pieces it was read in."""
    if segment.channels:
        return segment.rows
    size = (segment.end - segment.start) if segment.strides is None else 1
    return -(-size // (BATCH // segment.format.size * segment.format.size))


def _metrics(metadata: Metadata) -> list[Finding]:
    findings = []
    for where, values in (("train_metrics", metadata.metrics), ("train_results", own_row(metadata))):
        bad = not_finite(values)
        if bad:
            shown = ", ".join(bad[:4]) + (f" and {len(bad) - 4} more" if len(bad) > 4 else "")
            findings.append(Finding("metrics", where, f"not finite in its own epoch: {shown}"))
    return findings


def _optimizer(counts: Mapping[Segment, Counts]) -> tuple[list[Finding], bool]:
    """Return one finding for optimizer and scaler state each, and whether there is NaN in it."""
    findings, any_nan = [], False
    for role in (OPTIMIZER, SCALER):
        bad = [
            (leaf, count)
            for segment, count in counts.items()
            for leaf in segment.leaves
            if leaf.role == role and (count.nan or count.inf)
        ]
        if bad:
            nan, inf = sum(count.nan for _, count in bad), sum(count.inf for _, count in bad)
            any_nan = any_nan or nan > 0
            more = f" and {len(bad) - 1} more tensors" if len(bad) > 1 else ""
            detail = f"{nan} NaN, {inf} infinite values{more}: a rebase rebuilds the {role} state"
            findings.append(Finding("optimizer", bad[0][0].name, detail))
    return findings, any_nan


def _weights(
    leaf: Leaf, segment: Segment, count: Counts, tree: Tree, poisoned: bool
) -> tuple[list[Finding], list[Suspect]]:
    """Judge one tensor of the weights."""
    if leaf.role in (OPTIMIZER, SCALER, ATTRIBUTE):
        return [], []
    total = leaf.tensor.numel
    findings = []
    if count.nan:
        findings.append(Finding("nan", leaf.name, f"{count.nan} of {total} values are NaN{_beside(leaf)}"))
    if count.inf and leaf.role == WEIGHTS:
        detail = f"{count.inf} of {total} values are infinite{_beside(leaf)}"
        findings.append(Finding("inf", leaf.name, detail))
    if leaf.role == MASK or findings:
        return findings, []
    return _washed(leaf, segment, count, tree, poisoned)


def _beside(leaf: Leaf) -> str:
    return " (in 'model', beside the EMA)" if leaf.part == "model" else ""


def _washed(
    leaf: Leaf, segment: Segment, count: Counts, tree: Tree, poisoned: bool
) -> tuple[list[Finding], list[Suspect]]:
    """Judge zeros and values at the limit in a tensor that is finite."""
    rows, all_rows = count.zeros, pieces(segment)
    whole = rows == all_rows
    matrix = len(leaf.tensor.shape) > 1
    norm = _NORMS.fullmatch(leaf.module) and leaf.attribute in ("weight", "running_var")
    findings: list[Finding] = []
    suspects: list[Suspect] = []
    if whole and (matrix or norm):
        if not _may_be_zero(leaf, tree):
            detail = f"all {leaf.tensor.numel} values are exactly 0, as training never makes them: washed NaN"
            return [Finding("laundered", leaf.name, detail)], []
        suspects.append(Suspect(leaf.name, leaf.part, "zero", (), leaf.tensor.shape))
    elif rows and matrix and segment.channels:
        suspects.append(Suspect(leaf.name, leaf.part, "zero", tuple(count.zero_rows), leaf.tensor.shape))
        if poisoned:
            detail = f"{rows} of {all_rows} channels are exactly 0, and there is NaN in optimizer or metrics"
            findings.append(Finding("laundered", leaf.name, detail))
    if count.limit:
        findings += _limits(leaf, segment, count, poisoned)
        if matrix:
            suspects.append(
                Suspect(leaf.name, leaf.part, "limit", tuple(count.limit_rows), leaf.tensor.shape)
            )
    return findings, suspects


def _limits(leaf: Leaf, segment: Segment, count: Counts, poisoned: bool) -> list[Finding]:
    """Judge values at the dtype's limit: proof together with zeros or NaN, else a warning."""
    size = leaf.tensor.numel
    matrix = len(leaf.tensor.shape) > 1
    only = count.limits_only and (segment.channels or count.limits_only + count.zeros == pieces(segment))
    shown = f"{count.limit} of {size} values are at the limit of {leaf.tensor.dtype}"
    if only and matrix:
        return [Finding("laundered", leaf.name, f"{shown}, filling whole channels: washed infinities")]
    if only and count.limit < size:
        return [Finding("laundered", leaf.name, f"{shown}, all others are exactly 0: washed NaN")]
    if matrix and count.zeros:
        return [Finding("laundered", leaf.name, f"{shown} and {count.zeros} channels are exactly 0")]
    if poisoned:
        return [Finding("laundered", leaf.name, f"{shown}, and there is NaN in optimizer or metrics")]
    return [Finding("saturated", leaf.name, f"{shown}: a clamp, of healthy large values or of infinities")]


def _may_be_zero(leaf: Leaf, tree: Tree) -> bool:
    """Whether a healthy file can have this tensor all zero: born so, or part of a user's own module."""
    if not leaf.module:
        return True  # a bare state_dict does not say what its tensors belong to
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


def doubtful(counts: Mapping[Segment, Counts]) -> list[str]:
    """Return the records of weights that look wrong: their CRC tells bit rot from what was saved."""
    return list(
        dict.fromkeys(
            f"data/{leaf.tensor.storage.key}"
            for segment, count in counts.items()
            for leaf in segment.leaves
            if leaf.role == WEIGHTS and (count.nan or count.inf or count.limit or len(leaf.tensor.shape) > 1)
        )
    )
