"""Why a validation was not finite: the averaged weights, or what they make of validation images.

Runs on the first rank, which alone validates, with no collectives.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from nantui.training import touchpoints
from nantui.training.autopsy import MOST_IMAGES_ALONE, Finding, forwards, run_precision
from nantui.training.dataset_touchpoints import validation_images
from nantui.training.forward_pass import prediction


def examine_validation(trainer: Any) -> Finding:
    """Return why validation was not finite: the averaged weights, or activations on validation images.

    Looks at a few batches' worth of images, in fp32 and in the run's precision. Never raises.
    """
    try:
        with torch.inference_mode():
            return _examine_validation(trainer, touchpoints.unwrapped(trainer.ema.ema))
    except Exception as error:
        return Finding("unknown", f"the autopsy itself failed: {type(error).__name__}: {error}")


def _examine_validation(trainer: Any, model: nn.Module) -> Finding:
    bad = touchpoints.non_finite_state(model)
    weights = touchpoints.non_finite_parameters(model)
    evidence: dict[str, Any] = {"bad_state": bad[:10], "bad_state_count": len(bad)}
    precision, images = run_precision(trainer), validation_images(trainer, MOST_IMAGES_ALONE)
    full = prediction(model, images, None)
    low = prediction(model, images, precision) if precision else None
    evidence.update({k: v for k, v in forwards(full, low).items() if k != "fp32_loss_finite"})
    seen = f"largest activation {full.largest:.3g} in {full.largest_in}"
    if bad:
        what = "weights" if weights else "running statistics"
        text = f"the averaged {what} are not finite ({len(bad)} tensors, first {bad[0]}); {seen}"
        return Finding("corrupt_weights" if weights else "spoilt_statistics", text, evidence)
    if full.first_bad:
        return Finding(
            "exploding_gradient", f"activations overflow in fp32, first in {full.first_bad}", evidence
        )
    if low and low.first_bad:
        return Finding("fp16_overflow", f"an activation in {low.first_bad} is beyond fp16; {seen}", evidence)
    return Finding("unknown", f"weights and activations of {len(images)} images are finite; {seen}", evidence)
