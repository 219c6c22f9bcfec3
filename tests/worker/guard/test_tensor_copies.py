"""A step that was taken ahead of its verdict can be taken back, whatever the optimizer."""

from __future__ import annotations

import copy
import weakref
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from nantui.worker.guard.tensor_copies import BatchNormStatistics, StepBackup

OPTIMIZERS = {
    "SGD": {"momentum": 0.9, "nesterov": True},
    "AdamW": {},
    "NAdam": {},
    "RAdam": {},
    "Adamax": {},
    "RMSprop": {"momentum": 0.9},
}


def training(name: str) -> Any:
    from ultralytics.utils.torch_utils import ModelEMA

    model = nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))
    optimizer = getattr(torch.optim, name)(model.parameters(), lr=0.01, **OPTIMIZERS[name])
    return SimpleNamespace(model=model, optimizer=optimizer, ema=ModelEMA(model, tau=2))


def state(trainer: Any) -> str:
    torch.set_printoptions(precision=17)
    average = trainer.ema.ema.state_dict(), trainer.ema.updates
    weights = list(trainer.model.parameters())
    return repr((weights, [weight.grad for weight in weights], trainer.optimizer.state_dict(), average))


def backward(trainer: Any) -> None:
    for weight in trainer.model.parameters():
        weight.grad = torch.randn_like(weight)


def step(trainer: Any) -> None:
    trainer.optimizer.step()
    trainer.optimizer.zero_grad()
    if trainer.ema:
        trainer.ema.update(trainer.model)


def is_taken_back(trainer: Any, backup: StepBackup) -> None:
    """Take a step and take it back: all is as before."""
    backward(trainer)
    before = state(trainer)
    backup.copy()
    step(trainer)
    assert state(trainer) != before
    backup.restore()
    assert state(trainer) == before


def after_four_steps(trainer: Any) -> StepBackup:
    """Return what has copied four good steps, and knows where everything lies."""
    backup = StepBackup(trainer)
    for _ in range(4):
        backward(trainer)
        backup.copy()
        step(trainer)
        backup.discard()
    return backup


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_any_step_is_taken_back_to_the_last_bit(name):
    trainer = training(name)
    backup = StepBackup(trainer)
    for number in range(8):
        backward(trainer)
        before = state(trainer)
        backup.copy()
        step(trainer)
        assert state(trainer) != before
        if number in (0, 2, 3, 6):
            backup.restore()
            assert state(trainer) == before
        else:
            backup.discard()


def test_a_state_loaded_in_mid_epoch_is_the_one_that_is_kept():
    trainer = training("AdamW")
    backup = after_four_steps(trainer)
    trainer.optimizer.load_state_dict(copy.deepcopy(trainer.optimizer.state_dict()))
    is_taken_back(trainer, backup)


def test_weights_that_something_else_exchanged_are_not_written_over():
    trainer = training("SGD")
    backup = after_four_steps(trainer)
    first = next(trainer.model.parameters())
    first.data = first.data.clone()
    backward(trainer)
    backup.copy()
    step(trainer)
    now = state(trainer)
    with pytest.raises(RuntimeError, match="exchanged"):
        backup.restore()
    assert state(trainer) == now


def moved(trainer: Any) -> None:
    """As a validation in half precision does it up to Ultralytics 8.4.0."""
    with torch.inference_mode():
        trainer.ema.ema.half().float()
    trainer.ema._pairs = None


def another(trainer: Any) -> None:
    trainer.ema = copy.deepcopy(trainer.ema)


@pytest.mark.parametrize("exchange", [moved, another])
def test_an_average_that_was_exchanged_in_mid_epoch_is_taken_back_too(exchange):
    trainer = training("SGD")
    backup = after_four_steps(trainer)
    exchange(trainer)
    for _ in range(3):
        is_taken_back(trainer, backup)


def test_what_was_exchanged_between_epochs_is_found_where_it_is_now():
    trainer = training("AdamW")
    backup = after_four_steps(trainer)
    for weight in trainer.model.parameters():
        weight.data = weight.data.clone()
    trainer.ema._pairs = None
    backup.look_again()
    is_taken_back(trainer, backup)


def test_a_good_step_is_let_go_of_and_cannot_be_taken_back():
    trainer = training("SGD")
    backup = after_four_steps(trainer)
    backward(trainer)
    gradients = [weakref.ref(weight.grad) for weight in trainer.model.parameters()]
    backup.copy()
    step(trainer)
    now = state(trainer)
    assert all(gradient() is not None for gradient in gradients)
    backup.discard()
    assert all(gradient() is None for gradient in gradients)
    backup.restore()
    assert state(trainer) == now


def test_gradients_come_back_as_evidence():
    """As on a GPU, where PyTorch's SGD adds momentum to them: only what was not finite is not."""
    model = nn.Sequential(nn.Linear(5, 6), nn.Linear(6, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, foreach=True)
    trainer: Any = SimpleNamespace(model=model, optimizer=optimizer, ema=None)
    backup = after_four_steps(trainer)
    backward(trainer)
    spoilt = next(model.parameters())
    assert spoilt.grad is not None
    spoilt.grad[0, 0] = float("nan")
    backup.copy()
    step(trainer)
    backup.restore()
    named = [name for name, weight in model.named_parameters() if not torch.isfinite(weight.grad).all()]
    assert named == ["0.weight"] and all(torch.isfinite(weight).all() for weight in model.parameters())


def test_statistics_asked_for_in_every_step_stay_as_they_were_while_they_are_remembered():
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    statistics = BatchNormStatistics(model, every_step=True)
    for _ in range(3):
        model(torch.randn(8, 3))
        statistics.remember(statistics.snapshot())
    good = {name: value.clone() for name, value in model.state_dict().items()}
    for _ in range(3):
        model(torch.full((8, 3), float("nan")))
        peak = statistics.snapshot().peak
        assert peak is not None and not torch.isfinite(peak)
    statistics.restore()
    assert all(torch.equal(value, good[name]) for name, value in model.state_dict().items())
