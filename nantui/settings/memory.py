"""Will it fit? GPU memory of changed settings, predicted from this run's own peak.

What grows with batch, image area and bytes per number (activations, images, the loss) is told apart from
what does not: weights, their fp16 copy under AMP, EMA and the optimizer's state. Both lie in one peak; how
much does not grow follows from the size of the weights. Measured with yolov8m, batch 16, 1280 px on one
H200: fp16 22.5 GB, bf16 22.4 GB, fp32 43.3 GB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nantui.settings.bounds import magnitude
from nantui.settings.diff import Change, changed, merge
from nantui.settings.effective import number
from nantui.settings.values import is_number

FP32_TO_AMP = 43.3 / 22.5
USABLE = 0.95
"""Share of the device that a training can use before fragmentation makes it fail."""
STATES = {"sgd": 1, "rmsprop": 1}
"""Numbers of the optimizer's state per weight; the others (Adam's family, MuSGD) keep two."""


@dataclass(frozen=True)
class Measured:
    """GPU memory in GiB per device: this run's own peak as PyTorch reserved it, and the size of the smallest
    device; `weights_gb` is what the weights take in fp32, 0 where it is not known: then everything grows.
    """

    peak_gb: float
    total_gb: float
    devices: int = 1
    weights_gb: float = 0.0

    @property
    def usable_gb(self) -> float:
        """What a training may take of the device."""
        return self.total_gb * USABLE


def predict(measured: Measured, now: Mapping[str, Any], then: Mapping[str, Any]) -> float:
    """Return the peak in GiB per device that `then` would need, given the peak measured with `now`."""
    grows = max(measured.peak_gb - stays_gb(measured, now), 0.0)
    return stays_gb(measured, then) + grows * load(then) / load(now)


def stays_gb(measured: Measured, settings: Mapping[str, Any]) -> float:
    """Return the GiB that neither batch nor image size change: weights, EMA, optimizer and the fp16 copy that
    autocast keeps during the forward pass. Gradients are not there yet when activations are at their most.
    """
    states = STATES.get(str(settings.get("optimizer")).lower(), 2)
    copies = 2 + states + (0 if settings.get("amp") in (False, "fp32") else 0.5)
    return min(copies * measured.weights_gb, measured.peak_gb)


def load(settings: Mapping[str, Any]) -> float:
    """Return batch × image area × bytes, in arbitrary units; unknown parts count as 1 on both sides."""
    batch = settings.get("batch")
    precision = FP32_TO_AMP if settings.get("amp") in (False, "fp32") else 1.0
    return (batch if is_number(batch) and batch >= 1 else 1) * largest_side(settings) ** 2 * precision


def largest_side(settings: Mapping[str, Any]) -> float:
    """Return the largest image side in px: `multi_scale` 0.5 goes up to half as much again
    (`DetectionTrainer.preprocess_batch`); in older releases it was yes or no, and yes meant 0.5.
    """
    size, scale = magnitude("imgsz", settings.get("imgsz")) or 1.0, settings.get("multi_scale")
    beyond = 0.5 if scale is True else number(scale) if is_number(scale) else 0.0
    return size * (1.0 + beyond)


def largest_batch(measured: Measured, now: Mapping[str, Any], then: Mapping[str, Any]) -> int:
    """Return the largest batch, a multiple of the devices and at least one each, predicted to fit."""
    devices = max(measured.devices, 1)
    one = {**then, "batch": devices}
    each = predict(measured, now, one) - stays_gb(measured, then)
    room = measured.usable_gb - stays_gb(measured, then)
    return max(int(room / each) if each > 0 else 1, 1) * devices


def fit(changes: list[Change], in_effect: Mapping[str, Any], measured: Measured | None) -> list[Change]:
    """Return `changes` with the batch cut where the GPU's memory will not hold them otherwise."""
    then = {**in_effect, **changed(changes)}
    batch = then.get("batch")
    if measured is None or not is_number(batch) or batch < 1:
        return changes
    needed = predict(measured, in_effect, then)
    if needed <= measured.usable_gb or load(then) <= load(in_effect):
        return changes
    smaller = largest_batch(measured, in_effect, then)
    why = f"memory: {needed:.0f} GB predicted at batch {batch}, the GPU has {measured.total_gb:.0f} GB"
    return merge(changes, [Change("batch", batch, smaller, why)]) if smaller < batch else changes
