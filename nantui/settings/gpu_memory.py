"""Will it fit? GPU memory of changed settings, predicted from this run's own peak.

What grows with batch, image area and bytes per number (activations, images, the loss) is told apart from
what does not: weights, gradients, their fp16 copy under AMP, EMA and the optimizer's state. Both lie in one
peak; how much does not grow follows from the size of the weights.

What grows is the memory that tensors fill. The allocator reserves more: 4 % in steps under AMP, a
ninth in fp32, and in a whole run whatever fitted a validation, too (1.2 times what the steps need, seen).
So a prediction starts from the peak of what was filled and adds the allocator's part. Short of memory, the
allocator gives back what it holds, and a training went on until tensors filled 97 to 99 %, in fp32, too: what
is needed at least has 4 % to spare in every precision. Runs of older versions have only the reserved
peak: from it predictions are about a fifth too high (docs/gpu-results.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from nantui.run.documents import Settings
from nantui.settings.presets import magnitude
from nantui.settings.values import Change, changed, is_number, merge, number

FP32 = (False, "fp32")
FP32_TO_AMP = 1.93
"""How many times more grows in fp32: from 640 px, batch 16, and within 0.4 % at 1280 px."""
HELD_AMP, HELD_FP32 = 1.04, 1.11
"""What the allocator reserves at the peak over what tensors fill: 1.03 to 1.06 in nine trainings under AMP,
1.11 in both in fp32 (yolov8m, 640 to 1280 px, batch 8 to 64, one H200)."""
COUNTS = ("imgsz", "batch", "amp", "optimizer", "multi_scale")
"""The settings on which a peak depends."""
CONTEXT_GB = 0.7
"""CUDA itself takes 0.66 to 0.68 GiB beside PyTorch (the same trainings)."""
STATES = {"sgd": 1, "rmsprop": 1}
"""Numbers of the optimizer's state per weight; the others (Adam's family, MuSGD) keep two."""


@dataclass(frozen=True)
class Measured:
    """GPU memory in GiB per device: this run's own peak, as tensors filled it (`filled`) or else as PyTorch
    reserved it, and the size of the smallest device; `weights_gb` is what the weights take in fp32, 0 where
    it is not known: then everything grows.
    """

    peak_gb: float
    total_gb: float
    devices: int = 1
    weights_gb: float = 0.0
    filled: bool = False

    @property
    def usable_gb(self) -> float:
        """What PyTorch may reserve of the device."""
        return max(self.total_gb - CONTEXT_GB, 0.0)

    @property
    def to_spare(self) -> float:
        """How many times what tensors fill a device must have for them, whatever the precision."""
        return HELD_AMP if self.filled else 1.0


def reserved_gb(peak_gb: float, filled: bool, settings: Settings) -> float:
    """Return the GiB that PyTorch reserves for a peak: more than tensors fill."""
    if not filled:
        return peak_gb
    return peak_gb * (HELD_FP32 if settings.get("amp") in FP32 else HELD_AMP)


def predict(measured: Measured, now: Settings, then: Settings) -> float:
    """Return the GiB a device that PyTorch would reserve with `then`, given the peak measured with `now`."""
    return reserved_gb(_peak_gb(measured, now, then), measured.filled, then)


def least_gb(measured: Measured, now: Settings, then: Settings) -> float:
    """Return the GiB a device that PyTorch must have for `then`: what tensors fill, and a little to spare."""
    return _peak_gb(measured, now, then) * measured.to_spare


def _peak_gb(measured: Measured, now: Settings, then: Settings) -> float:
    grows = max(measured.peak_gb - stays_gb(measured, now), 0.0)
    return stays_gb(measured, then) + grows * load(then) / load(now)


def stays_gb(measured: Measured, settings: Settings) -> float:
    """Return the GiB that neither batch nor image size change: weights, EMA, optimizer, the fp16 copy that
    autocast keeps, and gradients. Memory is at its most near the end of the backward pass, in the layers of
    the largest images, when nearly all gradients are there.
    """
    states = STATES.get(str(settings.get("optimizer")).lower(), 2)
    copies = 3 + states + (0 if settings.get("amp") in FP32 else 0.5)
    return min(copies * measured.weights_gb, measured.peak_gb)


def load(settings: Settings) -> float:
    """Return batch × image area × bytes, in arbitrary units; unknown parts count as 1 on both sides.

    The area is that of the largest images: `multi_scale` 0.5 goes up to half as much again
    (`DetectionTrainer.preprocess_batch`); in older releases it was yes or no, and yes meant 0.5.
    """
    batch, scale = settings.get("batch"), settings.get("multi_scale")
    beyond = 0.5 if scale is True else number(scale) if is_number(scale) else 0.0
    side = (magnitude("imgsz", settings.get("imgsz")) or 1.0) * (1.0 + beyond)
    precision = FP32_TO_AMP if settings.get("amp") in FP32 else 1.0
    return (batch if is_number(batch) and batch >= 1 else 1) * side**2 * precision


def largest_batch(measured: Measured, now: Settings, then: Settings) -> int:
    """Return the largest batch, a multiple of the devices and at least one each, predicted to fit."""
    devices = max(measured.devices, 1)
    stays = stays_gb(measured, then) * measured.to_spare
    each = least_gb(measured, now, {**then, "batch": devices}) - stays
    room = measured.usable_gb - stays
    return max(int(room / each) if each > 0 else 1, 1) * devices


def fit(
    changes: list[Change], in_effect: Settings, measured: Measured | None, now: Settings | None = None
) -> list[Change]:
    """Return `changes` with the batch cut where the GPU's memory will not hold them otherwise; `now` are the
    settings that `measured` belongs to, by default those in effect.
    """
    now = now or in_effect
    then = {**in_effect, **changed(changes)}
    batch = then.get("batch")
    if measured is None or not is_number(batch) or batch < 1:
        return changes
    needed = least_gb(measured, now, then)
    if needed <= measured.usable_gb or load(then) <= load(now):
        return changes
    smaller = largest_batch(measured, now, then)
    why = f"memory: {needed:.0f} GB predicted at batch {batch}, the GPU has {measured.total_gb:.0f} GB"
    return merge(changes, [Change("batch", batch, smaller, why)]) if smaller < batch else changes
