"""Why a batch, or a validation, went wrong, found out while its data and the weights are still in memory.

Runs in the worker, on one rank, with no collectives: are inputs and targets sound, are the weights, which
module is the first to give a non-finite output in fp32 and in the run's precision, how large do
activations and updates get, and which image is to blame. Nothing it does leaves a trace in the model.
A validation that was not finite is looked at in fp32, on the first rank, which alone has its result: the
averaged weights, or the images that do it.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ParamSpec

import torch
from torch import nn

from nantui.words import count
from nantui.worker import ultralytics_api
from nantui.worker import validation_precision as validation
from nantui.worker.autopsy import passes
from nantui.worker.autopsy.passes import Backward, Forward
from nantui.worker.guard.batch_probe import BatchProbe
from nantui.worker.guard.tensor_copies import BatchNormStatistics
from nantui.worker.incident import Evidence
from nantui.worker.points.training_state import dice_kept
from nantui.worker.ultralytics_types import Batch, Trainer

SLACK = 0.01  # Ultralytics' own tolerance for coordinates beyond the edge
FP16_LARGEST = 65504.0
VIOLENT_UPDATE = 0.1  # of a weight's own size in one step; a healthy one is near 0.001
HUGE_WEIGHT = 1e3
MOST_IMAGES_ALONE = 64
OVERFLOW = "fp16_overflow"
TRANSIENT = "a transient fault, not the data or the weights"
Asked = ParamSpec("Asked")
LONGEST_S = 60.0  # a large validation set is looked at from its beginning, for so long
MOST_IMAGES = 10


@dataclass(frozen=True)
class AutopsyFinding:
    """The verdict: `cause` as diagnosis knows it, one sentence, and what was measured."""

    cause: str
    text: str
    evidence: Evidence = field(default_factory=dict)


def safely(look: Callable[Asked, AutopsyFinding], *asked: Asked.args, **how: Asked.kwargs) -> AutopsyFinding:
    """Return what `examine` or `examine_validation` finds; that it fails is a finding, and costs no run."""
    try:
        return look(*asked, **how)
    except Exception as error:
        return AutopsyFinding("unknown", f"the autopsy itself failed: {type(error).__name__}: {error}")


def run_precision(trainer: Trainer) -> torch.dtype | None:
    """Return the precision of the run's forward pass, None for fp32."""
    if not trainer.amp:
        return None
    return torch.bfloat16 if trainer.args.amp == "bf16" else torch.float16


def examine(trainer: Trainer, batch: Batch, seen: BatchProbe, files: list[tuple[str, ...]]) -> AutopsyFinding:
    """Return why this batch went wrong."""
    model, precision = ultralytics_api.unwrapped(trainer.model), run_precision(trainer)
    data = _data(trainer, batch, files)
    if data is not None:
        return data
    if seen.bad_buffers and not seen.bad_loss and not seen.bad_norm:
        text = "only BatchNorm's running statistics are not finite: something before this batch spoilt them"
        return AutopsyFinding("spoilt_statistics", text, {"grad_norm": seen.norm})
    evidence = {**_weights(trainer, model), "grad_norm": seen.norm, "loss_scale": seen.scale}
    evidence.update(passes.live_gradients(model))
    if evidence["bad_weights"] and not _violent(evidence):
        text = f"weights are not finite ({', '.join(evidence['bad_weights'][:3])}) though steps were small"
        return AutopsyFinding("corrupt_weights", text, evidence)
    if evidence["bad_weights"]:
        return _learning_rate(evidence)
    with _undisturbed(model):
        full = passes.forward(model, batch, None)
        low = passes.forward(model, batch, precision) if precision else None
        evidence.update(full.evidence(), fp32_loss_finite=full.loss_finite)
        if low:
            evidence.update(run_first_bad_module=low.first_bad, run_largest_activation=low.largest)
        back = passes.backward(model, batch, None)
        low_back = passes.backward(model, batch, precision, seen.scale or 1.0) if precision and back else None
        worst = next((one for one in (back, low_back) if one and not one.finite), back)
        evidence.update(worst.evidence() if worst else {"repeat_gradients_finite": None})
        evidence["images"] = _to_blame(model, batch, files, precision) if full.first_bad or low else []
    whole = trainer.accumulate <= 1 and (low_back is not None or precision is None)
    forward = _verdict(evidence, full, low, precision, seen)
    return forward or _of_gradients(evidence, back, low_back, whole, seen)


def _data(trainer: Trainer, batch: Batch, files: list[tuple[str, ...]]) -> AutopsyFinding | None:
    cause, bad = _broken(trainer, batch)
    images = [_image(index, files, why) for index, why in bad[:10]]
    text = f"{cause.replace('_', ' ')}: {_name(images[0])}" if images else ""
    return AutopsyFinding(cause, text, {"images": images}) if images else None


def _broken(trainer: Trainer, batch: Batch) -> tuple[str, list[tuple[int, str]]]:
    """Return the cause and (index, why) of the images that are broken: pixels first, then labels."""
    pixels = broken_images(batch, trainer.args.task != "classify")  # it standardizes: pixels leave 0..1
    return ("broken_pixels", pixels) if pixels else ("broken_labels", broken_labels(batch))


def _image(index: int, files: list[tuple[str, ...]], why: str) -> Evidence:
    return {"image": index, "files": list(files[index]) if index < len(files) else [], "why": why}


def _name(image: Evidence) -> str:
    files = image["files"]
    if not files:
        return f"image {image['image'] + 1} of the batch ({image['why']})"
    among = "" if len(files) == 1 else f", one of {len(files)} candidates in a mosaic or mix"
    return f"{files[0]} ({image['why']}){among}"


def _weights(trainer: Trainer, model: nn.Module) -> Evidence:
    bad = ultralytics_api.non_finite(model.named_parameters())
    size, largest = ultralytics_api.weight_size(model)
    update = ultralytics_api.update_size(trainer.optimizer)
    ratio = update / size if size > 0 and math.isfinite(size) else math.nan
    return {
        "bad_weights": bad[:10], "largest_weight": largest, "update_to_weight": ratio,
        "lr": max(group["lr"] for group in trainer.optimizer.param_groups),
    }  # fmt: skip


def _violent(evidence: Evidence) -> bool:
    """Tell whether the steps are of the weights' own size, or the weights out of all proportion."""
    ratio, largest = evidence["update_to_weight"], evidence["largest_weight"]
    return ratio > VIOLENT_UPDATE or (math.isfinite(largest) and largest > HUGE_WEIGHT)


def _learning_rate(evidence: Evidence) -> AutopsyFinding:
    text = (
        f"the learning rate {evidence['lr']:g} is too high: one step moves the weights by "
        f"{evidence['update_to_weight']:.1%} of their size, "
        f"and the largest weight is {evidence['largest_weight']:.3g}"
    )
    return AutopsyFinding("learning_rate", text, evidence)


def _verdict(
    evidence: Evidence, full: Forward, low: Forward | None, precision: torch.dtype | None, seen: BatchProbe
) -> AutopsyFinding | None:
    """Return what the weights and the repeated forward pass tell, None where they are sound."""
    if _violent(evidence):
        return _learning_rate(evidence)
    beyond = precision is torch.float16 and full.largest > FP16_LARGEST
    if full.first_bad is None and low is not None and (low.first_bad or not low.loss_finite or beyond):
        where = low.first_bad or full.largest_in
        text = f"an activation of {full.largest:.3g} in {where} is beyond fp16 ({FP16_LARGEST:g}), not fp32"
        return AutopsyFinding(OVERFLOW, text, evidence)
    if full.first_bad is not None:
        text = f"activations overflow even in fp32, first in {full.first_bad}"
        return AutopsyFinding("exploding_gradient", text, evidence)
    if seen.bad_loss and full.loss_finite:
        text = f"the same batch gives a finite loss when repeated: {TRANSIENT}"
        return AutopsyFinding("not_reproduced", text, evidence)
    return None


def _of_gradients(
    evidence: Evidence, full: Backward | None, low: Backward | None, whole: bool, seen: BatchProbe
) -> AutopsyFinding:
    """Return the verdict where inputs, weights and the whole forward pass are sound.

    `whole` tells whether the repetition is all that the step's gradient was made of.
    """
    if full and full.finite and low and not low.finite:
        where = low.modules[0]["module"] if low.modules else "all of them together"
        text = f"a gradient in {where} is beyond fp16 at the loss scale {seen.scale:g}, not in fp32"
        return AutopsyFinding(OVERFLOW, text, evidence)
    if full and full.finite and whole and seen.bad_norm:
        tensors = count(evidence["bad_gradients_count"], "bad tensor")
        text = f"the same batch gives finite gradients when repeated ({tensors}): {TRANSIENT}"
        return AutopsyFinding("not_reproduced", text, evidence)
    bad, largest = evidence["bad_gradients"], list(evidence.get("repeat_largest_gradients") or ())
    where = f", first in {bad[0]}" if bad else f", largest in {largest[0]}" if largest else ""
    text = f"inputs, weights and activations are finite; the gradient is what explodes{where}"
    return AutopsyFinding("exploding_gradient", text, evidence)


def _to_blame(
    model: nn.Module, batch: Batch, files: list[tuple[str, ...]], precision: torch.dtype | None
) -> list[Evidence]:
    """Run images one by one, with running statistics; those that alone overflow are to blame."""
    model.eval()
    alone = [passes.forward(model, image, precision) for image in batch["img"][:MOST_IMAGES_ALONE].split(1)]
    peaks = [(math.inf if one.first_bad else one.largest, index) for index, one in enumerate(alone)]
    worst = sorted((peak for peak in peaks if peak[0] > FP16_LARGEST), key=lambda peak: -peak[0])[:10]
    return [_image(index, files, f"largest activation {peak:.3g}") for peak, index in worst]


@contextlib.contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Put running statistics, module modes and random numbers back afterwards."""
    statistics = BatchNormStatistics(model)
    modes = [(module, module.training) for module in model.modules()]
    with dice_kept():
        try:
            yield
        finally:
            statistics.restore()
            for module, training in modes:
                module.training = training


def examine_validation(trainer: Trainer) -> AutopsyFinding:
    """Return why validation was not finite, seen in fp32: the averaged weights, or images of its data set."""
    with torch.inference_mode(), dice_kept():
        model = ultralytics_api.unwrapped(trainer.ema.ema)
        bad = ultralytics_api.non_finite_state(model)
        evidence: Evidence = {"bad_state": bad[:10], "bad_state_count": len(bad)}
        if not bad:
            return _of_images(trainer, model, evidence)
        weights = ultralytics_api.non_finite(model.named_parameters())
        what = "weights" if weights else "running statistics"
        text = f"the averaged {what} are not finite ({count(len(bad), 'tensor')}, first {bad[0]})"
        return AutopsyFinding("corrupt_weights" if weights else "spoilt_statistics", text, evidence)


def _of_images(trainer: Trainer, model: nn.Module, evidence: Evidence) -> AutopsyFinding:
    names = ultralytics_api.image_files(trainer.test_loader.dataset)
    found, looked_at = _bad_alone(trainer, model)
    evidence.update(images=[], images_looked_at=looked_at)
    if not found:
        of = f"{looked_at} of {len(trainer.test_loader.dataset)} validation images"
        if looked_at and validation.validates_in_half(trainer):
            text = f"in fp32 the losses of {of} are finite, in fp16 they are not"
            return AutopsyFinding(OVERFLOW, text, evidence)
        return AutopsyFinding("unknown", f"weights, and the losses of {of} alone, are finite", evidence)
    causes = []
    for index, batch in found:
        cause, bad = _broken(trainer, batch)
        causes.append(cause if bad else "exploding_gradient")
        why = bad[0][1] if bad else "its loss is not finite"
        file = names[index] if index < len(names) else f"sample {index}"
        evidence["images"].append({"image": index, "files": [file], "why": why})
    first, others = evidence["images"][0], f" and {len(found) - 1} more" if len(found) > 1 else ""
    text = f"{first['files'][0]}{others} of the validation set: {first['why']}"
    if causes[0] == "exploding_gradient":
        full = passes.forward(model, found[0][1]["img"], None)
        evidence.update(full.evidence())
        text += f"; activations overflow in fp32, first in {full.first_bad}" if full.first_bad else ""
    return AutopsyFinding(causes[0], text, evidence)


def _bad_alone(trainer: Trainer, model: nn.Module) -> tuple[list[tuple[int, Batch]], int]:
    """Return index and batch of validation images whose losses alone are not finite, and how many images
    were looked at: batch by batch, bad batches image by image.
    """
    found: list[tuple[int, Batch]] = []
    loader, until = trainer.test_loader, time.monotonic() + LONGEST_S
    images, size = len(loader.dataset), max(loader.batch_size or 1, 1)
    for begin in range(0, images, size):
        if len(found) >= MOST_IMAGES or time.monotonic() > until:
            return found, begin
        indices = range(begin, min(begin + size, images))
        batch = validation.batch_of(trainer, indices, half=False)
        if validation.losses_are_finite(trainer, model, batch, half=False):
            continue
        for index in indices:
            batch = validation.batch_of(trainer, range(index, index + 1), half=False)
            fine = validation.losses_are_finite(trainer, model, batch, half=False)
            if not fine and len(found) < MOST_IMAGES:
                found.append((index, batch))
    return found, images


def broken_images(batch: Batch, normalized: bool) -> list[tuple[int, str]]:
    """Return (index, why) of images with a non-finite pixel or, where `normalized`, one outside 0..1."""
    images = batch["img"].detach().float().flatten(1)
    finite = torch.isfinite(images).all(1)
    inside = ((images >= -1e-3) & (images <= 1 + 1e-3)).all(1) if normalized else finite
    reasons = []
    for index, (is_finite, is_inside) in enumerate(zip(finite.tolist(), inside.tolist(), strict=True)):
        if not is_finite:
            values = images[index]
            reasons.append((index, f"{count(int((~torch.isfinite(values)).sum()), 'pixel')} not finite"))
        elif not is_inside:
            reasons.append((index, f"pixels from {images[index].min():.4g} to {images[index].max():.4g}"))
    return reasons


def broken_labels(batch: Batch) -> list[tuple[int, str]]:
    """Return (index of the image, why) of targets that are not finite or lie outside the image."""
    owners = batch.get("batch_idx")
    if owners is None:
        return []
    found: dict[int, str] = {}
    for name in ("bboxes", "keypoints", "cls"):
        target = batch.get(name)
        if isinstance(target, torch.Tensor) and len(target) == len(owners) and len(target):
            for row, why in _broken_rows(name, target.detach().float().flatten(1)):
                found.setdefault(int(owners[row]), why)
    return sorted(found.items())


def _broken_rows(name: str, target: torch.Tensor) -> list[tuple[int, str]]:
    finite = torch.isfinite(target).all(1)
    rows = [(int(row), f"{name} not finite") for row in (~finite).nonzero().flatten()]
    if name == "bboxes":
        box = target[:, :4]
        outside = finite & ((box < -SLACK) | (box > 1 + SLACK)).any(1)
        rows += [(int(row), "a box lies outside the image") for row in outside.nonzero().flatten()]
    return rows
