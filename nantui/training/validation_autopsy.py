"""Why a validation was not finite in fp32 either: the averaged weights, or the images that do it.

Runs on the first rank, which alone has the result, with no collectives.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from nantui.training import touchpoints
from nantui.training import validation_touchpoints as theirs
from nantui.training.autopsy import Finding
from nantui.training.forward_pass import prediction
from nantui.training.inspect_batch import broken_images, broken_labels

OVERFLOW = "fp16_overflow"
LONGEST_S = 60.0  # a large validation set is looked at from its beginning, for so long
MOST_IMAGES = 10


def examine_validation(trainer: Any) -> Finding:
    """Return why validation was not finite: the averaged weights, or images of the validation set.

    All is looked at in fp32. Never raises.
    """
    try:
        with torch.inference_mode(), theirs.dice_kept():
            return _examine_validation(trainer, touchpoints.unwrapped(trainer.ema.ema))
    except Exception as error:
        return Finding("unknown", f"the autopsy itself failed: {type(error).__name__}: {error}")


def _examine_validation(trainer: Any, model: nn.Module) -> Finding:
    bad = touchpoints.non_finite_state(model)
    evidence: dict[str, Any] = {"bad_state": bad[:10], "bad_state_count": len(bad)}
    if bad:
        weights = touchpoints.non_finite_parameters(model)
        what = "weights" if weights else "running statistics"
        text = f"the averaged {what} are not finite ({len(bad)} tensors, first {bad[0]})"
        return Finding("corrupt_weights" if weights else "spoilt_statistics", text, evidence)
    return _of_images(trainer, model, evidence)


def _of_images(trainer: Any, model: nn.Module, evidence: dict[str, Any]) -> Finding:
    search = _Search(trainer, model)
    found = list(search)
    evidence.update(images=[described for _, described, _ in found], images_looked_at=search.looked_at)
    if not found:
        of = f"{search.looked_at} of {len(trainer.test_loader.dataset)} validation images"
        if search.looked_at and theirs.validates_in_half(trainer):
            return Finding(OVERFLOW, f"in fp32 the losses of {of} are finite, in fp16 they are not", evidence)
        return Finding("unknown", f"weights, and the losses of {of} alone, are finite", evidence)
    cause, first, batch = found[0]
    others = f" and {len(found) - 1} more" if len(found) > 1 else ""
    text = f"{first['files'][0]}{others} of the validation set: {first['why']}"
    if cause == "exploding_gradient":
        full = prediction(model, batch["img"], None)
        evidence.update(
            fp32_first_bad_module=full.first_bad,
            fp32_largest_activation=full.largest,
            fp32_largest_in=full.largest_in,
        )
        where = f", first in {full.first_bad}" if full.first_bad else ""
        text += f"; activations overflow in fp32{where}" if full.first_bad else ""
    return Finding(cause, text, evidence)


class _Search:
    """Goes through the validation set batch by batch, and through bad batches image by image."""

    def __init__(self, trainer: Any, model: nn.Module) -> None:
        self.trainer, self.model = trainer, model
        self.looked_at = 0

    def __iter__(self) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
        """Yield the cause, the description and the batch of each image alone that is not finite."""
        found, until = 0, time.monotonic() + LONGEST_S
        loader = self.trainer.test_loader
        count, size = len(loader.dataset), max(loader.batch_size or 1, 1)
        for begin in range(0, count, size):
            if found >= MOST_IMAGES or time.monotonic() > until:
                return
            indices = range(begin, min(begin + size, count))
            self.looked_at = indices.stop
            if self._fine(theirs.batch_of(self.trainer, indices, half=False)):
                continue
            for index in indices:
                batch = theirs.batch_of(self.trainer, range(index, index + 1), half=False)
                if found < MOST_IMAGES and not self._fine(batch):
                    found += 1
                    yield self._described(index, batch)

    def _fine(self, batch: dict[str, Any]) -> bool:
        return theirs.losses_are_finite(self.trainer, self.model, batch, half=False)

    def _described(self, index: int, batch: dict[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
        normalized = self.trainer.args.task != "classify"
        pixels, labels = broken_images(batch, normalized), broken_labels(batch)
        cause, why = "exploding_gradient", "its loss is not finite"
        if pixels:
            cause, why = "broken_pixels", pixels[0][1]
        elif labels:
            cause, why = "broken_labels", labels[0][1]
        file = theirs.file_of(self.trainer.test_loader.dataset, index, batch)
        return cause, {"image": index, "files": [file], "why": why}, batch
