"""Passes repeated on one batch: which module's output, and which gradients, are first not finite.

A forward pass runs under hooks, which also tell how large outputs get. Gradients are looked at as the step
found them, and when forward and backward are repeated: one that is fine then was not made by the data or the
weights. In the step a gradient is a sum over ranks and micro-batches; the repetition is this rank's batch
alone.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import nn

from nantui.worker import ultralytics_api
from nantui.worker.guard.batch_probe import BatchProbe
from nantui.worker.ultralytics_types import Batch, Trainer

MOST_MODULES = 20
MOST_LARGEST = 5
Peaks: TypeAlias = "list[tuple[str, torch.Tensor]]"


@dataclass(frozen=True)
class Forward:
    """One forward pass with hooks: the first module with a non-finite output, the largest activation."""

    first_bad: str | None
    largest: float
    largest_in: str
    loss_finite: bool


def forward(model: nn.Module, batch: Batch, precision: torch.dtype | None) -> Forward:
    """Run the model and its loss on a batch under hooks, in fp32 or under autocast to `precision`."""
    peaks, loss = _watched(model, lambda: model(dict(batch))[0], batch["img"].device.type, precision)
    return _summary(peaks, bool(torch.isfinite(loss).all()))


def prediction(model: nn.Module, images: torch.Tensor, precision: torch.dtype | None) -> Forward:
    """Run the model alone on images of shape (N, C, H, W), as validation does; there is no loss."""
    return _summary(_watched(model, lambda: model(images), images.device.type, precision)[0], True)


def largest_activation(model: nn.Module, image: torch.Tensor, precision: torch.dtype | None) -> float:
    """Return the largest magnitude that any module gives for one image; NaN or Inf when one is not finite."""
    peaks, _ = _watched(model, lambda: model(image), image.device.type, precision)
    return float(torch.stack([peak for _, peak in peaks]).amax()) if peaks else 0.0


def _watched(
    model: nn.Module, run: Callable[[], Any], device: str, precision: torch.dtype | None
) -> tuple[Peaks, Any]:
    """Return the largest magnitude of each output, in order, under its module's name, and `run`'s result."""
    peaks: Peaks = []

    def note(name: str) -> object:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            peaks.extend((name, _peak(tensor)) for tensor in tensors(output))

        return hook

    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    handles = [module.register_forward_hook(note(name)) for name, module in leaves]
    try:
        with (
            torch.no_grad(),
            torch.autocast(device, dtype=precision or torch.bfloat16, enabled=bool(precision)),
        ):
            return peaks, run()
    finally:
        for handle in handles:
            handle.remove()


def _summary(peaks: Peaks, loss_finite: bool) -> Forward:
    values = torch.stack([peak for _, peak in peaks]).tolist() if peaks else []
    named = [(name, value) for (name, _), value in zip(peaks, values, strict=True)]
    bad = next((name for name, value in named if not math.isfinite(value)), None)
    largest_in, largest = max(
        ((name, value) for name, value in named if math.isfinite(value)),
        key=lambda x: x[1],
        default=("", 0.0),
    )
    return Forward(bad, largest, largest_in, loss_finite)


def _peak(tensor: torch.Tensor) -> torch.Tensor:
    return (
        tensor.detach().float().abs().amax() if tensor.numel() else tensor.new_zeros((), dtype=torch.float32)
    )


def tensors(output: object) -> Iterator[torch.Tensor]:
    """Yield the floating tensors inside whatever a module returns."""
    if isinstance(output, torch.Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, (list, tuple)):
        for item in output:
            yield from tensors(item)
    elif isinstance(output, dict):
        yield from tensors(list(output.values()))


@dataclass(frozen=True)
class Backward:
    """Gradients of one batch: the modules with non-finite ones, those nearest the loss first.

    `norm` is that of all gradients together (it overflows before they do), `largest` the tensors with the
    largest norms, by name.
    """

    modules: list[dict[str, object]]
    norm: float
    largest: dict[str, float]

    @property
    def finite(self) -> bool:
        return not self.modules and math.isfinite(self.norm)


def backward(
    model: nn.Module, batch: Batch, precision: torch.dtype | None, scale: float = 1.0
) -> Backward | None:
    """Run forward and backward in fp32, or under autocast to `precision` with the loss times `scale`.

    The parameters' own gradients stay as they are. Returns None where memory does not suffice.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    device = batch["img"].device.type
    try:
        with torch.enable_grad():
            with torch.autocast(device, dtype=precision or torch.bfloat16, enabled=bool(precision)):
                loss, _ = model(dict(batch))
            gradients = torch.autograd.grad(loss.sum() * scale, [p for _, p in named], allow_unused=True)
    except RuntimeError as error:
        if "out of memory" in str(error).lower():
            return None
        raise
    present = [(name, g) for (name, _), g in zip(named, gradients, strict=True) if g is not None]
    return _gradient_summary(
        [name for name, _ in present], [gradient.float() / scale for _, gradient in present]
    )


def _gradient_summary(names: list[str], gradients: list[torch.Tensor]) -> Backward:
    finite = torch.stack([torch.isfinite(gradient).all() for gradient in gradients]).tolist()
    norms = torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients])
    bad = [name for name, good in zip(names, finite, strict=True) if not good]
    ranked = sorted(zip(names, norms.tolist(), strict=True), key=lambda pair: -pair[1])
    largest = dict([pair for pair in ranked if pair[0] not in bad][:MOST_LARGEST])
    return Backward(by_module(bad[::-1], names), float(torch.linalg.vector_norm(norms)), largest)


def by_module(bad: list[str], every: list[str]) -> list[dict[str, object]]:
    """Return {"module", "bad", "of"} for each module with bad tensors, in the order of `bad`."""
    total = Counter(name.rpartition(".")[0] for name in every)
    counts = Counter(name.rpartition(".")[0] for name in bad)
    return [{"module": name, "bad": count, "of": total[name]} for name, count in counts.items()]


@dataclass(frozen=True)
class Repeated:
    """The batch's gradients when repeated: in fp32, in the run's precision, and whether that is all of it."""

    full: Backward | None
    low: Backward | None
    whole: bool

    @property
    def worst(self) -> Backward | None:
        return next((one for one in (self.full, self.low) if one and not one.finite), self.full)


def repeated(
    trainer: Trainer, model: nn.Module, batch: Batch, seen: BatchProbe, precision: torch.dtype | None
) -> Repeated:
    """Repeat forward and backward on this batch alone, with this rank's weights and the run's loss scale."""
    full = backward(model, batch, None)
    low = backward(model, batch, precision, seen.scale or 1.0) if precision and full else None
    return Repeated(full, low, trainer.accumulate <= 1 and (low is not None or precision is None))


def live_gradients(model: nn.Module) -> dict[str, object]:
    """Name the tensors whose gradients are bad as the step found them; a sum over ranks and micro-batches."""
    bad = ultralytics_api.non_finite_gradients(model)
    modules = by_module(bad, [name for name, _ in model.named_parameters()])
    return {"bad_gradients": bad[:10], "bad_gradients_count": len(bad), "bad_modules": modules[:MOST_MODULES]}


def described(repeated: Repeated) -> dict[str, object]:
    found = repeated.worst
    if found is None:
        return {"repeat_gradients_finite": None}
    return {
        "repeat_gradients_finite": found.finite,
        "repeat_grad_norm": found.norm,
        "repeat_bad_modules": found.modules[:MOST_MODULES],
        "repeat_largest_gradients": found.largest,
    }
