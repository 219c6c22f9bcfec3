"""What is about to be saved is judged before it takes a file's place: the half copy, as by `nantui check`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from nantui.checkpoint.catalog import Catalog
from nantui.worker.trainer import GuardedTrainer

SICK, EPOCHS = 2, 3
"""The epoch, from 1, whose averaged weights are spoilt when it is saved; they are healed before the next."""


def overflow(model: torch.nn.Module) -> None:
    """One value is finite in fp32, and beyond what fp16 can hold."""
    next(p for p in model.parameters() if p.dim() > 1).view(-1)[0] = 1e30


def zero(model: torch.nn.Module) -> None:
    """Every matrix is exactly zero."""
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.zero_()


def spoil(monkeypatch: pytest.MonkeyPatch, how: Callable[[torch.nn.Module], None]) -> None:
    save = GuardedTrainer.save_model

    def spoilt(self: Any) -> Any:
        if self.epoch + 1 != SICK:
            return save(self)
        before = {name: value.clone() for name, value in self.ema.ema.state_dict().items()}
        with torch.no_grad():
            how(self.ema.ema)
        try:
            return save(self)
        finally:
            self.ema.ema.load_state_dict(before)

    monkeypatch.setattr(GuardedTrainer, "save_model", spoilt)


@pytest.mark.parametrize("how", [overflow, zero])
def test_it_is_refused_and_said_and_the_files_before_it_stay(trainings, tmp_path, monkeypatch, how):
    spoil(monkeypatch, how)
    outcome = trainings(tmp_path / "run", train={"epochs": EPOCHS, "save_period": 1, "val": False})
    assert outcome.code == 0, outcome.exit.text
    seen = [(i["incident"], i["epoch"], i["action"]) for i in outcome.incidents]
    assert seen == [("unsound_save", SICK, "warned")]
    assert "the files saved before it are kept, the training goes on" in outcome.incidents[0]["text"]
    assert [event["epoch"] for event in outcome.of("saved")] == [1, 3]
    verdicts = {verdict.path.name: verdict.badge for verdict in Catalog(outcome.run / "weights").verdicts()}
    assert verdicts == {"best.pt": "clean", "last.pt": "clean", "epoch0.pt": "clean", "epoch2.pt": "clean"}


def test_who_only_observes_gets_the_file_and_hears_of_it(trainings, tmp_path, monkeypatch):
    spoil(monkeypatch, overflow)
    train = {"epochs": EPOCHS, "save_period": 1, "val": False}
    outcome = trainings(tmp_path / "run", train=train, ours={"guard": "observe"})
    assert [(i["incident"], i["action"]) for i in outcome.incidents] == [("unsound_save", "observed")]
    assert [event["epoch"] for event in outcome.of("saved")] == [1, 2, 3]
    verdicts = {verdict.path.name: verdict.badge for verdict in Catalog(outcome.run / "weights").verdicts()}
    assert verdicts["epoch1.pt"] == "corrupt", "as it said"
