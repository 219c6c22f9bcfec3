"""Why a batch went wrong, found out while the guilty batch and weights are still in memory.

Runs in the worker, on one rank, with no collectives: are inputs and targets sound, are the weights, which
module is the first to give a non-finite output in fp32 and in the run's precision, how large do
activations and updates get, and which image is to blame. Nothing it does leaves a trace in the model.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from nantui.training import touchpoints
from nantui.training.backward_pass import Repeated, described, live_gradients, repeated
from nantui.training.buffers import RunningStatistics
from nantui.training.forward_pass import Forward, forward, largest_activation
from nantui.training.inspect_batch import broken_images, broken_labels
from nantui.training.look import Look

FP16_LARGEST = 65504.0
VIOLENT_UPDATE = 0.1  # of a weight's own size in one step; a healthy one is near 0.001
HUGE_WEIGHT = 1e3
MOST_IMAGES_ALONE = 64


@dataclass(frozen=True)
class Finding:
    """The verdict: `cause` as diagnosis knows it, one sentence, and what was measured."""

    cause: str
    text: str
    evidence: dict[str, Any] = field(default_factory=dict)


def examine(
    trainer: Any,
    batch: dict[str, Any],
    seen: Look,
    files: list[tuple[str, ...]],
    precision: torch.dtype | None,
) -> Finding:
    """Return why this batch went wrong. `precision` is the run's (float16, bfloat16), None for fp32.

    Never raises: an autopsy that fails must not cost the run.
    """
    try:
        return _examine(trainer, batch, seen, files, precision)
    except Exception as error:
        return Finding("unknown", f"the autopsy itself failed: {type(error).__name__}: {error}")


def run_precision(trainer: Any) -> torch.dtype | None:
    """Return the precision of the run's forward pass, None for fp32."""
    if not trainer.amp:
        return None
    return torch.bfloat16 if trainer.args.amp == "bf16" else torch.float16


def _examine(
    trainer: Any,
    batch: dict[str, Any],
    seen: Look,
    files: list[tuple[str, ...]],
    precision: torch.dtype | None,
) -> Finding:
    model = touchpoints.unwrapped(trainer.model)
    data = _data(batch, files, trainer)
    if data is not None:
        return data
    if seen.bad_buffers and not seen.bad_loss and not seen.bad_norm:
        text = "only BatchNorm's running statistics are not finite: something before this batch spoilt them"
        return Finding("spoilt_statistics", text, {"grad_norm": seen.norm})
    evidence = {**_weights(trainer, model), "grad_norm": seen.norm, "loss_scale": seen.scale}
    evidence.update(live_gradients(model))
    if evidence["bad_weights"]:
        return _bad_weights(evidence)
    with _undisturbed(model):
        full = forward(model, batch, None)
        low = forward(model, batch, precision) if precision else None
        evidence.update(forwards(full, low))
        again = repeated(trainer, model, batch, seen, precision)
        evidence.update(described(again))
        evidence["images"] = _to_blame(model, batch, files, precision) if full.first_bad or low else []
    return _verdict(evidence, full, low, precision, seen) or _of_gradients(evidence, again, seen)


def _data(batch: dict[str, Any], files: list[tuple[str, ...]], trainer: Any) -> Finding | None:
    """Return a finding when the batch itself is broken: pixels first, then labels."""
    normalized = trainer.args.task != "classify"  # classify standardizes: its pixels leave 0..1 by design
    for cause, what, bad in (
        ("broken_pixels", "pixels", broken_images(batch, normalized)),
        ("broken_labels", "labels", broken_labels(batch)),
    ):
        if bad:
            images = [
                {"image": i, "files": list(files[i]) if i < len(files) else [], "why": why} for i, why in bad
            ]
            return Finding(cause, f"broken {what}: {_name(images[0])}", {"images": images[:10]})
    return None


def _name(image: dict[str, Any]) -> str:
    files = image["files"]
    if not files:
        return f"image {image['image'] + 1} of the batch ({image['why']})"
    among = "" if len(files) == 1 else f", one of {len(files)} candidates in a mosaic or mix"
    return f"{files[0]} ({image['why']}){among}"


def _weights(trainer: Any, model: nn.Module) -> dict[str, Any]:
    """Measure the weights, and the last update against them."""
    bad = touchpoints.non_finite_parameters(model)
    size, largest = touchpoints.weight_size(model)
    update = touchpoints.update_size(trainer.optimizer)
    ratio = update / size if size > 0 and math.isfinite(size) else math.nan
    return {
        "bad_weights": bad[:10],
        "largest_weight": largest,
        "update_to_weight": ratio,
        "lr": max(group["lr"] for group in trainer.optimizer.param_groups),
    }


def _bad_weights(evidence: dict[str, Any]) -> Finding:
    if _violent(evidence):
        return _learning_rate(evidence)
    names = ", ".join(evidence["bad_weights"][:3])
    return Finding("corrupt_weights", f"weights are not finite ({names}) though steps were small", evidence)


def _violent(evidence: dict[str, Any]) -> bool:
    """Tell whether the steps are of the weights' own size, or the weights out of all proportion."""
    ratio, largest = evidence["update_to_weight"], evidence["largest_weight"]
    return ratio > VIOLENT_UPDATE or (math.isfinite(largest) and largest > HUGE_WEIGHT)


def _learning_rate(evidence: dict[str, Any]) -> Finding:
    text = (
        f"the learning rate {evidence['lr']:g} is too high: one step moves the weights by "
        f"{evidence['update_to_weight']:.1%} of their size, "
        f"and the largest weight is {evidence['largest_weight']:.3g}"
    )
    return Finding("learning_rate", text, evidence)


def forwards(full: Forward, low: Forward | None) -> dict[str, Any]:
    """Return what forward passes in fp32 and in the run's precision showed, as evidence."""
    found: dict[str, Any] = {
        "fp32_first_bad_module": full.first_bad,
        "fp32_largest_activation": full.largest,
        "fp32_largest_in": full.largest_in,
        "fp32_loss_finite": full.loss_finite,
    }
    if low is not None:
        found.update(run_first_bad_module=low.first_bad, run_largest_activation=low.largest)
    return found


def _verdict(
    evidence: dict[str, Any],
    full: Forward,
    low: Forward | None,
    precision: torch.dtype | None,
    seen: Look,
) -> Finding | None:
    """Return what the weights and the repeated forward pass tell, None where they are sound."""
    if _violent(evidence):
        return _learning_rate(evidence)
    beyond = precision is torch.float16 and full.largest > FP16_LARGEST
    if full.first_bad is None and low is not None and (low.first_bad or not low.loss_finite or beyond):
        where = low.first_bad or full.largest_in
        text = f"an activation of {full.largest:.3g} in {where} is beyond fp16 ({FP16_LARGEST:g}), not fp32"
        return Finding("fp16_overflow", text, evidence)
    if full.first_bad is not None:
        text = f"activations overflow even in fp32, first in {full.first_bad}"
        return Finding("exploding_gradient", text, evidence)
    if seen.bad_loss and full.loss_finite:
        text = (
            "the same batch gives a finite loss when repeated: a transient fault, not the data or the weights"
        )
        return Finding("not_reproduced", text, evidence)
    return None


def _of_gradients(evidence: dict[str, Any], again: Repeated, seen: Look) -> Finding:
    """Return the verdict where inputs, weights and the whole forward pass are sound."""
    full, low = again.full, again.low
    if full and full.finite and low and not low.finite:
        where = low.modules[0]["module"] if low.modules else "all of them together"
        text = f"a gradient in {where} is beyond fp16 at the loss scale {seen.scale:g}, not in fp32"
        return Finding("fp16_overflow", text, evidence)
    if full and full.finite and again.whole and seen.bad_norm:
        count = evidence["bad_gradients_count"]
        text = (
            f"the same batch gives finite gradients when repeated ({count} tensors were bad): "
            "a transient fault, not the data or the weights"
        )
        return Finding("not_reproduced", text, evidence)
    bad, largest = evidence["bad_gradients"], list(evidence.get("repeat_largest_gradients") or ())
    where = f", first in {bad[0]}" if bad else f", largest in {largest[0]}" if largest else ""
    text = f"inputs, weights and activations are finite; the gradient is what explodes{where}"
    return Finding("exploding_gradient", text, evidence)


def _to_blame(
    model: nn.Module, batch: dict[str, Any], files: list[tuple[str, ...]], precision: torch.dtype | None
) -> list[dict[str, Any]]:
    """Run images one by one, with running statistics; those that alone overflow are to blame."""
    model.eval()
    largest = []
    for index in range(min(len(batch["img"]), MOST_IMAGES_ALONE)):
        peak = largest_activation(model, batch["img"][index : index + 1], precision)
        largest.append((index, peak))
    bad = [(i, peak) for i, peak in largest if not math.isfinite(peak) or peak > FP16_LARGEST]
    return [
        {
            "image": i,
            "files": list(files[i]) if i < len(files) else [],
            "why": f"largest activation {peak:.3g}",
        }
        for i, peak in sorted(bad, key=lambda x: -x[1])[:10]
    ]


@contextlib.contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Put running statistics, module modes and random numbers back afterwards."""
    statistics = RunningStatistics(model)
    modes = [(module, module.training) for module in model.modules()]
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            statistics.restore()
            for module, training in modes:
                module.training = training
