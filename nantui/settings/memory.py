"""Will it fit? GPU memory of changed settings, predicted from this run's own peak.

Activations grow with batch, image area and bytes per number; they dominate training. Measured with
yolov8m, batch 16, 1280 px on one H200: fp16 22.5 GB, bf16 22.4 GB, fp32 43.3 GB.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nantui.settings.bounds import magnitude
from nantui.settings.diff import Change, changed, merge
from nantui.settings.values import is_number

FP32_TO_AMP = 43.3 / 22.5
USABLE = 0.95
"""Share of the device that a training can use before fragmentation makes it fail."""


@dataclass(frozen=True)
class Measured:
    """GPU memory in GB per device: this run's own peak, and the size of the smallest device."""

    peak_gb: float
    total_gb: float
    devices: int = 1


def predict(measured: Measured, now: Mapping[str, Any], then: Mapping[str, Any]) -> float:
    """Return the peak in GB per device that `then` would need, given the peak measured with `now`."""
    return measured.peak_gb * load(then) / load(now)


def load(settings: Mapping[str, Any]) -> float:
    """Return batch × image area × bytes, in arbitrary units; unknown parts count as 1 on both sides."""
    batch = settings.get("batch")
    size = magnitude("imgsz", settings.get("imgsz")) or 1.0
    precision = FP32_TO_AMP if settings.get("amp") in (False, "fp32") else 1.0
    return (batch if is_number(batch) and batch >= 1 else 1) * size**2 * precision


def fit(changes: list[Change], in_effect: Mapping[str, Any], measured: Measured | None) -> list[Change]:
    """Return `changes` with the batch cut where the GPU's memory will not hold them otherwise."""
    then = {**in_effect, **changed(changes)}
    batch = then.get("batch")
    if measured is None or not is_number(batch) or batch < 1:
        return changes
    needed, usable = predict(measured, in_effect, then), measured.total_gb * USABLE
    if needed <= usable or load(then) <= load(in_effect):
        return changes
    devices = max(measured.devices, 1)
    smaller = max(int(batch * usable / needed) // devices * devices, devices)
    why = f"memory: {needed:.0f} GB predicted at batch {batch}, the GPU has {measured.total_gb:.0f} GB"
    return merge(changes, [Change("batch", batch, smaller, why)]) if smaller < batch else changes
