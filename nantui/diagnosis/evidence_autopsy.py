"""What the autopsy found, as evidence: the worker looked at the guilty batch and weights in memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from nantui.diagnosis.facts import Facts
from nantui.diagnosis.odds import CHECKPOINT, DATA, EXPLOSION, FP16, HARDWARE, RATE, SINGULAR, Evidence

USUAL_ACTIVATION = 1e3
"""Outputs of a healthy YOLO stay in the tens; below this, nothing in the forward pass is extreme."""
FEW_TENSORS = 2
"""A NaN out of the loss goes back through every layer; one in a tensor or two did not come from there."""

SOON = 5
"""Steps after a resume in which trouble points at what was resumed."""

Measured = Mapping[str, Any]


def from_autopsy(facts: Facts) -> Iterator[Evidence]:
    """Yield what the autopsy of the first incident of the trouble says."""
    if facts.autopsy is None:
        return
    measured = facts.autopsy.get("evidence") or {}
    text = f"autopsy: {facts.autopsy.get('text', '')}"
    found = _FINDINGS.get(str(facts.autopsy.get("cause")))
    if found is None:
        return
    more, ratios = found(facts, measured)
    yield Evidence("autopsy", text + (f"; {more}" if more else ""), "autopsy", ratios)


Outcome = tuple[str, dict[str, float]]


def _broken_data(facts: Facts, measured: Measured) -> Outcome:
    # A number in the batch that is not a pixel or a label explains everything that follows from it.
    return "", {DATA: 2000.0}


def _overflow(facts: Facts, measured: Measured) -> Outcome:
    return "", {FP16: 200.0}


def _violent(facts: Facts, measured: Measured) -> Outcome:
    """Steps of the weights' own size: a rate too high, or a gradient too large at a usual rate."""
    return "", {RATE: 6.0, EXPLOSION: 4.0, DATA: 0.3, SINGULAR: 0.3, HARDWARE: 0.3}


def _explosion(facts: Facts, measured: Measured) -> Outcome:
    if measured.get("fp32_first_bad_module"):
        return "", {EXPLOSION: 8.0, RATE: 4.0, FP16: 0.1, SINGULAR: 0.3, HARDWARE: 0.3}
    if measured.get("fp32_loss_finite") is False:
        more = "every module's output is finite and the loss is not, also when repeated"
        return more, {SINGULAR: 200.0, HARDWARE: 0.1, EXPLOSION: 0.5, RATE: 0.5}
    bad = measured.get("bad_gradients") or []
    if not bad:
        return "", {EXPLOSION: 3.0, RATE: 2.0}
    if _is_nan(measured.get("grad_norm")):
        # Clipping by a NaN norm makes every gradient NaN before the autopsy can look.
        more = "the gradient is NaN though the loss and all activations are finite"
        return more, {SINGULAR: 60.0, HARDWARE: 40.0, EXPLOSION: 1.5}
    if len(bad) <= FEW_TENSORS:
        more = f"only {len(bad)} tensor(s) had a bad gradient, which no backward pass leaves behind"
        return more, {HARDWARE: 150.0, SINGULAR: 0.1}
    if _usual(measured.get("fp32_largest_activation")):
        more = "the loss and all activations are of usual size, only the gradients are not finite"
        return more, {SINGULAR: 60.0, EXPLOSION: 1.5}
    return "", {EXPLOSION: 5.0, RATE: 3.0}


def _corrupt_weights(facts: Facts, measured: Measured) -> Outcome:
    if facts.settings.get("guard", "protect") != "protect":
        return "nothing kept a bad step out of them", {EXPLOSION: 1.5, RATE: 1.5}
    if facts.resumed and (facts.steps_in or 0) < SOON:
        return "", {CHECKPOINT: 15.0, HARDWARE: 2.0, EXPLOSION: 0.5, RATE: 0.3, DATA: 0.3}
    more = "the guard lets no step make them so: something else wrote there"
    return more, {HARDWARE: 100.0, CHECKPOINT: 2.0, EXPLOSION: 0.5, RATE: 0.3, DATA: 0.3}


def _statistics(facts: Facts, measured: Measured) -> Outcome:
    return "", {CHECKPOINT: 8.0, DATA: 2.0, FP16: 2.0, EXPLOSION: 0.5, RATE: 0.3}


def _transient(facts: Facts, measured: Measured) -> Outcome:
    return "", {HARDWARE: 150.0}


def _is_nan(value: Any) -> bool:
    return value == "nan" or (isinstance(value, float) and math.isnan(value))


def _usual(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and value < USUAL_ACTIVATION


_FINDINGS: dict[str, Callable[[Facts, Measured], Outcome]] = {
    "broken_pixels": _broken_data,
    "broken_labels": _broken_data,
    "fp16_overflow": _overflow,
    "learning_rate": _violent,
    "exploding_gradient": _explosion,
    "corrupt_weights": _corrupt_weights,
    "spoilt_statistics": _statistics,
    "not_reproduced": _transient,
}
