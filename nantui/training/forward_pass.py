"""A forward pass under hooks: which module gives the first non-finite output, how large outputs get."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass(frozen=True)
class Forward:
    """One forward pass with hooks: the first module with a non-finite output, the largest activation."""

    first_bad: str | None
    largest: float
    largest_in: str
    loss_finite: bool


def forward(model: nn.Module, batch: dict[str, Any], precision: torch.dtype | None) -> Forward:
    """Run the model and its loss on a batch under hooks, in fp32 or under autocast to `precision`."""
    return _watched(model, lambda: model(dict(batch))[0], batch["img"].device.type, precision)


def prediction(model: nn.Module, images: torch.Tensor, precision: torch.dtype | None) -> Forward:
    """Run the model alone on images of shape (N, C, H, W), as validation does; there is no loss."""

    def predict() -> torch.Tensor:
        model(images)
        return images.new_zeros(())

    return _watched(model, predict, images.device.type, precision)


def _watched(
    model: nn.Module, run: Callable[[], torch.Tensor], device: str, precision: torch.dtype | None
) -> Forward:
    peaks: list[tuple[str, torch.Tensor]] = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            peaks.extend((name, _peak(tensor)) for tensor in tensors(output))

        return hook

    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    handles = [module.register_forward_hook(note(name)) for name, module in leaves]
    try:
        with (
            torch.no_grad(),
            torch.autocast(device, dtype=precision or torch.bfloat16, enabled=bool(precision)),
        ):
            loss = run()
    finally:
        for handle in handles:
            handle.remove()
    return _summary(peaks, loss)


def _summary(peaks: list[tuple[str, torch.Tensor]], loss: torch.Tensor) -> Forward:
    values = torch.stack([peak for _, peak in peaks]).tolist() if peaks else []
    named = [(name, value) for (name, _), value in zip(peaks, values, strict=True)]
    bad = next((name for name, value in named if not math.isfinite(value)), None)
    largest_in, largest = max(
        ((name, value) for name, value in named if math.isfinite(value)),
        key=lambda x: x[1],
        default=("", 0.0),
    )
    return Forward(bad, largest, largest_in, bool(torch.isfinite(loss).all()))


def _peak(tensor: torch.Tensor) -> torch.Tensor:
    return (
        tensor.detach().float().abs().amax() if tensor.numel() else tensor.new_zeros((), dtype=torch.float32)
    )


def tensors(output: Any) -> Iterator[torch.Tensor]:
    """Yield the floating tensors inside whatever a module returns."""
    if isinstance(output, torch.Tensor):
        if output.is_floating_point():
            yield output
    elif isinstance(output, (list, tuple)):
        for item in output:
            yield from tensors(item)
    elif isinstance(output, dict):
        yield from tensors(list(output.values()))


def largest_activation(model: nn.Module, image: torch.Tensor, precision: torch.dtype | None) -> float:
    """Return the largest magnitude that any module gives for one image; NaN or Inf when one is not finite."""
    peaks: list[torch.Tensor] = []
    hooks = [
        module.register_forward_hook(lambda m, i, output: peaks.extend(_peak(t) for t in tensors(output)))
        for module in model.modules()
        if not list(module.children())
    ]
    try:
        with (
            torch.no_grad(),
            torch.autocast(image.device.type, dtype=precision or torch.bfloat16, enabled=bool(precision)),
        ):
            model(image)
    finally:
        for hook in hooks:
            hook.remove()
    return float(torch.stack(peaks).amax()) if peaks else 0.0
