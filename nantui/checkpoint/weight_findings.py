"""From counts to findings: what is wrong with the weights, and how the file itself proves it.

Healthy files have zeros too: biases of a young network, layers that Ultralytics initialises with zeros
and that have not been trained yet, parts of a user's own modules. So a zero tensor is evidence only
where a healthy file cannot have one; the rest waits for an older file of the run (older_checkpoint.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from nantui.checkpoint.metadata import not_finite, own_row
from nantui.checkpoint.pickle.allowlist import CLASSES
from nantui.checkpoint.tensors.segments import BATCH, Counts, Segment, is_norm
from nantui.checkpoint.tensors.tensor_tree import MASK, OPTIMIZER, SCALER, WEIGHTS, Leaf, Tree
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
    for where, values in (("train_metrics", metadata.metrics), ("train_results", own_row(metadata))):
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
    """Tell whether an epoch has metrics above 0."""
    metrics = [value for name, value in values.items() if name.strip().startswith("metrics/")]
    return any(
        isinstance(value, (int, float)) and not isinstance(value, bool) and value > 0 for value in metrics
    )


def _vouched_for(metadata: Metadata) -> bool:
    """Tell whether the file's own record shows that this network works: its epoch has metrics above 0, and
    nothing in it is not finite. NaN in a network leaves metrics of 0, and NaN in its losses.
    """
    records = [values for values in (metadata.metrics, own_row(metadata)) if values]
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
