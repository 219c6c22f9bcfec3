"""Where GradScaler itself refuses a step, a guarded run stays what Ultralytics makes of it, bit for bit.

There is no fp16 on the CPU. A GradScaler that begins far too high refuses the first steps there as well:
the scaled loss overflows, losses and BatchNorm statistics are finite.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from nantui.run.results import read_results
from nantui.worker import ultralytics_api
from tests.worker.runs import Trainings, tensors_of

if not hasattr(torch.amp, "GradScaler"):  # torch 2.3
    pytest.skip("this PyTorch has no GradScaler for the CPU", allow_module_level=True)

TOO_HIGH = 2.0**127
Scaler = torch.amp.GradScaler


@pytest.fixture(autouse=True)
def refused(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """A scaler that begins too high in every training; tells of each step whether it was refused."""
    steps: list[bool] = []

    class TooHigh(Scaler):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__("cpu", init_scale=TOO_HIGH, growth_interval=7)

        def update(self, *args: Any) -> None:
            before = self.get_scale()
            super().update(*args)
            steps.append(self.get_scale() < before)

    monkeypatch.setattr(torch.amp, "GradScaler", TooHigh)
    return steps


def stock(trainings: Trainings, run: Path, train: dict[str, Any]) -> Path:
    """Train as Ultralytics does, without a line of ours."""
    arguments = {**trainings.common, **train, "save_dir": str(run)}
    ultralytics_api.load_model(arguments.pop("model")).train(**arguments)
    return run


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW", "MuSGD"])
@pytest.mark.parametrize("nbs", [8, 16], ids=["every batch", "accumulated"])
def test_a_guarded_run_is_stocks_where_the_scaler_refuses_steps(trainings, tmp_path, refused, optimizer, nbs):
    train = {"optimizer": optimizer, "nbs": nbs, "epochs": 4 * nbs // 8, "save_period": 1}
    outcome = trainings(tmp_path / "guarded", train=train)
    guarded, refused[:] = list(refused), []
    stock(trainings, tmp_path / "stock", train)
    assert guarded == refused and 3 < sum(refused) < len(refused) - 3
    assert outcome.code == 0 and outcome.incidents == []
    for name in ["last.pt", "best.pt", *(f"epoch{epoch}.pt" for epoch in range(4))]:
        ours, theirs = (
            torch.load(tmp_path / who / "weights" / name, weights_only=False) for who in ("guarded", "stock")
        )
        one, other = tensors_of(ours), tensors_of(theirs)
        assert one.keys() == other.keys()
        assert [key for key in one if not torch.equal(one[key], other[key])] == [], name
        assert ours.get("updates") == theirs.get("updates")
    rows = [
        [row.values for row in read_results(tmp_path / who / "results.csv")] for who in ("guarded", "stock")
    ]
    assert rows[0] == rows[1] and len(rows[0]) == train["epochs"]


def test_what_the_scaler_refused_is_marked_and_what_was_bad_is_undone(trainings, tmp_path, refused):
    """A NaN pixel in the middle: losses and statistics are not finite, so that batch leaves no trace."""
    wanted = [{"fault": "nan_pixel", "epoch": 1, "batch": 2}, {"fault": "nan_pixel", "epoch": 5, "batch": 2}]
    outcome = trainings(tmp_path / "run", train={"epochs": 6}, faults=wanted)
    assert outcome.code == 0
    assert [(i["incident"], i["epoch"], i["step"]) for i in outcome.incidents] == [
        ("nan_loss", 1, 2),
        ("nan_loss", 5, 2),
    ]
    by_the_scaler = [s for s in outcome.steps if s.skipped and not s.reason]
    assert len(by_the_scaler) == sum(refused)
    assert [(s.epoch, s.step) for s in outcome.steps if s.reason] == [(1, 2), (5, 2)]
    assert all(torch.isfinite(value).all() for value in tensors_of(outcome.checkpoint("last.pt")).values())


def test_a_step_that_an_earlier_batch_has_voided_says_why_and_not_that_the_scaler_refused_it(
    trainings, tmp_path
):
    """The batches of the accumulation after the bad one are healthy."""
    wanted = [{"fault": "nan_pixel", "epoch": 2, "batch": 1}]
    outcome = trainings(tmp_path / "run", train={"epochs": 2, "nbs": 32}, faults=wanted)
    skipped = [(step.epoch, step.step, step.reason) for step in outcome.steps if step.skipped]
    assert skipped == [(1, 4, ""), (2, 4, "nan_loss")]


def test_finite_gradients_whose_norm_overflows_are_clipped_to_nothing_as_stock_does(
    trainings, tmp_path, refused, monkeypatch
):
    """The scaler lets them pass, as each of them is finite."""

    def blown_up(parameters: Any, *args: Any, **options: Any) -> None:
        for parameter in parameters:
            parameter.grad.fill_(1e30)

    unscale = Scaler.unscale_

    def unscaled(self: Any, optimizer: Any) -> None:
        unscale(self, optimizer)
        if len(refused) == 12:
            blown_up(p for group in optimizer.param_groups for p in group["params"] if p.grad is not None)

    monkeypatch.setattr(Scaler, "unscale_", unscaled)
    outcome = trainings(tmp_path / "guarded", train={"epochs": 4})
    refused.clear()
    stock(trainings, tmp_path / "stock", {"epochs": 4})
    assert outcome.code == 0 and any(s.value("grad_norm") == float("inf") for s in outcome.steps)
    ours = tensors_of(outcome.checkpoint("last.pt"))
    theirs = tensors_of(torch.load(tmp_path / "stock/weights/last.pt", weights_only=False))
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
