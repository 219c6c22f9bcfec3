"""The precision of the validation: where fp16 overflows, the epoch is validated once more in fp32.

The result in fp32 takes its place here, before anybody has seen the other (docs/decisions.md says why). Every
epoch that Ultralytics could validate in half precision is validated as it would.

The functions below lean on the insides of Ultralytics' validators. As with `ultralytics_api`, a new release
is checked here and in tests/worker/test_ultralytics_api.py. Read in 8.2.103, 8.3.200, 8.4.0 and 8.4.190.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import logging
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import nn

from nantui.worker import distributed, ultralytics_api
from nantui.worker.autopsy.passes import in_precision, tensors
from nantui.worker.points.training_state import dice_kept
from nantui.worker.session import Session
from nantui.worker.ultralytics_api import replaced
from nantui.worker.ultralytics_types import Batch, Trainer, Validator

Results: TypeAlias = dict[str, object] | None
"""Metrics and losses; None on all ranks but the first."""
if TYPE_CHECKING:
    _Stock = Validator
else:
    _Stock = object  # `stand_in` puts the validator's own class behind the mixin


class Validation:
    """Stands around the validator of one trainer, on one rank."""

    def __init__(self, trainer: Trainer, session: Session) -> None:
        self.trainer, self.session = trainer, session
        self.repeated = False
        """Whether the last epoch was validated in fp32 because half precision overflows."""
        self._overflows = self._announced = False

    def stand_in(self) -> None:
        """Let the trainer's validator go through here. One without a class of its own is left as it is."""
        validator = self.trainer.validator
        if validator is None or isinstance(validator, Watched) or not self.session.options.protects:
            return
        cls = type(validator)
        with contextlib.suppress(TypeError):  # a function, or a class that cannot be derived from
            validator.__class__ = type(f"Watched{cls.__name__}", (Watched, cls), {"validation": self})

    def of_an_epoch(self, validate: Callable[[], Results]) -> Results:
        """Validate the averaged weights; the result is of fp32 where half precision overflows."""
        self.repeated = False
        if not validates_in_half(self.trainer):
            return _comparable(validate())
        if self._overflows and not self._half_would_do():
            return self._in_full(validate)
        with self._finite_weights_kept():
            results = validate()
        # Half precision is to blame for results that are not finite, of weights that are.
        bad = non_finite(results) and not ultralytics_api.non_finite_state(self.trainer.ema.ema)
        self._overflows = self._agreed(bool(bad))
        if self._overflows:
            with self._quietly():
                return self._in_full(validate)
        if self._announced:
            self._announced = False
            epoch = self.trainer.epoch + 1
            self._say(f"epoch {epoch}: half precision (fp16) is enough to validate in again", "fp16", epoch)
        return _comparable(results)

    def of_a_file(self, validator: Watched, validate: Callable[[], Results]) -> Results:
        """Validate a checkpoint, as the final evaluation does: without losses, so that predictions tell."""
        validator.seen_bad = None
        results = validate()
        seen, validator.seen_bad = validator.seen_bad, None
        bad = (seen is not None and bool(seen)) or bool(non_finite(results))
        if not self._agreed(bad and half_argument(validator) is not None):
            return results
        with self._quietly(), arguments_of_precision(validator, half=False):
            results = validate()
        text = "the final validation overflowed half precision (fp16): its figures are of fp32"
        self._say(text, "fp32", None)
        return results

    def _in_full(self, validate: Callable[[], Results]) -> Results:
        """Validate in fp32 and say so once; what is not finite in fp32 either is an incident instead."""
        with replaced(self.trainer, "amp", False):
            results = validate()
        self.repeated = True
        if not self._announced and not non_finite(results):
            self._announced = True
            epoch = self.trainer.epoch + 1
            text = f"epoch {epoch}: the validation overflowed half precision (fp16); validated again in fp32"
            self._say(f"{text}, as the next epochs are until fp16 is enough", "fp32", epoch)
        return _comparable(results)

    def _half_would_do(self) -> bool:
        loader, finite = self.trainer.test_loader, False
        if self.session.first:
            first = range(min(len(loader.dataset), loader.batch_size or 1))
            with torch.inference_mode(), dice_kept():
                batch = batch_of(self.trainer, first, half=True)
                finite = losses_are_finite(self.trainer, self.trainer.ema.ema, batch, half=True)
        return self._agreed(finite)

    def _agreed(self, mine: bool) -> bool:
        """Tell whether any rank says so; before 8.4, where the first alone validates, whether it does."""
        every_rank_validates = hasattr(self.trainer.validator, "gather_stats")
        return distributed.any_of_us(mine, self.trainer.device) if every_rank_validates else mine

    @contextlib.contextmanager
    def _finite_weights_kept(self) -> Iterator[None]:
        """Undo what half precision in place does to values beyond its range; stock's rounding stays."""
        live = self.trainer.ema.ema.state_dict() if halves_in_place() else {}
        before = {name: value.clone() for name, value in live.items() if value.is_floating_point()}
        try:
            yield
        finally:
            live = self.trainer.ema.ema.state_dict()
            with torch.inference_mode():  # what a pass has left in the buffers can be written to only here
                for name, value in before.items():
                    if torch.isfinite(value).all() and not torch.isfinite(live[name]).all():
                        live[name].copy_(value)

    @contextlib.contextmanager
    def _quietly(self) -> Iterator[None]:
        """The pass before has called back, printed and plotted already."""
        validator = self.trainer.validator
        with (
            silent(),
            dice_kept(),
            replaced(validator.args, "plots", False),
            replaced(validator, "quiet", True),
        ):
            yield

    def _say(self, text: str, precision: str, epoch: int | None) -> None:
        if self.session.first:
            self.session.recorder.event("validation_precision", precision=precision, epoch=epoch, text=text)


class Watched(_Stock):
    """Mixed in before a validator's class; `self` is also an Ultralytics `BaseValidator`."""

    validation: Validation
    quiet: bool = False
    seen_bad: torch.Tensor | None = None
    training: bool

    def __call__(self, *args: object, **options: object) -> Results:
        stock = functools.partial(super().__call__, *args, **options)  # type: ignore[misc]
        of_an_epoch = (args[0] if args else options.get("trainer")) is not None
        return self.validation.of_an_epoch(stock) if of_an_epoch else self.validation.of_a_file(self, stock)

    def run_callbacks(self, event: str) -> None:
        if not self.quiet:
            super().run_callbacks(event)  # type: ignore[misc]

    def postprocess(self, preds: object, *args: object, **options: object) -> object:
        """Look at a checkpoint's predictions on their way; nothing waits for the device here."""
        if not self.training and not self.quiet:
            for one in tensors(preds):
                bad = ~torch.isfinite(one).all()
                self.seen_bad = bad if self.seen_bad is None else self.seen_bad | bad
        return super().postprocess(preds, *args, **options)  # type: ignore[misc]


def non_finite(results: Results) -> list[str]:
    """Return the names of results that are not finite, in order."""
    return sorted(name for name, value in (results or {}).items() if not _is_finite(value))


def _is_finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except TypeError:  # somebody's own validator may return more than numbers
        return True


def _comparable(results: Results) -> Results:
    """A fitness that is not finite must not be the best one for good: it compares false with any other."""
    if results and not _is_finite(results.get("fitness")):
        return {**results, "fitness": -math.inf}
    return results


def validates_in_half(trainer: Trainer) -> bool:
    """Tell whether the validation of an epoch runs in fp16: with AMP on a GPU, also where it trains in bf16.

    engine/validator.py, `__call__`: `16 if (self.device.type != "cpu" and trainer.amp) else None`; since
    8.2.103 it looks at nothing else.
    """
    return trainer.device.type != "cpu" and bool(trainer.amp)


def half_argument(validator: Validator) -> str | None:
    """Return the argument by which a validator runs a checkpoint in fp16, None where it does not.

    `quantize` is 16, up to 8.4.0 `half` is true; each pass writes into it what was really done.
    """
    on = {"quantize": 16, "half": True}
    return next((name for name in on if getattr(validator.args, name, None) == on[name]), None)


@contextlib.contextmanager
def arguments_of_precision(validator: Validator, half: bool) -> Iterator[None]:
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


def batch_of(trainer: Trainer, indices: range, half: bool) -> Batch:
    """Return those samples of the validation set as one batch, as its validator prepares them.

    They are taken from the data set itself: the loader's workers run ahead and must not lose a batch.
    """
    loader, validator = trainer.test_loader, trainer.validator
    with arguments_of_precision(validator, half):
        return validator.preprocess(loader.collate_fn([loader.dataset[index] for index in indices]))


def losses_are_finite(trainer: Trainer, model: nn.Module, batch: Batch, half: bool) -> bool:
    """Tell whether a pass over a batch of `batch_of` gives finite losses. The model is left as it is."""
    if half and halves_in_place():
        model = copy.deepcopy(model).half()
    autocast = torch.float16 if half and not halves_in_place() else None
    with torch.inference_mode(), in_precision(batch["img"], autocast):
        items = model.loss(batch, model(batch["img"]))[1]
    values = items.values() if isinstance(items, dict) else [items]
    return all(bool(torch.isfinite(value).all()) for value in values)
