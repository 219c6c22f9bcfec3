"""The ways in which the validation table breaks trainings, each drawing place and size from a seed.

A new way belongs into `WAYS` and is judged with seeds that nobody looked at while tuning.
"""

from __future__ import annotations

import random

from benchmarks.diagnosis_breaks import (  # fmt: skip
    enlarge,
    growing,
    later_on,
    log_of_zero,
    loss_patch,
    poison,
    root_of_zero_from,
    root_of_zero_in,
    zero_by_zero_in,
)
from benchmarks.diagnosis_cases import EPOCHS, IMAGES, STEPS, Case


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
        at_start=loss_patch(growing(dice.uniform(1.5, 4.0), dice.randint(8, 16))),
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
        "contaminated_checkpoint", "weights", seed, between=poison(dice.randrange(1 << 30), "weights")
    )


def poisoned_statistics(dice: random.Random, seed: int) -> Case:
    """A checkpoint with NaN among BatchNorm's running statistics is resumed."""
    return Case(
        "contaminated_checkpoint", "batchnorm", seed, between=poison(dice.randrange(1 << 30), "buffers")
    )


def poisoned_optimizer(dice: random.Random, seed: int) -> Case:
    """A checkpoint whose momentum is NaN is resumed."""
    return Case(
        "contaminated_checkpoint", "momentum", seed, between=poison(dice.randrange(1 << 30), "optimizer")
    )


def logarithm_of_zero(dice: random.Random, seed: int) -> Case:
    """A loss term takes the logarithm of zero from some step on."""
    return Case("singular_loss", "log0", seed, at_start=loss_patch(log_of_zero(dice.randint(12, 40))))


def root_of_zero(dice: random.Random, seed: int) -> Case:
    """A loss term takes the square root at zero: its value is finite, its gradient NaN."""
    return Case("singular_loss", "sqrt0", seed, at_start=loss_patch(root_of_zero_from(dice.randint(12, 40))))


def zero_by_zero(dice: random.Random, seed: int) -> Case:
    """A loss term divides zero by zero in one batch of each epoch."""
    return Case(
        "singular_loss", "0by0", seed, at_start=loss_patch(zero_by_zero_in(dice.randint(12, STEPS - 1)))
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
    patch = loss_patch(growing(dice.uniform(5.0, 50.0), dice.randint(8, 16)))
    train = {"lr0": 0.001, "optimizer": "AdamW"}
    return Case("gradient_explosion", "growing-adamw", seed, train, {"grad_clip": 0.0}, at_start=patch)


def poisoned_adam(dice: random.Random, seed: int) -> Case:
    """A checkpoint whose AdamW moments are NaN is resumed."""
    train = {"lr0": 0.001, "optimizer": "AdamW"}
    spoil = poison(dice.randrange(1 << 30), "moments")
    return Case("contaminated_checkpoint", "moments", seed, train, between=spoil)


def root_of_zero_at_times(dice: random.Random, seed: int) -> Case:
    """A square root at zero in one batch of each epoch."""
    batch = dice.randint(12, STEPS - 1)
    return Case("singular_loss", "sqrt0-once", seed, at_start=loss_patch(root_of_zero_in(batch)))


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
        at_start=enlarge(dice.uniform(300, 900)),
    )


def large_activations_later(dice: random.Random, seed: int) -> Case:
    """Activations pass 65504 in the middle of the training."""
    later = later_on(enlarge(dice.uniform(300, 900)), dice.randint(14, 40))
    return Case("fp16_overflow", "later", seed, {"amp": True}, at_start=later)


WAYS = (
    spiking_loss, high_rate_sgd, broken_pixels, poisoned_weights, logarithm_of_zero, transient_loss,
    huge_gain, high_rate_adam, broken_cache, poisoned_statistics, root_of_zero, transient_gradient,
    growing_gain, high_rate_warmup, wild_cache, poisoned_optimizer, zero_by_zero, flipped_weight,
    growing_under_adam, observed_rate, observed_pixels, poisoned_adam, root_of_zero_at_times,
)  # fmt: skip
GPU_WAYS = (large_activations, large_activations_later)
