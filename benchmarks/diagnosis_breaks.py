"""Ways to make numbers go wrong inside a training: changed losses, large activations, spoilt checkpoints."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.diagnosis_cases import STEPS


def loss_patch(change: Callable[[Any, int], Any]) -> Callable[[Any], None]:
    """Return a callback that lets `change(loss, step)` alter the loss of every forward in training mode."""

    def install(trainer: Any) -> None:
        model = trainer.model
        own = model.loss
        session = trainer.session

        def loss(batch: Any, preds: Any = None) -> Any:
            value, items = own(batch, preds)
            if not model.training:
                return value, items
            place = session.progress
            step = ((place.epoch or 1) - 1) * STEPS + (place.step or 1)
            return change(value, step), items

        model.loss = loss

    return install


def growing(factor: float, first: int) -> Callable[[Any, int], Any]:
    return lambda loss, step: loss * (factor ** max(step - first, 0))


def log_of_zero(first: int) -> Callable[[Any, int], Any]:
    return lambda loss, step: loss + (loss * 0).log() if step >= first else loss


def root_of_zero_from(first: int) -> Callable[[Any, int], Any]:
    return lambda loss, step: loss + (loss * 0).abs().sqrt() if step >= first else loss


def root_of_zero_in(batch: int) -> Callable[[Any, int], Any]:
    return lambda loss, step: loss + (loss * 0).abs().sqrt() if (step - 1) % STEPS + 1 == batch else loss


def zero_by_zero_in(batch: int) -> Callable[[Any, int], Any]:
    return lambda loss, step: loss + (loss * 0) / (loss * 0) if (step - 1) % STEPS + 1 == batch else loss


def enlarge(factor: float) -> Callable[[Any], None]:
    """Return a callback that enlarges a BatchNorm's weight and the convolution after it."""

    def install(trainer: Any) -> None:
        import torch

        with torch.no_grad():
            trainer.model.model[0].bn.weight.fill_(factor)
            trainer.model.model[1].conv.weight.mul_(factor / 3)

    return install


def later_on(change: Callable[[Any], None], first: int) -> Callable[[Any], None]:
    def install(trainer: Any) -> None:
        state = {"step": 0}

        def count(trainer: Any) -> None:
            state["step"] += 1
            if state["step"] == first:
                change(trainer)

        trainer.add_callback("on_train_batch_start", count)

    return install


def poison(seed: int, what: str) -> Callable[[Path], None]:
    """Return a function that makes numbers of a checkpoint NaN."""

    def spoil(path: Path) -> None:
        import torch

        dice = random.Random(seed)
        checkpoint = torch.load(path, weights_only=False, map_location="cpu")
        if what == "optimizer":
            buffers = [state["momentum_buffer"] for state in checkpoint["optimizer"]["state"].values()]
            tensors = dice.sample(buffers, 3)
        elif what == "moments":
            moments = [state["exp_avg"] for state in checkpoint["optimizer"]["state"].values()]
            tensors = dice.sample(moments, 3)
        elif what == "weights":
            tensors = dice.sample(list(checkpoint["ema"].parameters()), 2)
        else:
            tensors = [b for n, b in checkpoint["ema"].named_buffers() if n.endswith("running_var")]
        for tensor in tensors:
            tensor.data.view(-1)[dice.randrange(tensor.numel())] = float("nan")
        torch.save(checkpoint, path)

    return spoil
