"""The precision of the validation: where fp16 overflows, the epoch is validated once more in fp32.

Ultralytics validates in half precision wherever AMP is on. A young network whose BatchNorm statistics lag
behind overflows it, though its weights are finite and it goes on to become a good model: results.csv
shows NaN and mAP 0, and fitness, best.pt and patience are taken from that. The result in fp32 takes its
place here, before anybody has seen the other. The following epochs are validated in fp32 at once, until
half precision gives finite losses on a first batch again; so every epoch that Ultralytics could validate
in half precision is validated as it would.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from nantui.worker import distributed, ultralytics_api
from nantui.worker import ultralytics_validation as theirs
from nantui.worker.autopsy.passes import tensors
from nantui.worker.session import Session
from nantui.worker.ultralytics_types import Trainer, Validator

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
        if not theirs.validates_in_half(self.trainer):
            return _comparable(validate())
        if self._overflows and not self._half_would_do():
            return self._in_full(validate)
        with self._finite_weights_kept():
            results = validate()
        self._overflows = self._agreed(self._has_overflowed(results))
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
        if not self._agreed(bad and theirs.half_argument(validator) is not None):
            return results
        with self._quietly(), theirs.arguments_of_precision(validator, half=False):
            results = validate()
        text = "the final validation overflowed half precision (fp16): its figures are of fp32"
        self._say(text, "fp32", None)
        return results

    def _in_full(self, validate: Callable[[], Results]) -> Results:
        """Validate in fp32 and say so once; what is not finite in fp32 either is an incident instead."""
        with theirs.in_full_precision(self.trainer):
            results = validate()
        self.repeated = True
        if not self._announced and not non_finite(results):
            self._announced = True
            epoch = self.trainer.epoch + 1
            text = f"epoch {epoch}: the validation overflowed half precision (fp16); validated again in fp32"
            self._say(f"{text}, as the next epochs are until fp16 is enough", "fp32", epoch)
        return _comparable(results)

    def _has_overflowed(self, results: Results) -> bool:
        """Tell whether half precision is to blame: results that are not finite, of weights that are."""
        return bool(non_finite(results)) and not ultralytics_api.non_finite_state(self.trainer.ema.ema)

    def _half_would_do(self) -> bool:
        """Tell whether half precision gives finite losses on the first batch of the validation set again."""
        return self._agreed(self.session.first and self._finite_in_half())

    def _finite_in_half(self) -> bool:
        loader = self.trainer.test_loader
        first = range(min(len(loader.dataset), loader.batch_size or 1))
        with torch.inference_mode(), theirs.dice_kept():
            batch = theirs.batch_of(self.trainer, first, half=True)
            return theirs.losses_are_finite(self.trainer, self.trainer.ema.ema, batch, half=True)

    def _agreed(self, mine: bool) -> bool:
        """Tell whether any rank says so, where all of them validate; else whether it is so here."""
        if theirs.every_rank_validates(self.trainer.validator):
            return distributed.any_of_us(mine, self.trainer.device)
        return mine

    @contextlib.contextmanager
    def _finite_weights_kept(self) -> Iterator[None]:
        """Undo what half precision in place does to values beyond its range; stock's rounding stays."""
        if not theirs.halves_in_place():
            yield
            return
        model = self.trainer.ema.ema
        before = {
            name: value.clone() for name, value in model.state_dict().items() if value.is_floating_point()
        }
        try:
            yield
        finally:
            with torch.inference_mode():  # what a pass has left in the buffers can be written to only here
                for name, value in model.state_dict().items():
                    if (
                        name in before
                        and not torch.isfinite(value).all()
                        and torch.isfinite(before[name]).all()
                    ):
                        value.copy_(before[name])

    @contextlib.contextmanager
    def _quietly(self) -> Iterator[None]:
        """The pass before has called back, printed and plotted already."""
        validator = self.trainer.validator
        with (
            theirs.silent(),
            theirs.dice_kept(),
            ultralytics_api.replaced(validator.args, "plots", False),
            ultralytics_api.replaced(validator, "quiet", True),
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
