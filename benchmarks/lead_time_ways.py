"""Ways in which a training breaks gradually, each drawing place and speed from a seed.

Beside them stand those of the diagnosis table that take their time. `since` is the step from which something
is wrong; how many steps pass from there to the first value that is not finite decides itself.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from benchmarks import diagnosis_ways
from benchmarks.diagnosis_cases import STEPS, Case

EPOCHS = 30
Act = Callable[[Any, int], None]


@dataclass(frozen=True)
class Gradual:
    """A training that something is wrong with from step `since` (from 0) on; -1 for never."""

    way: str
    case: Case
    since: int

    @property
    def name(self) -> str:
        """Return a name for its file."""
        return f"{self.way}-{self.case.seed}"


def each_step(act: Act, since: int) -> Callable[[Any], None]:
    """Return an `at_start` that calls `act(trainer, k)` at the start of batch `since + k`, k from 0."""

    def install(trainer: Any) -> None:
        count = iter(range(-since, 1 << 30))

        def begin(trainer: Any) -> None:
            if (passed := next(count)) >= 0:
                act(trainer, passed)

        trainer.add_callback("on_train_batch_start", begin)

    return install


def drawn(way: str, dice: random.Random, seed: int, act: Act, **train: Any) -> Gradual:
    """Return a training that learns for a while, then has `act` happen to it at each step."""
    since = dice.randint(4 * STEPS, 12 * STEPS)
    optimizer = dice.choice(("SGD", "AdamW", "SGD", "Adam", "MuSGD"))
    rate = {"AdamW": 0.001, "Adam": 0.001}.get(optimizer, 0.01)
    clip = dice.choice((10.0, 0.0))
    settings = {"optimizer": optimizer, "lr0": rate, "epochs": EPOCHS, "seed": seed, **train}
    case = Case(way, way, seed, settings, {"grad_clip": clip}, at_start=each_step(act, since))
    return Gradual(way, case, since)


def speed(dice: random.Random, slowest: float = 0.02, fastest: float = 0.3) -> float:
    """Return what a size is multiplied with each step: by 1.02 to 1.3, slow ones as often as fast ones."""
    return float(1 + slowest * (fastest / slowest) ** dice.random())


def loss_grows(dice: random.Random, seed: int) -> Gradual:
    """The loss grows from step to step, shown or not in what is printed of it."""
    factor, shown = speed(dice), dice.random() < 0.5
    return drawn("loss grows", dice, seed, _times(lambda passed: factor**passed, shown))


def loss_near_a_pole(dice: random.Random, seed: int) -> Gradual:
    """A term of the loss comes nearer to a division by zero: slowly for long, then all at once."""
    steps = dice.randint(60, 240)
    return drawn(
        "loss near a pole", dice, seed, _times(lambda passed: steps / max(steps - passed, 1e-45), True)
    )


def spikes_come_closer(dice: random.Random, seed: int) -> Gradual:
    """Ever more steps have a loss that is far too large, ever larger; nothing clips."""
    steps, spikes = dice.randint(80, 240), random.Random(seed)

    def factor(passed: int) -> float:
        share = min(passed / steps, 1.0)
        return 1000.0 ** (share * 2 * spikes.random()) if spikes.random() < share else 1.0

    gradual = drawn("spikes come closer", dice, seed, _times(factor, True))
    return replace(gradual, case=replace(gradual.case, ours={"grad_clip": 0.0}))


def rate_grows(dice: random.Random, seed: int) -> Gradual:
    """The learning rate grows from step to step, as a schedule with a mistake in it does."""
    factor = speed(dice)
    return drawn("rate grows", dice, seed, lambda trainer, passed: _rates(trainer, factor ** (passed + 1)))


def rate_jumps(dice: random.Random, seed: int) -> Gradual:
    """The learning rate is suddenly far too high, and stays so."""
    factor = 10 ** dice.uniform(1.5, 3.5)
    return drawn("rate jumps", dice, seed, lambda trainer, passed: _rates(trainer, factor))


def momentum_above_one(dice: random.Random, seed: int) -> Gradual:
    """The momentum no longer forgets: each step is larger than the one before."""
    momentum = speed(dice, 0.01, 0.1)

    def act(trainer: Any, passed: int) -> None:
        for group in trainer.optimizer.param_groups:
            group["momentum"] = momentum

    return drawn("momentum above one", dice, seed, act, optimizer="SGD", lr0=0.01)


def momentum_too_high(dice: random.Random, seed: int) -> Gradual:
    """The highest momenta that Ultralytics accepts, with high rates, from the first step on."""
    train = {"momentum": 1 - 10 ** dice.uniform(-4, -2), "lr0": 10 ** dice.uniform(-1, 0), "optimizer": "SGD"}
    case = Case(
        "", "", seed, {**train, "epochs": EPOCHS, "seed": seed}, {"grad_clip": dice.choice((10.0, 0.0))}
    )
    return Gradual("momentum too high", case, 0)


def head_drifts(dice: random.Random, seed: int) -> Gradual:
    """The weights of the head, which nothing normalizes, grow from step to step."""
    return drawn(
        "head drifts", dice, seed, scaled(speed(dice), lambda model: list(model.model[-1].parameters()))
    )


def convolution_drifts(dice: random.Random, seed: int) -> Gradual:
    """The weights of a convolution grow, BatchNorm hides it, and its variance runs away."""
    place, factor = dice.choice((0, 1, 3)), speed(dice)
    return drawn("BatchNorm's variance drifts", dice, seed,
                 scaled(factor, lambda model: [model.model[place].conv.weight]))  # fmt: skip


def gains_drift(dice: random.Random, seed: int) -> Gradual:
    """BatchNorm's own weights grow from step to step."""
    factor = speed(dice)
    return drawn("BatchNorm's gain drifts", dice, seed, scaled(
        factor, lambda model: [weight for name, weight in model.named_parameters() if ".bn.weight" in name]
    ))  # fmt: skip


def bad_batches(dice: random.Random, seed: int) -> Gradual:
    """An image of every few batches has pixels out of range, ever further."""
    factor, every, state = speed(dice, 0.1, 1.0), dice.randint(1, 4), {"passed": 0}

    def act(trainer: Any, passed: int) -> None:
        if not passed:
            own = trainer.preprocess_batch

            def spoilt(batch: dict[str, Any]) -> dict[str, Any]:
                batch = own(batch)
                if state["passed"] % every == 0:
                    batch["img"][0] = batch["img"][0] * factor ** state["passed"]
                return batch

            trainer.preprocess_batch = spoilt
        state["passed"] = passed

    return drawn("bad batches grow", dice, seed, act)


def gradients_pile_up(dice: random.Random, seed: int) -> Gradual:
    """The gradients are no longer zeroed after a step."""

    def act(trainer: Any, passed: int) -> None:
        trainer.optimizer.zero_grad = lambda *_, **__: None

    return drawn("gradients pile up", dice, seed, act)


def decay_wrong(dice: random.Random, seed: int) -> Gradual:
    """The decay of the weights has the wrong sign, and lets them grow."""
    share = speed(dice) - 1

    def act(trainer: Any, passed: int) -> None:
        for group in trainer.optimizer.param_groups:
            group["weight_decay"] = -share / max(group["lr"], 1e-9)

    return drawn("decay of the wrong sign", dice, seed, act, optimizer=dice.choice(("SGD", "AdamW")))


def _times(factor: Callable[[int], float], shown: bool) -> Act:
    """Multiply the loss, and where it is `shown` what is printed of it, by a factor that the step decides."""
    now = {"passed": 0}

    def act(trainer: Any, passed: int) -> None:
        now["passed"] = passed
        if passed:
            return
        model, own = trainer.model, trainer.model.loss

        def loss(batch: Any, preds: Any = None) -> Any:
            value, items = own(batch, preds)
            times = factor(now["passed"]) if model.training else 1.0
            if shown and isinstance(items, dict):
                items = {name: item * times for name, item in items.items()}
            elif shown:
                items = items * times
            return value * times, items

        model.loss = loss

    return act


def _rates(trainer: Any, factor: float) -> None:
    for group in trainer.optimizer.param_groups:
        group["lr"] = group.setdefault("rate_meant", group["lr"]) * factor


def scaled(factor: float, weights_of: Callable[[Any], list[Any]]) -> Act:
    """Multiply some of a model's weights by a factor before each batch."""

    def act(trainer: Any, passed: int) -> None:
        import torch

        with torch.no_grad():
            torch._foreach_mul_(weights_of(trainer.model), factor)

    return act


def from_the_table(way: Callable[[random.Random, int], Case]) -> Callable[[random.Random, int], Gradual]:
    """Return a way of the diagnosis table, with as many epochs as it needs; wrong from its first step on."""

    def made(dice: random.Random, seed: int) -> Gradual:
        case = way(dice, seed)
        train = {**case.train, "epochs": EPOCHS, "seed": seed}
        name = f"table {case.cause.replace('_', ' ')} {case.how}"
        return Gradual(name, replace(case, train=train), 0)

    return made


def under_fp16(way: Callable[[random.Random, int], Gradual]) -> Callable[[random.Random, int], Gradual]:
    """Return a way under fp16, where 65504 is the largest number; needs a GPU."""

    def made(dice: random.Random, seed: int) -> Gradual:
        gradual = way(dice, seed)
        case = replace(gradual.case, train={**gradual.case.train, "amp": True})
        return replace(gradual, way=f"fp16 {gradual.way}", case=case)

    return made


def well(dice: random.Random, seed: int) -> Gradual:
    """The same trainings with nothing wrong, at recommended rates and three times those."""
    gradual = drawn("well", dice, seed, lambda trainer, passed: None)
    train = {
        **gradual.case.train,
        "warmup_epochs": dice.choice((0.0, 3.0)),
        "mosaic": dice.choice((0.5, 1.0)),
    }
    train["lr0"] *= dice.choice((1, 3))
    return replace(gradual, case=replace(gradual.case, train=train, at_start=None), since=-1)


WAYS = (
    loss_grows, rate_grows, from_the_table(diagnosis_ways.high_rate_sgd), head_drifts, bad_batches,
    momentum_above_one, convolution_drifts, from_the_table(diagnosis_ways.high_rate_adam), rate_jumps,
    gains_drift, spikes_come_closer, momentum_too_high, gradients_pile_up, decay_wrong, loss_near_a_pole,
    from_the_table(diagnosis_ways.high_rate_warmup), from_the_table(diagnosis_ways.growing_gain),
    from_the_table(diagnosis_ways.growing_under_adam), from_the_table(diagnosis_ways.observed_rate),
)  # fmt: skip
GPU_WAYS = tuple(map(under_fp16, (
    loss_grows, gains_drift, head_drifts, rate_grows, convolution_drifts, bad_batches, momentum_above_one,
    rate_jumps, decay_wrong, from_the_table(diagnosis_ways.high_rate_sgd),
)))  # fmt: skip
