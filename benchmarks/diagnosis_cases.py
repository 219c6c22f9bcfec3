"""Tiny trainings broken on purpose, each in one known way; `diagnosis_table.py` judges them.

Every case is a real training through nantui's own worker. What is broken, where and how much is drawn from
the case's seed, so that a table can be made with seeds that nobody looked at while tuning.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EPOCHS, IMAGES, BATCH = 3, 32, 2
STEPS = IMAGES // BATCH
COLOURS = ((255, 40, 40), (40, 255, 40), (40, 40, 255))
MODEL = """
nc: 3
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, C2f, [16, True]]
  - [-1, 1, Conv, [32, 3, 2]]
  - [-1, 1, C2f, [32, True]]
head:
  - [[4], 1, Detect, [nc]]
"""
COMMON: dict[str, Any] = {
    "epochs": EPOCHS, "imgsz": 64, "batch": BATCH, "nbs": BATCH, "plots": False, "workers": 0, "mosaic": 0.5,
    "warmup_epochs": 0.0, "optimizer": "SGD", "lr0": 0.01, "val": False, "amp": False, "close_mosaic": 0,
}  # fmt: skip


@dataclass
class Case:
    """One broken training: the true `cause`, what was done, and how."""

    cause: str
    how: str
    seed: int
    train: dict[str, Any] = field(default_factory=dict)
    ours: dict[str, Any] = field(default_factory=dict)
    faults: list[dict[str, Any]] = field(default_factory=list)
    at_start: Callable[[Any], None] | None = None
    between: Callable[[Path], None] | None = None
    cache: dict[str, float] = field(default_factory=dict)
    gpu: bool = False

    @property
    def name(self) -> str:
        """Return a name for its directory."""
        return f"{self.cause}-{self.how}-{self.seed}"


def cases(seeds: Iterator[int], gpu: bool = False) -> Iterator[Case]:
    """Yield one case of every way to break a training, each with the next of `seeds`; without end."""
    ways = GPU_WAYS if gpu else WAYS
    while True:
        for way in ways:
            seed = next(seeds)
            made = way(random.Random(seed), seed)
            made.train.setdefault("seed", seed)
            yield made


def _place(dice: random.Random, first_epoch: int = 1) -> dict[str, int]:
    """Return a step to break at, late enough for a history of a dozen steps."""
    epoch = dice.randint(first_epoch, EPOCHS)
    return {"epoch": epoch, "batch": dice.randint(12 if epoch == 1 else 1, STEPS - 3)}


def spiking_loss(dice: random.Random, seed: int) -> Case:
    """The loss is ten thousand times too large for some steps at a usual rate, and nothing clips."""
    fault = {"fault": "loss_spike", "times": dice.randint(2, 4), **_place(dice)}
    return Case("gradient_explosion", "spike", seed, {"lr0": 0.01}, {"grad_clip": 0.0}, [fault])


def huge_gain(dice: random.Random, seed: int) -> Case:
    """Loss gains far beyond their defaults, no clipping, a usual rate."""
    factor = 10 ** dice.uniform(4, 8)
    gains = {"box": 7.5 * factor, "cls": 0.5 * factor, "dfl": 1.5 * factor}
    return Case("gradient_explosion", "gains", seed, {**gains, "lr0": 0.01}, {"grad_clip": 0.0})


def growing_gain(dice: random.Random, seed: int) -> Case:
    """The gradient grows from step to step, as after a change of resolution, until it overflows."""
    return Case(
        "gradient_explosion",
        "growing",
        seed,
        {"lr0": 0.005},
        {"grad_clip": 0.0},
        at_start=_loss_patch(_growing(dice.uniform(1.5, 4.0), dice.randint(8, 16))),
    )


def high_rate_sgd(dice: random.Random, seed: int) -> Case:
    """SGD with the highest rates that Ultralytics accepts, clipped as usual or not."""
    clip = dice.choice((10.0, 0.0))
    train = {"lr0": dice.uniform(0.5, 1.0), "momentum": dice.uniform(0.95, 0.99), "epochs": 6}
    return Case("learning_rate", "sgd", seed, train, {"grad_clip": clip})


def high_rate_adam(dice: random.Random, seed: int) -> Case:
    """AdamW or Adam with a rate hundreds of times too high."""
    train = {"lr0": dice.uniform(0.3, 1.0), "optimizer": dice.choice(("AdamW", "Adam")), "epochs": 6}
    return Case("learning_rate", "adam", seed, train)


def high_rate_warmup(dice: random.Random, seed: int) -> Case:
    """A rate that becomes too high while warm-up climbs to it."""
    train = {"lr0": dice.uniform(0.5, 1.0), "warmup_epochs": 1.5, "warmup_bias_lr": 0.01, "epochs": 6}
    return Case("learning_rate", "warmup", seed, {**train, "optimizer": dice.choice(("AdamW", "RMSProp"))})


def broken_pixels(dice: random.Random, seed: int) -> Case:
    """A pixel of one image is not finite."""
    fault = {
        "fault": dice.choice(("nan_pixel", "inf_pixel")),
        "times": dice.choice((1, 1, 3)),
        **_place(dice),
    }
    return Case("data", "pixels", seed, faults=[fault])


def broken_cache(dice: random.Random, seed: int) -> Case:
    """An image's .npy file, which Ultralytics reads in its place, holds a NaN or an Inf."""
    return _with_cache(dice, seed, "npy-nan", float(dice.choice(("nan", "inf"))))


def wild_cache(dice: random.Random, seed: int) -> Case:
    """An image's .npy file holds numbers far outside the range of pixels, large enough to overflow."""
    return _with_cache(dice, seed, "npy-range", 10 ** dice.uniform(30, 37))


def _with_cache(dice: random.Random, seed: int, how: str, value: float) -> Case:
    plain = {"mosaic": 0.0, "hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0}
    cache = {f"{dice.randrange(IMAGES):03d}": value}
    return Case("data", how, seed, plain, cache=cache)


def poisoned_weights(dice: random.Random, seed: int) -> Case:
    """A checkpoint with NaN among its weights is resumed."""
    return Case(
        "contaminated_checkpoint", "weights", seed, between=_poison(dice.randrange(1 << 30), "weights")
    )


def poisoned_statistics(dice: random.Random, seed: int) -> Case:
    """A checkpoint with NaN among BatchNorm's running statistics is resumed."""
    return Case(
        "contaminated_checkpoint", "batchnorm", seed, between=_poison(dice.randrange(1 << 30), "buffers")
    )


def poisoned_optimizer(dice: random.Random, seed: int) -> Case:
    """A checkpoint whose momentum is NaN is resumed."""
    return Case(
        "contaminated_checkpoint", "momentum", seed, between=_poison(dice.randrange(1 << 30), "optimizer")
    )


def logarithm_of_zero(dice: random.Random, seed: int) -> Case:
    """A loss term takes the logarithm of zero from some step on."""
    return Case("singular_loss", "log0", seed, at_start=_loss_patch(_log_of_zero(dice.randint(12, 40))))


def root_of_zero(dice: random.Random, seed: int) -> Case:
    """A loss term takes the square root at zero: its value is finite, its gradient NaN."""
    return Case("singular_loss", "sqrt0", seed, at_start=_loss_patch(_root_of_zero(dice.randint(12, 40))))


def zero_by_zero(dice: random.Random, seed: int) -> Case:
    """A loss term divides zero by zero in one batch of each epoch."""
    return Case(
        "singular_loss", "0by0", seed, at_start=_loss_patch(_zero_by_zero(dice.randint(12, STEPS - 1)))
    )


def transient_loss(dice: random.Random, seed: int) -> Case:
    """One loss is not finite, and the same batch is fine when it is repeated."""
    fault = {"fault": dice.choice(("nan_loss", "inf_loss")), **_place(dice)}
    return Case("hardware", "loss", seed, faults=[fault])


def transient_gradient(dice: random.Random, seed: int) -> Case:
    """One number of one gradient tensor is not finite, once."""
    fault = {"fault": dice.choice(("nan_gradient", "inf_gradient")), **_place(dice)}
    return Case("hardware", "gradient", seed, faults=[fault])


def observed_pixels(dice: random.Random, seed: int) -> Case:
    """A broken pixel while the guard only observes: everything after it is NaN too."""
    fault = {"fault": dice.choice(("nan_pixel", "inf_pixel")), **_place(dice)}
    return Case("data", "pixels-observed", seed, {}, {"guard": "observe"}, [fault])


def observed_rate(dice: random.Random, seed: int) -> Case:
    """A rate that is too high while the guard only observes."""
    train = {"lr0": dice.uniform(0.5, 1.0), "momentum": dice.uniform(0.95, 0.99), "epochs": 4}
    return Case("learning_rate", "sgd-observed", seed, train, {"grad_clip": 0.0, "guard": "observe"})


def growing_under_adam(dice: random.Random, seed: int) -> Case:
    """The gradient grows from step to step under AdamW, which divides by its size, until it overflows."""
    patch = _loss_patch(_growing(dice.uniform(5.0, 50.0), dice.randint(8, 16)))
    train = {"lr0": 0.001, "optimizer": "AdamW"}
    return Case("gradient_explosion", "growing-adamw", seed, train, {"grad_clip": 0.0}, at_start=patch)


def poisoned_adam(dice: random.Random, seed: int) -> Case:
    """A checkpoint whose AdamW moments are NaN is resumed."""
    train = {"lr0": 0.001, "optimizer": "AdamW"}
    poison = _poison(dice.randrange(1 << 30), "moments")
    return Case("contaminated_checkpoint", "moments", seed, train, between=poison)


def root_of_zero_at_times(dice: random.Random, seed: int) -> Case:
    """A square root at zero in one batch of each epoch."""
    batch = dice.randint(12, STEPS - 1)
    return Case("singular_loss", "sqrt0-once", seed, at_start=_loss_patch(_root_at(batch)))


def flipped_weight(dice: random.Random, seed: int) -> Case:
    """A number among the weights becomes NaN between two steps, as a memory fault does it."""
    return Case("hardware", "weight", seed, faults=[{"fault": "nan_weight", **_place(dice)}])


def large_activations(dice: random.Random, seed: int) -> Case:
    """Activations beyond 65504 inside the network: finite in fp32, Inf in fp16."""
    return Case(
        "fp16_overflow",
        "activations",
        seed,
        {"amp": True},
        at_start=_enlarge(dice.uniform(300, 900)),
        gpu=True,
    )


def large_activations_later(dice: random.Random, seed: int) -> Case:
    """Activations pass 65504 in the middle of the training."""
    later = _later(_enlarge(dice.uniform(300, 900)), dice.randint(14, 40))
    return Case("fp16_overflow", "later", seed, {"amp": True}, at_start=later, gpu=True)


WAYS = (
    spiking_loss, high_rate_sgd, broken_pixels, poisoned_weights, logarithm_of_zero, transient_loss,
    huge_gain, high_rate_adam, broken_cache, poisoned_statistics, root_of_zero, transient_gradient,
    growing_gain, high_rate_warmup, wild_cache, poisoned_optimizer, zero_by_zero, flipped_weight,
    growing_under_adam, observed_rate, observed_pixels, poisoned_adam, root_of_zero_at_times,
)  # fmt: skip
GPU_WAYS = (large_activations, large_activations_later)


def _loss_patch(change: Callable[[Any, int], Any]) -> Callable[[Any], None]:
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


def _growing(factor: float, first: int) -> Callable[[Any, int], Any]:
    return lambda loss, step: loss * (factor ** max(step - first, 0))


def _log_of_zero(first: int) -> Callable[[Any, int], Any]:
    return lambda loss, step: loss + (loss * 0).log() if step >= first else loss


def _root_of_zero(first: int) -> Callable[[Any, int], Any]:
    return lambda loss, step: loss + (loss * 0).abs().sqrt() if step >= first else loss


def _root_at(batch: int) -> Callable[[Any, int], Any]:
    return lambda loss, step: loss + (loss * 0).abs().sqrt() if (step - 1) % STEPS + 1 == batch else loss


def _zero_by_zero(batch: int) -> Callable[[Any, int], Any]:
    return lambda loss, step: loss + (loss * 0) / (loss * 0) if (step - 1) % STEPS + 1 == batch else loss


def _enlarge(factor: float) -> Callable[[Any], None]:
    """Return a callback that enlarges a BatchNorm's weight and the convolution after it."""

    def install(trainer: Any) -> None:
        import torch

        with torch.no_grad():
            trainer.model.model[0].bn.weight.fill_(factor)
            trainer.model.model[1].conv.weight.mul_(factor / 3)

    return install


def _later(change: Callable[[Any], None], first: int) -> Callable[[Any], None]:
    def install(trainer: Any) -> None:
        state = {"step": 0}

        def count(trainer: Any) -> None:
            state["step"] += 1
            if state["step"] == first:
                change(trainer)

        trainer.add_callback("on_train_batch_start", count)

    return install


def _poison(seed: int, what: str) -> Callable[[Path], None]:
    """Return a function that makes numbers of a checkpoint NaN."""

    def poison(path: Path) -> None:
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

    return poison


def draw_data_set(root: Path, case: Case) -> Path:
    """Write the case's data set, coloured squares on noise; returns its data.yaml."""
    import cv2
    import numpy as np

    dice = np.random.default_rng(case.seed)
    for split, count in (("train", IMAGES), ("val", 4)):
        for kind in ("images", "labels"):
            (root / kind / split).mkdir(parents=True)
        for index in range(count):
            picture = dice.integers(0, 60, (64, 64, 3), dtype=np.uint8)
            rows = [_draw(picture, dice) for _ in range(2)]
            path = root / "images" / split / f"{index:03d}.png"
            cv2.imwrite(str(path), picture)
            (root / "labels" / split / f"{index:03d}.txt").write_text("".join(rows))
            if split == "train" and path.stem in case.cache:
                spoilt = picture.astype(np.float32)
                spoilt[20:30, 20:30] = case.cache[path.stem]
                np.save(path.with_suffix(".npy"), spoilt)
    data = root / "data.yaml"
    data.write_text(f"path: {root}\ntrain: images/train\nval: images/val\nnames: [a, b, c]\n")
    return data


def _draw(picture: Any, dice: Any) -> str:
    import cv2

    kind, side = int(dice.integers(0, 3)), int(dice.integers(12, 24))
    x, y = (int(value) for value in dice.integers(0, 64 - side, 2))
    cv2.rectangle(picture, (x, y), (x + side, y + side), COLOURS[kind], -1)
    return f"{kind} {(x + side / 2) / 64:.5f} {(y + side / 2) / 64:.5f} {side / 64:.5f} {side / 64:.5f}\n"


def train(case: Case, place: Path, device: str = "cpu") -> Path:
    """Break a training in `place` and return its run directory."""
    place.mkdir(parents=True)
    data = draw_data_set(place / "data", case)
    model = place / "tiny.yaml"
    model.write_text(MODEL)
    run = place / "run"
    arguments = {**COMMON, "model": str(model), "data": str(data), "device": device, **case.train}
    if case.between is not None:
        _attempt(case, run, 1, {**arguments, "save_period": 1}, stop_after=1)
        case.between(run / "weights" / "last.pt")
        _attempt(case, run, 2, arguments, mode="resume", checkpoint="weights/last.pt")
    else:
        _attempt(case, run, 1, arguments)
    return run


def _attempt(
    case: Case, run: Path, number: int, arguments: dict[str, Any], stop_after: int = 0, **request: Any
) -> None:
    from nantui.run.attempts import Attempt, write_attempt
    from nantui.run.layout import RunLayout
    from nantui.training import touchpoints, worker

    layout = RunLayout(run)
    fields = {"mode": "start", "checkpoint": None, **request}
    record = Attempt(
        attempt=number, uuid=f"case-{number}", created=time.time(), train=arguments, ours=dict(case.ours),
        python=sys.executable, faults=list(case.faults), **fields,
    )  # fmt: skip
    write_attempt(layout, record)
    load = touchpoints.load_model

    def loaded(*words: Any) -> Any:
        model = load(*words)
        if case.at_start is not None:
            model.add_callback("on_pretrain_routine_end", case.at_start)
        if stop_after:
            # Asking to stop is what the supervisor does; the stop point then stands in for last.pt.
            model.add_callback(
                "on_train_epoch_start", lambda trainer: _stop(trainer, layout, number, stop_after)
            )
        return model

    touchpoints.load_model = loaded
    try:
        worker.main([str(run), f"{number:03d}"])
    finally:
        touchpoints.load_model = load


def _stop(trainer: Any, layout: Any, number: int, after: int) -> None:
    from nantui.run.files import write_json

    if trainer.epoch == after + 1:
        write_json(layout.stop_request(number), {"id": "case", "t": time.time(), "by": "case"})
        trainer.session.recorder.stop_requested.wait(10)
