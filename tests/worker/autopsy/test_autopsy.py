"""Each cause of the guide, caused for real, and named by the autopsy."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from nantui.recovery.ladder import Proof, proven
from nantui.run.events import Autopsy, of_kind
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from nantui.worker.autopsy import autopsy, passes
from tests.worker.runs import Outcome, Trainings, draw_data_set


def verdict(outcome: Outcome) -> dict[str, Any]:
    assert outcome.of("autopsy"), outcome.events
    return outcome.of("autopsy")[0]


def test_a_learning_rate_that_explodes(trainings, tmp_path):
    ours = {"max_consecutive_skips": 2, "grad_clip": 0, "on_suspicion": "end"}
    outcome = trainings(tmp_path / "run", train={"lr0": 1.0, "momentum": 0.99, "epochs": 9}, ours=ours)
    assert outcome.code == 77 and outcome.exit.outcome == "diverged"
    assert verdict(outcome)["cause"] == "learning_rate"
    assert "learning rate" in verdict(outcome)["text"]


def test_a_gradient_that_explodes(trainings, tmp_path):
    extreme = {"box": 3e37, "cls": 1e-30, "dfl": 1e-30, "lr0": 1e-9}
    outcome = trainings(tmp_path / "run", train={**extreme, "epochs": 1})
    assert verdict(outcome)["cause"] == "exploding_gradient"
    assert {i["incident"] for i in outcome.incidents} <= {"nan_gradient", "nan_loss", "too_many_skips"}
    evidence = verdict(outcome)["evidence"]
    assert evidence["repeat_gradients_finite"] is False
    assert evidence["repeat_bad_modules"] or evidence["repeat_grad_norm"] == "inf", "the norm overflows first"
    assert len(evidence["repeat_largest_gradients"]) == 5


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    """A data set in which one picture's disk cache holds a NaN."""
    root = tmp_path_factory.mktemp("spoilt")
    data = draw_data_set(root / "data", images=8)
    picture = np.zeros((64, 64, 3), dtype=np.float32)
    picture[5, 5, 0] = np.nan
    np.save(root / "data/images/train/003.npy", picture)
    return data


def test_broken_pixels_name_their_image(trainings, tmp_path, spoilt):
    still = {"hsv_h": 0.0, "hsv_s": 0.0, "hsv_v": 0.0, "translate": 0.0, "scale": 0.0}
    train = {"data": str(spoilt), "cache": "disk", "epochs": 1, "batch": 4, **still}
    outcome = trainings(tmp_path / "run", train=train)
    found = verdict(outcome)
    assert found["cause"] == "broken_pixels"
    assert found["evidence"]["images"][0]["files"][0].endswith("003.png")
    assert outcome.code == 0
    kept = np.load(outcome.run / "nantui/attempts" / found["evidence"]["batch"], allow_pickle=False)
    assert np.isnan(kept["img"]).any() and len(json.loads(str(kept["files"]))) == len(kept["img"])


def test_in_a_mosaic_all_its_files_are_candidates(trainings, tmp_path):
    train = {"epochs": 1, "mosaic": 1.0, "close_mosaic": 0}
    outcome = trainings(tmp_path / "run", train=train, faults=[{"fault": "nan_pixel", "batch": 2}])
    images = verdict(outcome)["evidence"]["images"]
    assert len(images) == 1 and 1 < len(images[0]["files"]) <= 4
    assert "candidates" in verdict(outcome)["text"]


def test_broken_labels_are_warned_of_and_named(trainings, tmp_path):
    outcome = trainings(tmp_path / "run", train={"epochs": 1}, faults=[{"fault": "nan_label", "batch": 2}])
    assert outcome.code == 0 and outcome.incidents == []
    assert [(w["warning"], w["step"]) for w in outcome.of("warning")] == [("nan_label", 2)]
    assert verdict(outcome)["cause"] == "broken_labels"


def test_an_activation_beyond_fp16(trainings, tmp_path, monkeypatch):
    """A stand-in on the CPU: the run says fp16, and a convolution drives activations over 65504."""
    monkeypatch.setattr(autopsy, "run_precision", lambda trainer: torch.float16)
    monkeypatch.setattr(autopsy, "VIOLENT_UPDATE", float("inf"))
    monkeypatch.setattr(autopsy, "HUGE_WEIGHT", float("inf"))
    from nantui.worker import faults

    def drive(fault: Any, trainer: Any, batch: Any) -> None:
        with torch.no_grad():
            convolution = next(m for m in trainer.model.modules() if isinstance(m, torch.nn.Conv2d))
            convolution.weight.mul_(1e6)
            convolution.weight.grad = None
        faults._spoil_loss(trainer.model, float("nan"))

    monkeypatch.setattr(faults, "_spoil_batch", drive)
    outcome = trainings(tmp_path / "run", train={"epochs": 1}, faults=[{"fault": "nan_pixel", "batch": 2}])
    found = verdict(outcome)
    assert found["cause"] == "fp16_overflow"
    assert "model.0.conv" in found["text"] and found["evidence"]["fp32_largest_activation"] > 65504
    assert found["evidence"]["images"], "images that overflow alone must be named"


@pytest.mark.parametrize(("scale", "cause"), [(2.0**40, "fp16_overflow"), (1.0, "not_reproduced")])
def test_a_gradient_beyond_fp16_at_the_loss_scale(trainings, tmp_path, monkeypatch, scale, cause):
    """The CPU repeats the batch in real fp16; only the scaler, which it has not, is played."""
    examine = autopsy.examine
    monkeypatch.setattr(autopsy, "run_precision", lambda trainer: torch.float16)
    monkeypatch.setattr(
        autopsy,
        "examine",
        lambda trainer, batch, seen, *rest: examine(trainer, batch, replace(seen, scale=scale), *rest),
    )
    outcome = trainings(tmp_path / "run", train={"epochs": 1}, faults=[{"fault": "nan_gradient", "batch": 2}])
    found = verdict(outcome)
    assert found["cause"] == cause, found["text"]
    assert bool(found["evidence"]["repeat_bad_modules"]) == (cause == "fp16_overflow")
    if cause == "fp16_overflow":
        assert "beyond fp16 at the loss scale" in found["text"]


def test_a_transient_fault_is_not_blamed_on_the_data(trainings, tmp_path):
    outcome = trainings(tmp_path / "run", train={"epochs": 1}, faults=[{"fault": "nan_loss", "batch": 2}])
    assert verdict(outcome)["cause"] == "not_reproduced"


def test_a_gradient_that_is_fine_when_repeated_is_not_blamed_on_the_training(trainings, tmp_path):
    outcome = trainings(tmp_path / "run", train={"epochs": 1}, faults=[{"fault": "nan_gradient", "batch": 2}])
    found = verdict(outcome)
    assert found["cause"] == "not_reproduced" and found["evidence"]["repeat_gradients_finite"] is True
    assert found["evidence"]["bad_gradients"] == ["model.0.conv.weight"]
    assert found["evidence"]["bad_modules"] == [{"module": "model.0.conv", "bad": 1, "of": 1}]


def test_with_accumulation_one_batch_alone_does_not_tell(trainings, tmp_path):
    train = {"epochs": 1, "nbs": 16}
    outcome = trainings(tmp_path / "run", train=train, faults=[{"fault": "nan_gradient", "batch": 2}])
    assert verdict(outcome)["cause"] == "exploding_gradient"


def test_repeating_a_batch_leaves_the_gradients_and_the_model_alone():
    model = Quadratic()
    model.weight.grad = torch.ones(3)
    batch = {"img": torch.tensor([1.0, 2.0, 3.0])}
    good = passes.backward(model, batch, None)
    assert good is not None and good.finite and good.largest == {"weight": pytest.approx(392**0.5)}
    assert torch.equal(model.weight.grad, torch.ones(3))
    found = passes.backward(model, {"img": torch.tensor([1.0, float("inf"), 3.0])}, None)
    assert found is not None and found.modules == [{"module": "", "bad": 1, "of": 1}]


class Quadratic(torch.nn.Module):
    """A model with one parameter and a loss, as Ultralytics' models have one."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3))

    def forward(self, batch: dict[str, Any]) -> tuple[torch.Tensor, None]:
        return (self.weight * batch["img"]).square().sum(), None


def test_validation_that_is_not_finite_is_looked_into(trainings, tmp_path, monkeypatch):
    """Averaged weights that overflow on their own: finite numbers, activations beyond any precision."""

    def drive(fault: Any, trainer: Any, batch: Any) -> None:
        for module in trainer.ema.ema.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.data.fill_(3e38)

    from nantui.worker import faults

    monkeypatch.setattr(faults, "_spoil_batch", drive)
    fault = {"fault": "nan_pixel", "epoch": 2, "batch": 4}
    outcome = trainings(tmp_path / "run", train={"epochs": 2}, faults=[fault])
    assert outcome.code == 0, "the weights are finite, so the training goes on"
    seen = [(i["incident"], i["epoch"], i["action"]) for i in outcome.incidents]
    assert seen == [("unsound_save", 2, "warned"), ("nan_validation", 2, "warned")]
    found = verdict(outcome)
    assert found["cause"] == "exploding_gradient" and found["of_rank"] == 0
    assert found["evidence"]["fp32_first_bad_module"].startswith("model.")
    assert "overflow in fp32" in found["text"]
    assert len(found["evidence"]["images"]) == found["evidence"]["images_looked_at"] == 8


def test_a_broken_image_of_the_validation_is_named_and_no_reason_to_leave_it_out_of_the_training(
    trainings, tmp_path
):
    """Its disk cache holds a NaN. Only the train set leaves images out, and nothing is wrong with that."""
    data = draw_data_set(tmp_path / "data", images=8)
    picture = np.full((64, 64, 3), np.nan, dtype=np.float32)
    np.save(tmp_path / "data/images/val/003.npy", picture)
    outcome = trainings(tmp_path / "run", train={"data": str(data), "cache": "disk", "epochs": 2})
    found = verdict(outcome)
    assert outcome.code == 0 and found["cause"] == "broken_pixels"
    assert [image["files"][0][-11:] for image in found["evidence"]["images"]] == ["val/003.png"]
    Journal(RunLayout(outcome.run).journal).append(**{**found, "attempt": 1})
    record = RunRecord(RunLayout(outcome.run))
    assert of_kind(record.journal, Autopsy)[0].evidence["images"]
    assert proven(record, None) == Proof(frozenset())


def test_an_autopsy_that_fails_does_not_cost_the_run(trainings, tmp_path, monkeypatch):
    def broken(*args: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(autopsy, "_data", broken)
    outcome = trainings(tmp_path / "run", train={"epochs": 1}, faults=[{"fault": "nan_pixel", "batch": 2}])
    assert outcome.code == 0 and verdict(outcome)["cause"] == "unknown"
