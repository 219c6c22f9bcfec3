"""Broken copies of real checkpoints: loaded with torch, changed, and saved as Ultralytics saves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

NAN, INF = float("nan"), float("inf")
CONV = "model.4.cv1.conv.weight"
LAYER = "model.4.cv1"


def load(path: Path) -> dict[str, Any]:
    """Load a checkpoint of our own making."""
    return torch.load(path, map_location="cpu", weights_only=False)


def edited(source: Path, target: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """Write a changed copy of `source`; what `change` returns, if anything, is saved instead."""
    checkpoint = load(source)
    replaced = change(checkpoint)
    target.parent.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint if replaced is None else replaced, target)
    return target


def weights(checkpoint: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Return the weights of the EMA, or of the model where that is gone."""
    return (checkpoint["ema"] or checkpoint["model"]).state_dict()


def put(value: float, name: str = CONV, index: int = 5) -> Callable[[dict[str, Any]], None]:
    """Return a change: one value of one tensor."""

    def change(checkpoint: dict[str, Any]) -> None:
        weights(checkpoint)[name].view(-1)[index] = value

    return change


def poison(chosen: Callable[[str], bool], value: float, channel: int | None = None):
    """Return a change: fill chosen float tensors, or one channel of each, then wash as Ultralytics does."""

    def change(checkpoint: dict[str, Any]) -> None:
        for name, tensor in weights(checkpoint).items():
            if tensor.is_floating_point() and chosen(name):
                (tensor if channel is None else tensor[channel]).fill_(value)
        wash(checkpoint)

    return change


def wash(checkpoint: dict[str, Any]) -> None:
    """NaN to 0, infinities to the limit: `save_model` in Ultralytics' engine/trainer.py."""
    for tensor in weights(checkpoint).values():
        if tensor.is_floating_point():
            torch.nan_to_num_(tensor)


def strip(checkpoint: dict[str, Any]) -> None:
    """What is left of a checkpoint after training: `strip_optimizer` in utils/torch_utils.py."""
    checkpoint["model"] = checkpoint["ema"] or checkpoint["model"]
    for key in ("optimizer", "best_fitness", "stopper", "ema", "updates", "scaler"):
        checkpoint[key] = None
    checkpoint["epoch"] = -1


def both(*changes: Callable[[dict[str, Any]], Any]) -> Callable[[dict[str, Any]], Any]:
    """Return a change that does several, one after the other."""

    def change(checkpoint: dict[str, Any]) -> Any:
        result = None
        for one in changes:
            result = one(checkpoint)
        return result

    return change


def all_momentum(checkpoint):
    """A change: every momentum buffer of SGD becomes NaN."""
    for state in checkpoint["optimizer"]["state"].values():
        state["momentum_buffer"].fill_(NAN)


def kinds(verdict: Any) -> set[str]:
    """Return the kinds of a verdict's findings."""
    return {finding.kind for finding in verdict.findings}


def found(verdict: Any, kind: str) -> list[Any]:
    """Return a verdict's findings of one kind."""
    return [finding for finding in verdict.findings if finding.kind == kind]
