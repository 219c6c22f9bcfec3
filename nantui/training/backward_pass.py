"""Which gradients are bad: as the step found them, and when forward and backward are repeated on the batch.

A gradient that is fine when repeated was not made by the data or the weights. In the step it is a sum over
ranks and micro-batches; the repetition is this rank's batch alone.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from nantui.training import touchpoints
from nantui.training.look import Look

MOST_MODULES = 20
MOST_LARGEST = 5


@dataclass(frozen=True)
class Backward:
    """Gradients of one batch: the modules with non-finite ones, those nearest the loss first.

    `norm` is that of all gradients together (it overflows before they do), `largest` the tensors with the
    largest norms, by name.
    """

    modules: list[dict[str, Any]]
    norm: float
    largest: dict[str, float]

    @property
    def finite(self) -> bool:
        return not self.modules and math.isfinite(self.norm)


def backward(
    model: nn.Module, batch: dict[str, Any], precision: torch.dtype | None, scale: float = 1.0
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
    return _summary([name for name, _ in present], [gradient.float() / scale for _, gradient in present])


def _summary(names: list[str], gradients: list[torch.Tensor]) -> Backward:
    finite = torch.stack([torch.isfinite(gradient).all() for gradient in gradients]).tolist()
    norms = torch.stack([torch.linalg.vector_norm(gradient) for gradient in gradients])
    bad = [name for name, good in zip(names, finite, strict=True) if not good]
    ranked = sorted(zip(names, norms.tolist(), strict=True), key=lambda pair: -pair[1])
    largest = dict([pair for pair in ranked if pair[0] not in bad][:MOST_LARGEST])
    return Backward(by_module(bad[::-1], names), float(torch.linalg.vector_norm(norms)), largest)


def by_module(bad: list[str], every: list[str]) -> list[dict[str, Any]]:
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
    trainer: Any, model: nn.Module, batch: dict[str, Any], seen: Look, precision: torch.dtype | None
) -> Repeated:
    """Repeat forward and backward on this batch alone, with this rank's weights and the run's loss scale."""
    full = backward(model, batch, None)
    low = backward(model, batch, precision, seen.scale or 1.0) if precision and full else None
    return Repeated(full, low, trainer.accumulate <= 1 and (low is not None or precision is None))


def live_gradients(model: nn.Module) -> dict[str, Any]:
    """Name the tensors whose gradients are bad as the step found them; a sum over ranks and micro-batches."""
    bad = touchpoints.non_finite_gradients(model)
    modules = by_module(bad, [name for name, _ in model.named_parameters()])
    return {"bad_gradients": bad[:10], "bad_gradients_count": len(bad), "bad_modules": modules[:MOST_MODULES]}


def described(repeated: Repeated) -> dict[str, Any]:
    found = repeated.worst
    if found is None:
        return {"repeat_gradients_finite": None}
    return {
        "repeat_gradients_finite": found.finite,
        "repeat_grad_norm": found.norm,
        "repeat_bad_modules": found.modules[:MOST_MODULES],
        "repeat_largest_gradients": found.largest,
    }
