"""What breaks the trainings: each cause sets in after the same clean beginning, and comes back if it can.

A cause is settings that somebody resumes with, a fault that happens once, or something that stays: an image,
a loss, a layer. What stays is there again after every recovery, from the same epoch on.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.diagnosis_breaks import loss_patch
from benchmarks.remedies.data import IMAGES, STEPS, image
from nantui.worker.autopsy.sample_files import KEY

EPOCHS, CLEAN = 18, 7
"""Epochs of every training, and of its beginning that all of a seed share."""
SINCE = CLEAN + 2
"""The epoch, from 1, from which on what stays is there."""
CPU, GPU = "cpu", "gpu"
COMMON: dict[str, Any] = {
    "epochs": EPOCHS, "imgsz": 64, "batch": 4, "nbs": 4, "plots": False, "workers": 0, "mosaic": 0.0,
    "warmup_epochs": 1.0, "close_mosaic": 0, "scale": 0.2, "hsv_s": 0.9, "hsv_v": 0.9, "save_period": 1,
    "patience": 0, "verbose": False, "amp": False, "device": "cpu", "optimizer": "SGD", "lr0": 0.01,
}  # fmt: skip
ADAMW = {"optimizer": "AdamW", "lr0": 0.002}
OURS = {"step_points": 0.3}
"""A point every 0.3 s stands for one every 10 s or more in a training that lasts hours."""
BASES: Mapping[str, tuple[str, dict[str, Any]]] = {
    "sgd": (CPU, COMMON),
    "adamw": (CPU, {**COMMON, **ADAMW}),
    "fp16": (GPU, {**COMMON, "device": "0", "amp": True}),
}
Install = Callable[[Any, random.Random, Path], None]


@dataclass(frozen=True)
class Cause:
    """One cause: `settings` that are resumed with, a `fault` that happens once, or what `install` sets up in
    the trainer from a seed's dice and the data set's data.yaml.
    """

    name: str
    words: str
    base: str = "sgd"
    settings: Mapping[str, Any] = field(default_factory=dict)
    fault: str = ""
    install: Install | None = None

    @property
    def part(self) -> str:
        """Where it is trained."""
        return BASES[self.base][0]

    def faults(self, seed: int) -> list[dict[str, Any]]:
        """Return the fault, in the attempt that breaks."""
        dice = random.Random(seed)
        place = {"epoch": SINCE, "batch": dice.randint(2, STEPS - 2), "attempt": 2}
        return [{"fault": self.fault, **place}] if self.fault else []


def spoilt_image(spoil: Callable[[Any, int], None]) -> Install:
    """Return what spoils one image of the data set in every batch that it is in."""

    def install(trainer: Any, dice: random.Random, data: Path) -> None:
        own, bad = trainer.preprocess_batch, image(data, dice.randrange(IMAGES))

        def preprocess(batch: dict[str, Any]) -> dict[str, Any]:
            # once mosaic is closed (nan-safe and plan B do so at once) each sample has only its one name
            named = batch.get(KEY) or [(str(file),) for file in batch["im_file"]]
            hit = [index for index, files in enumerate(named) if bad in files]
            batch = own(batch)
            if trainer.epoch + 1 >= SINCE:
                for index in hit:
                    spoil(batch, index)
            return batch

        trainer.preprocess_batch = preprocess

    return install


def nan_pixel(batch: dict[str, Any], index: int) -> None:
    batch["img"][index, 0, 0, 0] = float("nan")


def huge_boxes(batch: dict[str, Any], index: int) -> None:
    """Let the image's boxes begin at its left edge and end nowhere."""
    mine = batch["batch_idx"] == index
    batch["bboxes"][mine, 0], batch["bboxes"][mine, 2] = 0.5e20, 1e20


def stretched(trainer: Any, dice: random.Random, data: Path) -> None:
    """Stretch each image's contrast, as a user's own transform may: of an image that a strong hsv_v has made
    all dark nothing is left to divide by.
    """
    own = trainer.preprocess_batch

    def preprocess(batch: dict[str, Any]) -> dict[str, Any]:
        batch = own(batch)
        if trainer.epoch + 1 >= SINCE:
            images = batch["img"]
            low, high = images.amin((1, 2, 3), True), images.amax((1, 2, 3), True)
            span = ((high - low) * DARK).floor() / DARK
            batch["img"] = images + 0 / span
        return batch

    trainer.preprocess_batch = preprocess


DARK = 5
"""An image whose brightest and darkest pixel lie less than a fifth of the range apart divides by zero."""


def of_the_loss(change: Callable[[Any], Any], share: float) -> Install:
    """Return what changes the loss in a share of the batches from `SINCE` on, the same in every training."""

    def install(trainer: Any, dice: random.Random, data: Path) -> None:
        hit = chosen(dice, share)
        loss_patch(lambda loss, step: change(loss) if hit(step) else loss)(trainer)

    return install


def chosen(dice: random.Random, share: float) -> Callable[[int], bool]:
    """Return what tells of a step, counted from the first epoch's first, whether it is among the spoilt."""
    epochs = range((SINCE - 1) * STEPS + 1, EPOCHS * STEPS + 1)
    steps = frozenset(step for step in epochs if dice.random() < share)
    return lambda step: step in steps


def too_large(loss: Any) -> Any:
    return loss * 1e6


def root_of_zero(loss: Any) -> Any:
    """A square root at zero: its value is finite, its gradient is not."""
    return loss + (loss * 0).abs().sqrt()


def beyond_fp16(share: float) -> Install:
    """Return what makes activations of a layer larger than fp16 holds, in a share of the batches; the next
    layer gets them as they were.
    """

    def install(trainer: Any, dice: random.Random, data: Path) -> None:
        hit, state = chosen(dice, share), {"on": False}
        layers = trainer.model.model

        def enlarge(module: Any, inputs: Any, output: Any) -> Any:
            place = trainer.session.progress
            step = ((place.epoch or 1) - 1) * STEPS + (place.step or 1)
            state["on"] = module.training and hit(step)
            return output * LARGE if state["on"] else output

        def shrink(module: Any, inputs: Any) -> Any:
            return (inputs[0] / LARGE,) if state["on"] else None

        layers[1].register_forward_hook(enlarge)
        layers[2].register_forward_pre_hook(shrink)

    return install


LARGE = 2.0**17
"""Twice as large as fp16 holds; a power of two, so that every other precision gives the same."""

CAUSES = (
    Cause("rate", "SGD's rate a hundred times too high, nothing clipped",
          settings={"lr0": 1.0, "grad_clip": 0.0}),
    Cause("rate-adamw", "AdamW's rate 250 times too high", "adamw", {"lr0": 0.5}),
    Cause("momentum", "momentum 0.999 and ten times the rate, nothing clipped",
          settings={"momentum": 0.999, "lr0": 0.1, "grad_clip": 0.0}),
    Cause("gain", "a loss gain 10,000 times too large, nothing clipped",
          settings={"box": 7.5e4, "grad_clip": 0.0}),
    Cause("spike", "a batch whose loss is a million times too large, once, nothing clipped",
          settings={"grad_clip": 0.0}, fault="loss_spike"),
    Cause("bad-batch", "one batch in twenty with a loss a million times too large, nothing clipped",
          settings={"grad_clip": 0.0}, install=of_the_loss(too_large, 0.05)),
    Cause("nan-image", "an image with a NaN pixel", install=spoilt_image(nan_pixel)),
    Cause("huge-boxes", "an image whose boxes are 1e20 images wide", install=spoilt_image(huge_boxes)),
    Cause("augmentation", "a contrast that divides by zero where hsv_v has made an image all dark",
          install=stretched),
    Cause("singular-loss", "a square root at zero in a tenth of the batches",
          install=of_the_loss(root_of_zero, 0.1)),
    Cause("batchnorm", "BatchNorm's running statistics become NaN, once", fault="batchnorm_nan"),
    Cause("bit-flip", "a weight becomes NaN, once", fault="nan_weight"),
    Cause("transient", "a gradient is not finite, once", fault="nan_gradient"),
    Cause("fp16-overflow", "activations beyond fp16 in every batch", "fp16", install=beyond_fp16(1.0)),
    Cause("fp16-at-times", "activations beyond fp16 in a tenth of the batches", "fp16",
          install=beyond_fp16(0.1)),
)  # fmt: skip
