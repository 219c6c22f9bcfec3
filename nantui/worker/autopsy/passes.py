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

import torch
from torch import nn

from nantui.worker import ultralytics_api
from nantui.worker.incident import Evidence
from nantui.worker.ultralytics_types import Batch

MOST_MODULES = 20
MOST_LARGEST = 5


@dataclass(frozen=True)
class Forward:
    """One forward pass with hooks: the first module with a non-finite output, the largest activation."""

    first_bad: str | None
    largest: float
    largest_in: str
    loss_finite: bool

    def evidence(self) -> Evidence:
        """Return what a pass in fp32 showed."""
        return {
            "fp32_first_bad_module": self.first_bad,
            "fp32_largest_activation": self.largest,
            "fp32_largest_in": self.largest_in,
        }


def forward(model: nn.Module, given: Batch | torch.Tensor, precision: torch.dtype | None) -> Forward:
    """Run the model under hooks, in fp32 or under autocast to `precision`: with its loss on a batch, or on
    images of shape (N, C, H, W) alone, as validation does.
    """
    peaks: list[tuple[str, torch.Tensor]] = []

    def note(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            peaks.extend((name, one.detach().float().abs().amax()) for one in tensors(output) if one.numel())

        return hook

    images = given if isinstance(given, torch.Tensor) else given["img"]
    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    handles = [module.register_forward_hook(note(name)) for name, module in leaves]
    try:
        with torch.no_grad(), in_precision(images, precision):
            output = model(given if given is images else dict(given))
    finally:
        for handle in handles:
            handle.remove()
    values = torch.stack([peak for _, peak in peaks]).tolist() if peaks else []
    named = [(value, name) for (name, _), value in zip(peaks, values, strict=True)]
    bad = next((name for value, name in named if not math.isfinite(value)), None)
    finite = (one for one in named if math.isfinite(one[0]))
    largest, largest_in = max(finite, key=lambda one: one[0], default=(0.0, ""))
    return Forward(bad, largest, largest_in, given is images or bool(torch.isfinite(output[0]).all()))


def in_precision(images: torch.Tensor, precision: torch.dtype | None) -> torch.autocast:
    """Let a pass over images run under autocast, in fp32 where `precision` is None."""
    return torch.autocast(images.device.type, precision or torch.bfloat16, enabled=precision is not None)


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

    def evidence(self) -> Evidence:
        """Return what the repetition showed."""
        return {
            "repeat_gradients_finite": self.finite, "repeat_grad_norm": self.norm,
            "repeat_bad_modules": self.modules[:MOST_MODULES], "repeat_largest_gradients": self.largest,
        }  # fmt: skip


def backward(
    model: nn.Module, batch: Batch, precision: torch.dtype | None, scale: float = 1.0
) -> Backward | None:
    """Run forward and backward in fp32, or under autocast to `precision` with the loss times `scale`.

    The parameters' own gradients stay as they are. Returns None where memory does not suffice.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    try:
        with torch.enable_grad():
            with in_precision(batch["img"], precision):
                loss, _ = model(dict(batch))
            gradients = torch.autograd.grad(loss.sum() * scale, [p for _, p in named], allow_unused=True)
    except RuntimeError as error:
        if "out of memory" in str(error).lower():
            return None
        raise
    present = [(name, given) for (name, _), given in zip(named, gradients, strict=True) if given is not None]
    names, found = [name for name, _ in present], [gradient.float() / scale for _, gradient in present]
    norms = torch.stack([torch.linalg.vector_norm(gradient) for gradient in found])
    bad = ultralytics_api.non_finite(zip(names, found, strict=True))
    ranked = sorted(zip(names, norms.tolist(), strict=True), key=lambda pair: -pair[1])
    largest = dict([pair for pair in ranked if pair[0] not in bad][:MOST_LARGEST])
    return Backward(_by_module(bad[::-1], names), float(torch.linalg.vector_norm(norms)), largest)


def live_gradients(model: nn.Module) -> Evidence:
    """Name the tensors whose gradients are bad as the step found them; a sum over ranks and micro-batches."""
    gradients = ((name, p.grad) for name, p in model.named_parameters() if p.grad is not None)
    bad = ultralytics_api.non_finite(gradients)[::-1]
    modules = _by_module(bad, [name for name, _ in model.named_parameters()])
    return {"bad_gradients": bad[:10], "bad_gradients_count": len(bad), "bad_modules": modules[:MOST_MODULES]}


def _by_module(bad: list[str], every: list[str]) -> list[dict[str, object]]:
    """Return {"module", "bad", "of"} for each module with bad tensors, in the order of `bad`."""
    total = Counter(name.rpartition(".")[0] for name in every)
    counts = Counter(name.rpartition(".")[0] for name in bad)
    return [{"module": name, "bad": count, "of": total[name]} for name, count in counts.items()]
