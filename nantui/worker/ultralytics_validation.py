"""The only place that leans on the insides of Ultralytics' validators, above all on their precision.

As with `ultralytics_api`, a new release is checked here and in tests/worker/test_ultralytics_api.py. Read in
ultralytics 8.2.103, 8.3.200, 8.4.0 and 8.4.190.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import logging
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from nantui.worker.ultralytics_api import named_statistics, replaced

HALF_OVERFLOWS = 65520.0  # from here on fp16 rounds to Inf


def validates_in_half(trainer: Any) -> bool:
    """Tell whether the validation of an epoch runs in fp16: with AMP on a GPU, also where it trains in bf16.

    engine/validator.py, `__call__`: `16 if (self.device.type != "cpu" and trainer.amp) else None`.
    """
    return trainer.device.type != "cpu" and bool(trainer.amp)


def in_full_precision(trainer: Any) -> contextlib.AbstractContextManager[None]:
    """Let an epoch's validation run in fp32: since 8.2.103 it looks at `trainer.amp` alone."""
    return replaced(trainer, "amp", False)


def half_argument(validator: Any) -> str | None:
    """Return the argument by which a validator runs a checkpoint in fp16, None where it does not.

    `quantize` is 16, up to 8.4.0 `half` is true; each pass writes into it what was really done.
    """
    args = validator.args
    return next(
        (name for name, on in (("quantize", 16), ("half", True)) if getattr(args, name, None) == on), None
    )


@contextlib.contextmanager
def arguments_of_precision(validator: Any, half: bool) -> Iterator[None]:
    """Let `preprocess`, and a pass over a checkpoint, work in fp16 or in fp32."""
    name = "quantize" if hasattr(validator.args, "quantize") else "half"
    with replaced(validator.args, name, {"quantize": (None, 16), "half": (False, True)}[name][half]):
        yield


@functools.lru_cache(maxsize=1)
def halves_in_place() -> bool:
    """Tell whether a pass in half precision rounds the averaged weights themselves.

    8.2.103 to 8.4.0: `model.half()` before it and `model.float()` after it; later they stay as they are
    and the pass runs under autocast.
    """
    from ultralytics.engine.validator import BaseValidator

    try:
        return "model.half()" in inspect.getsource(BaseValidator)
    except OSError:
        return True


def every_rank_validates(validator: Any) -> bool:
    """Tell whether all ranks validate, with collectives: since 8.4, which gathers their statistics."""
    return hasattr(validator, "gather_stats")


@contextlib.contextmanager
def dice_kept() -> Iterator[None]:
    """Put every random state of this process back: loading validation images draws from Python's own.

    Without workers the next epoch's augmentation draws from the same; measured on the CPU.
    """
    own, numpys = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            random.setstate(own)
            np.random.set_state(numpys)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Let a pass print nothing but warnings, and show no progress bar."""
    from ultralytics.engine import validator
    from ultralytics.utils import LOGGER

    level = LOGGER.level
    LOGGER.setLevel(max(level, logging.WARNING))
    try:
        with replaced(validator, "TQDM", lambda iterable, *args, **options: iterable):
            yield
    finally:
        LOGGER.setLevel(level)


def batch_of(trainer: Any, indices: range, half: bool) -> dict[str, Any]:
    """Return those samples of the validation set as one batch, as its validator prepares them.

    They are taken from the data set itself: the loader's workers run ahead and must not lose a batch.
    """
    loader, validator = trainer.test_loader, trainer.validator
    with arguments_of_precision(validator, half):
        prepared: dict[str, Any] = validator.preprocess(
            loader.collate_fn([loader.dataset[index] for index in indices])
        )
    return prepared


def losses_are_finite(trainer: Any, model: nn.Module, batch: dict[str, Any], half: bool) -> bool:
    """Tell whether a pass over a batch of `batch_of` gives finite losses. The model is left as it is."""
    if half and halves_in_place():
        model = copy.deepcopy(model).half()
    autocast = half and not halves_in_place()
    with (
        torch.inference_mode(),
        torch.autocast(
            trainer.device.type, dtype=torch.float16 if half else torch.bfloat16, enabled=autocast
        ),
    ):
        items = model.loss(batch, model(batch["img"]))[1]
    values = items.values() if isinstance(items, dict) else [items]
    return all(bool(torch.isfinite(value).all()) for value in values)


def file_of(dataset: Any, index: int, batch: dict[str, Any]) -> str:
    """Return the file of a sample that is alone in `batch`; classification keeps it in `samples`."""
    named = batch.get("im_file")
    if named:
        return str(named[0])
    samples = getattr(dataset, "samples", None)
    return str(samples[index][0]) if samples else f"sample {index}"


def beyond_half(model: nn.Module) -> list[str]:
    """Return the names of parameters and normalization statistics that a checkpoint, in fp16, cannot hold.

    `save_model` writes `.half()` of the averaged weights; since 8.4 what became Inf is clamped to ±65504.
    """
    named = [*model.named_parameters(), *named_statistics(model)]
    floats = [
        (name, tensor.detach()) for name, tensor in named if tensor.is_floating_point() and tensor.numel()
    ]
    if not floats:
        return []
    peaks = torch.stack([torch.linalg.vector_norm(t.float(), ord=float("inf")) for _, t in floats]).tolist()
    return [name for (name, _), peak in zip(floats, peaks, strict=True) if peak >= HALF_OVERFLOWS]
