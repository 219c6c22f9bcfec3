"""A validation that overflows half precision is done once more in fp32, and leaves no trace but that."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from nantui.checkpoint.catalog import Catalog
from nantui.run.results import read_results
from nantui.worker.trainer import GuardedTrainer
from tests.worker import half
from tests.worker.runs import (
    Outcome,
    draw_data_set,
    on_two_ranks,
    outcome_of,
    tensors_of,
    tiny_model,
    write_request,
)
from tests.worker.test_tasks import HEADS, data_set

ON_VAL = ("on_val_start", "on_val_batch_start", "on_val_batch_end", "on_val_end", "on_fit_epoch_end")
LEARNS = {"epochs": 5, "lr0": 0.01, "save_period": 1}


@contextlib.contextmanager
def printed() -> Iterator[list[str]]:
    """Note what Ultralytics logs."""
    from ultralytics.utils import LOGGER

    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    LOGGER.addHandler(handler)
    try:
        yield lines
    finally:
        LOGGER.removeHandler(handler)


def rows_of(outcome: Outcome) -> list[dict[str, float]]:
    return [dict(row.values) for row in read_results(outcome.run / "results.csv")]


def precisions(outcome: Outcome) -> list[tuple[str, int | None]]:
    return [(event["precision"], event["epoch"]) for event in outcome.of("validation_precision")]


def unlike(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    ours, theirs = tensors_of(one), tensors_of(other)
    assert ours.keys() == theirs.keys()
    return [name for name in ours if not torch.equal(ours[name], theirs[name])]


def test_the_epochs_that_overflow_have_the_figures_of_fp32_and_all_else_is_stocks(trainings, tmp_path):
    with half.events(ON_VAL) as theirs, printed() as their_lines:
        plain = trainings(tmp_path / "plain", train=LEARNS, ours={"guard": "off"})
    with half.half_precision({2, 3}) as passes, half.events(ON_VAL) as ours, printed() as our_lines:
        outcome = trainings(tmp_path / "run", train=LEARNS)
    assert outcome.code == plain.code == 0 and outcome.incidents == []
    assert passes.seen == [
        (1, "fp16"),
        (2, "fp16"),
        (2, "fp32"),
        (3, "fp32"),
        (4, "fp16"),
        (5, "fp16"),
        (None, "fp16"),
    ]
    assert passes.probes == [False, True]
    assert rows_of(outcome) == rows_of(plain)
    assert ours == theirs
    table = [[line for line in lines if line.split()[:1] == ["all"]] for lines in (our_lines, their_lines)]
    assert len(table[0]) == len(table[1]) == 6
    assert precisions(outcome) == [("fp32", 2), ("fp16", 4)]
    assert [event["epoch"] for event in outcome.of("epoch") if event.get("validated_in") == "fp32"] == [2, 3]
    for name in ("last.pt", "best.pt", *(f"epoch{epoch}.pt" for epoch in range(5))):
        one, other = outcome.checkpoint(name), plain.checkpoint(name)
        assert unlike(one, other) == [], name
        for field in ("best_fitness", "train_metrics", "stopper"):
            assert one.get(field) == other.get(field), (name, field)


def test_without_ours_such_epochs_are_lost_or_this_file_proves_nothing(trainings, tmp_path):
    with half.half_precision({1}) as passes:
        outcome = trainings(tmp_path / "run", train={"epochs": 2}, ours={"guard": "off"})
    assert passes.seen == [(1, "fp16"), (2, "fp16"), (None, "fp16")]
    first, second = rows_of(outcome)
    assert any(math.isnan(value) or math.isinf(value) for value in first.values())
    assert all(map(math.isfinite, second.values()))


def test_who_only_observes_is_told_whose_fault_it_is_and_nothing_is_changed(trainings, tmp_path):
    with half.half_precision({1, 2}) as passes:
        outcome = trainings(tmp_path / "run", train={"epochs": 3}, ours={"guard": "observe"})
    assert outcome.code == 0 and outcome.incidents == []
    assert [epoch for epoch, _ in passes.seen] == [1, 2, 3, None]
    assert [warning["warning"] for warning in outcome.of("warning")].count("validation_overflow") == 1
    assert outcome.of("autopsy")[0]["cause"] == "fp16_overflow"


def test_a_run_whose_half_precision_always_overflows_ends_with_the_figures_of_fp32(
    trainings, tmp_path, monkeypatch
):
    final: list[dict[str, float]] = []
    evaluate = GuardedTrainer.final_eval

    def noted(self: Any) -> None:
        evaluate(self)
        final.append(dict(self.metrics))

    monkeypatch.setattr(GuardedTrainer, "final_eval", noted)
    train = {"epochs": 2, "lr0": 0.01}
    trainings(tmp_path / "plain", train=train, ours={"guard": "off"})
    with half.half_precision({2}, at_the_end=True) as passes:
        outcome = trainings(tmp_path / "late", train=train)
    assert passes.seen[-1] == (None, "fp32"), "the last epoch was in fp32, so the final evaluation is"
    with half.half_precision(at_the_end=True) as passes, half.events(ON_VAL) as seen:
        outcome = trainings(tmp_path / "run", train=train)
    assert passes.seen == [(1, "fp16"), (2, "fp16"), (None, "fp16"), (None, "fp32")]
    assert seen.count("on_val_end") == 3
    assert outcome.code == 0 and precisions(outcome) == [("fp32", None)]
    assert final[0] == final[1] == final[2] and len(final[0]) > 3


@pytest.mark.parametrize("task", HEADS)
def test_every_tasks_validator_is_stood_in_for(trainings, tmp_path, task):
    model = tiny_model(tmp_path, HEADS[task][0], f"tiny-{task}")
    train = {"model": str(model), "data": str(data_set(task, tmp_path / "data")), "epochs": 2}
    with half.half_precision({1}) as passes:
        outcome = trainings(tmp_path / "run", train=train)
    assert outcome.code == 0, outcome.exit.text
    assert passes.seen[:3] == [(1, "fp16"), (1, "fp32"), (2, "fp16")]
    assert outcome.incidents == [] and precisions(outcome) == [("fp32", 1), ("fp16", 2)]
    assert all(math.isfinite(value) for row in rows_of(outcome) for value in row.values())
    assert {v.badge for v in Catalog(outcome.run / "weights").verdicts()} == {"clean"}


def with_averaged(monkeypatch: pytest.MonkeyPatch, epoch: int, value: float) -> None:
    """Put a large value into one running statistic of the averaged weights, before an epoch is validated."""
    validate = GuardedTrainer.validate

    def planted(self: Any) -> Any:
        if self.epoch + 1 == epoch:
            with torch.inference_mode():
                self.ema.ema.model[0].bn.running_var[0] = value
        return validate(self)

    monkeypatch.setattr(GuardedTrainer, "validate", planted)


def test_a_version_that_rounds_the_averaged_weights_gets_back_what_overflowed_and_only_that(
    trainings, tmp_path, monkeypatch
):
    after: dict[int, dict[str, torch.Tensor]] = {}
    save = GuardedTrainer.save_model

    def noted(self: Any) -> bool:
        after[self.epoch + 1] = {name: value.clone() for name, value in self.ema.ema.state_dict().items()}
        return save(self)

    monkeypatch.setattr(GuardedTrainer, "save_model", noted)
    with_averaged(monkeypatch, 2, 70000.0)
    with half.half_precision({2}, in_place=True) as passes:
        outcome = trainings(tmp_path / "run", train={"epochs": 2})
    assert outcome.code == 0 and outcome.incidents == []
    assert (2, "fp32") in passes.seen
    kept = after[2]["model.0.bn.running_var"]
    assert kept[0] == 70000.0
    others = [
        value
        for name, value in after[2].items()
        if value.is_floating_point() and name != "model.0.bn.running_var"
    ]
    assert all(torch.equal(value, value.half().float()) for value in others), "stock's rounding stays"


def test_the_verdict_on_a_file_that_cannot_hold_what_was_validated_says_so(trainings, tmp_path, monkeypatch):
    with_averaged(monkeypatch, 2, 70000.0)
    outcome = trainings(tmp_path / "run", train={"epochs": 2, "save_period": 1})
    assert outcome.code == 0 and outcome.incidents == []
    said = [event for event in outcome.of("warning") if event["warning"] == "saved_beyond_half"]
    assert len(said) == 1 and "model.0.bn.running_var" in said[0]["evidence"]["tensors"][0]
    verdicts = {verdict.path.name: verdict for verdict in Catalog(outcome.run / "weights").verdicts()}
    assert [finding.kind for finding in verdicts["epoch1.pt"].findings] == ["saturated"]
    assert verdicts["epoch1.pt"].badge == "clean" and verdicts["epoch0.pt"].findings == ()


@pytest.fixture
def spoilt_image(monkeypatch: pytest.MonkeyPatch) -> str:
    """One image of the validation set has a pixel that is NaN; returns its name."""
    from ultralytics.models.yolo.detect import DetectionValidator

    preprocess, name = DetectionValidator.preprocess, "003.png"

    def spoilt(self: Any, batch: dict[str, Any]) -> dict[str, Any]:
        batch = preprocess(self, batch)
        for index, file in enumerate(batch["im_file"]):
            if Path(file).name == name:
                batch["img"][index, 0, 0, 0] = float("nan")
        return batch

    monkeypatch.setattr(DetectionValidator, "preprocess", spoilt)
    return name


def test_an_image_that_is_not_finite_in_fp32_either_is_named_and_training_goes_on(
    trainings, tmp_path, spoilt_image
):
    with half.half_precision() as passes:
        outcome = trainings(tmp_path / "run", train={"epochs": 3, "save_period": 1})
    assert outcome.code == 0, outcome.exit.text
    seen = [(i["incident"], i["epoch"], i["action"]) for i in outcome.incidents]
    assert seen == [("nan_validation", 1, "warned")]
    found = outcome.of("autopsy")
    assert len(found) == 1 and found[0]["cause"] == "broken_pixels"
    assert [Path(image["files"][0]).name for image in found[0]["evidence"]["images"]] == [spoilt_image]
    assert spoilt_image in found[0]["text"] and spoilt_image in outcome.incidents[0]["text"]
    assert len(outcome.of("saved")) == 3 and len(rows_of(outcome)) == 3
    assert precisions(outcome) == []
    assert passes.seen[:4] == [(1, "fp16"), (1, "fp32"), (2, "fp32"), (3, "fp32")]


def test_who_asked_for_an_end_on_suspicion_gets_it_and_nothing_is_saved(trainings, tmp_path, spoilt_image):
    outcome = trainings(tmp_path / "run", train={"epochs": 3}, ours={"on_suspicion": "end"})
    assert outcome.code == 77
    assert [(i["incident"], i["action"]) for i in outcome.incidents] == [("nan_validation", "ended")]
    assert outcome.of("saved") == [] and outcome.of("autopsy")[0]["cause"] == "broken_pixels"


def test_a_fitness_that_is_not_finite_is_never_the_best_for_good(trainings, tmp_path, monkeypatch):
    from ultralytics.engine.validator import BaseValidator

    stock = BaseValidator.__call__

    def sick(self: Any, trainer: Any = None, model: Any = None, **options: Any) -> Any:
        results = stock(self, trainer, model, **options)
        if trainer is not None and trainer.epoch < 2:
            results["fitness"] = float("nan")
        return results

    monkeypatch.setattr(BaseValidator, "__call__", sick)
    outcome = trainings(tmp_path / "run", train={"epochs": 4, "lr0": 0.01, "save_period": 1})
    assert outcome.code == 0
    best = [outcome.checkpoint(f"epoch{epoch}.pt")["best_fitness"] for epoch in range(4)]
    assert best[0] == best[1] == -math.inf
    assert best[3] >= best[2] >= 0
    assert outcome.checkpoint("epoch3.pt")["stopper"]["best_fitness"] == best[3]


def test_two_ranks_agree_on_the_second_pass(trainings, tmp_path, warm_python):
    request = {**trainings.common, "epochs": 3}
    write_request(tmp_path / "run", 1, request, devices=2)
    case = {"run": str(tmp_path / "run"), "number": 1, "overflows": [1, 2], "at_the_end": True}
    process = on_two_ranks([case], tmp_path / "log", warm_python, timeout=150)
    assert process.returncode == 0, (tmp_path / "log" / "log").read_text()[-3000:]
    first, second = (outcome_of(tmp_path / "run", 1, 0, rank) for rank in (0, 1))
    assert [one.exit.outcome for one in (first, second)] == ["finished"] * 2
    assert precisions(first) == [("fp32", 1), ("fp16", 3), ("fp32", None)] and precisions(second) == []
    assert all(math.isfinite(value) for row in rows_of(first) for value in row.values())
    assert first.incidents == []


SCRIPT = """
import sys
from ultralytics import YOLO
from nantui.worker.script.attach import attach
from tests.worker.half import half_precision

with half_precision({1}):
    attach(YOLO(sys.argv[1])).train(data=sys.argv[2], project=sys.argv[3], name="one", epochs=2, imgsz=64,
                                    batch=8, device="cpu", workers=0, plots=False)
"""


def test_an_attached_script_is_validated_again_as_well(trainings, tmp_path, warm_python):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    data = draw_data_set(tmp_path / "data", images=16)
    argv = [warm_python, str(script), str(trainings.model), str(data), str(tmp_path / "runs")]
    answer = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=240)
    assert answer.returncode == 0, answer.stderr[-2000:]
    outcome = outcome_of(tmp_path / "runs/one", 1, 0)
    assert precisions(outcome) == [("fp32", 1), ("fp16", 2)] and outcome.incidents == []
    assert all(math.isfinite(value) for row in rows_of(outcome) for value in row.values())
