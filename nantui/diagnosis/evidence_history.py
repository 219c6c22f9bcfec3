"""What the steps and epochs before the trouble looked like: climbing, or calm up to the last step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import median

from nantui.diagnosis.facts import Facts
from nantui.diagnosis.odds import CHECKPOINT, DATA, EXPLOSION, FP16, HARDWARE, RATE, SINGULAR, Evidence
from nantui.recovery.signs import overflowed
from nantui.run.results import EpochRow

ENOUGH = 8
"""Steps with a norm that a comparison needs."""
LATELY = 10
CLIMBED, CALM = 10.0, 3.0
"""New peak against the one before: healthy runs stay below the second, explosions pass the first.

Against the highest and not the median, for losses of small batches are heavy-tailed: in healthy runs of
the validation table single steps stood a hundred times above the median.
"""
SLOW = ("zero_loss", "loss_exploded", "too_many_skips")
"""Incidents that end a development instead of beginning one: their history is the whole window."""
SCALE_FELL = 64.0


def from_history(facts: Facts) -> Iterator[Evidence]:
    """Yield what steps.csv says of the time before; without it, what results.csv says of whole epochs."""
    if facts.before:
        yield from _of_steps(facts)
        yield from _loss_scale(facts)
    elif facts.results and not facts.watched:
        yield from _of_epochs(facts.results)
    if facts.kind in ("zero_loss", "loss_exploded"):
        text = "the loss left its range with finite numbers: the weights went wrong first"
        ratios = {EXPLOSION: 2.0, RATE: 2.0, DATA: 0.3, SINGULAR: 0.2, HARDWARE: 0.2, CHECKPOINT: 0.3}
        yield Evidence("kind", text, f"incident {facts.kind}", ratios)


def _of_steps(facts: Facts) -> Iterator[Evidence]:
    whole = facts.kind in SLOW
    norms = _growth([step.value("grad_norm") for step in facts.before], whole)
    losses = _growth([sum(step.losses.values()) for step in facts.before], whole)
    known = [growth for growth in (norms, losses) if growth is not None]
    if not known:
        return
    most, what = max(known), "gradient norm" if norms == max(known) else "loss"
    if most >= CLIMBED:
        text = f"the {what} climbed to {most:.3g} times its highest before"
        ratios = {EXPLOSION: 5.0, RATE: 2.5, DATA: 0.5, SINGULAR: 0.3, HARDWARE: 0.3, CHECKPOINT: 0.3}
        yield Evidence("history", text, "steps.csv", ratios)
    elif most < CALM:
        text = f"gradient norm and loss were calm up to it (at most {most:.2g} times their highest before)"
        ratios = {EXPLOSION: 0.15, RATE: 0.15, DATA: 2.0, SINGULAR: 2.0, HARDWARE: 2.0}
        yield Evidence("history", text, "steps.csv", ratios)


def _growth(values: Sequence[float], whole: bool) -> float | None:
    """Return the peak of the last values against the highest of those before, None where there are too few.

    `whole`: look for the peak in all values, for troubles that take long to show.
    """
    finite = [value for value in values if math.isfinite(value) and value > 0]
    recent = min(LATELY, len(finite) // 2)
    if len(finite) < ENOUGH:
        return None
    end = finite.index(max(finite)) + 1 if whole else len(finite)
    begin = max(end - recent, ENOUGH // 2)
    return max(finite[begin:], default=0.0) / max(finite[:begin])


def _loss_scale(facts: Facts) -> Iterator[Evidence]:
    scales = [step.value("loss_scale") for step in (*facts.before, *facts.after)]
    scales = [scale for scale in scales if scale > 0]
    if not scales:
        return
    if max(scales) / scales[-1] >= SCALE_FELL or facts.kind == "scale_collapsed":
        text = (
            f"the loss scale fell from {max(scales):g} to {scales[-1]:g}: gradients kept overflowing in fp16"
        )
        yield Evidence("loss_scale", text, "steps.csv", {FP16: 6.0})


def _of_epochs(rows: Sequence[EpochRow]) -> Iterator[Evidence]:
    """With only results.csv there are epochs: which numbers went bad first, and what the ones before did."""
    sound = overflowed(rows)
    bad = next((row for row in rows if not row.finite and row.epoch not in sound), None)
    if bad is None:
        return
    train = [value for value in bad.losses("train").values()]
    if train and all(math.isfinite(value) for value in train):
        text = (
            f"in epoch {bad.epoch} the training losses were finite and the validation's were not: "
            "BatchNorm's statistics were spoilt, or the validation overflowed"
        )
        ratios = {FP16: 3.0, CHECKPOINT: 2.0, DATA: 1.5, EXPLOSION: 0.5}
        yield Evidence("results", text, "results.csv", ratios)
        return
    before = [sum(row.losses("train").values()) for row in rows if row.epoch < bad.epoch and row.finite]
    if len(before) >= 3:
        jump = before[-1] / median(before[-6:-1])
        ratios = {EXPLOSION: 2.0, RATE: 1.5} if jump > 1.5 else {EXPLOSION: 0.8, DATA: 1.2}
        text = f"training loss NaN from epoch {bad.epoch} on; the epoch before was {jump:.2f} times the usual"
        yield Evidence("results", text, "results.csv", ratios)
