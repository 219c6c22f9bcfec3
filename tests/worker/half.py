"""A stand-in for validation in half precision on a CPU, where Ultralytics never does that.

`trainer.amp` is on, as on a GPU, and training itself is in fp32 all the same. While a validator works in
half precision, what any module gives beyond a limit becomes Inf.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import torch

LARGEST = 65504.0


@dataclass
class Passes:
    """The passes of all validators: (epoch from 1 or None for a checkpoint, "fp16" or "fp32")."""

    seen: list[tuple[int | None, str]] = field(default_factory=list)
    probes: list[bool] = field(default_factory=list)


@contextlib.contextmanager
def half_precision(
    overflows: Collection[int] = (), at_the_end: bool = False, in_place: bool = False
) -> Iterator[Passes]:
    """Let trainings here validate in half precision; it overflows in those epochs, from 1, `at_the_end` in
    the final evaluation too. `in_place` rounds the averaged weights, as Ultralytics up to 8.4.0 does."""
    from ultralytics.engine import trainer as trainer_module
    from ultralytics.engine.validator import BaseValidator

    from nantui.worker import validation_precision as theirs

    passes, stock = Passes(), BaseValidator.__call__
    now = {"epoch": 0}

    def limit(epoch: int | None) -> float:
        return 0.01 if (at_the_end if epoch is None else epoch in overflows) else LARGEST

    def validate(validator: Any, trainer: Any = None, model: Any = None, **options: Any) -> Any:
        epoch = trainer.epoch + 1 if trainer is not None else None
        half = bool(trainer.amp) if trainer is not None else theirs.half_argument(validator) is not None
        passes.seen.append((epoch, "fp16" if half else "fp32"))
        now["epoch"] = epoch or 0
        if half and in_place and trainer is not None:
            with torch.inference_mode():
                trainer.ema.ema.half().float()
        with _limited(limit(epoch)) if half else contextlib.nullcontext():
            results = stock(validator, trainer, model, **options)
        name, on = ("quantize", 16) if hasattr(validator.args, "quantize") else ("half", True)
        setattr(validator.args, name, on if half else None)  # a CPU has written that it did not
        return results

    def finite(trainer: Any, model: Any, batch: Any, half: bool) -> bool:
        with _limited(limit(trainer.epoch + 1)) if half else contextlib.nullcontext():
            fine = losses_are_finite(trainer, model, batch, False)
        if half:
            passes.probes.append(fine)
        return fine

    batch_of, losses_are_finite = theirs.batch_of, theirs.losses_are_finite
    with contextlib.ExitStack() as stack:
        for owner, name, value in (
            (trainer_module, "check_amp", lambda model: True),
            (trainer_module, "autocast", lambda *args, **options: contextlib.nullcontext()),
            (BaseValidator, "__call__", validate),
            (theirs, "validates_in_half", lambda trainer: bool(trainer.amp)),
            (theirs, "halves_in_place", lambda: in_place),
            (theirs, "batch_of", lambda trainer, indices, half: batch_of(trainer, indices, False)),
            (theirs, "losses_are_finite", finite),
        ):
            stack.enter_context(mock.patch.object(owner, name, value))
        yield passes


@contextlib.contextmanager
def _limited(largest: float) -> Iterator[None]:
    """Let every module's output be Inf beyond `largest`."""

    def limited(output: Any) -> Any:
        if isinstance(output, torch.Tensor) and output.is_floating_point():
            return output.masked_fill(output.abs() > largest, float("inf"))
        return output

    def hook(module: Any, inputs: Any, output: Any) -> Any:
        return None if list(module.children()) else limited(output)

    handle = torch.nn.modules.module.register_module_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextlib.contextmanager
def events(names: Collection[str]) -> Iterator[list[str]]:
    """Note those callback events of Ultralytics in every trainer and validator made meanwhile."""
    from ultralytics.utils.callbacks.base import default_callbacks

    seen: list[str] = []

    def noting(name: str) -> Callable[[Any], None]:
        return lambda _: seen.append(name)

    added = {name: noting(name) for name in names}
    for name, callback in added.items():
        default_callbacks[name].append(callback)
    try:
        yield seen
    finally:
        for name, callback in added.items():
            default_callbacks[name].remove(callback)
