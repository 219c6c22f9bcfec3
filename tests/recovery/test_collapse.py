"""A training that died with finite numbers is known from results.csv, and a healthy one is not accused."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from nantui.recovery.candidates import Judge, choose, list_candidates
from nantui.recovery.collapse import EXPLODED, LOST, ZERO, first_collapse, quality
from nantui.recovery.signs import Reached, first_sign
from nantui.run.layout import RunLayout
from nantui.run.results import EpochRow
from tests.recovery import fakes

HEADER = (
    "epoch,time,train/box_loss,train/cls_loss,metrics/mAP50(B),metrics/mAP50-95(B),val/box_loss,val/cls_loss"
)


def row(epoch: int, train: float, val: float, metric: float = 0.0) -> EpochRow:
    values = {
        "train/box_loss": train / 2, "train/cls_loss": train / 2, "metrics/mAP50(B)": metric * 1.5,
        "metrics/mAP50-95(B)": metric, "val/box_loss": val / 2, "val/cls_loss": val / 2,
    }  # fmt: skip
    return EpochRow(epoch, epoch * 2.0, values, 0)


def rows(*epochs: tuple[float, ...]) -> list[EpochRow]:
    return [row(number, *epoch) for number, epoch in enumerate(epochs, start=1)]


def learning(count: int, best: float = 0.5) -> list[tuple[float, float, float]]:
    return [(10 * 0.97**n, 12 * 0.97**n, best * n / count) for n in range(count)]


def healthy(seed: int, count: int = 120) -> list[EpochRow]:
    """A noisy training: a slow start with mAP 0, bad epochs in warm-up, mosaic closing, a stumble."""
    dice = random.Random(seed)
    made = []
    for n in range(count):
        train = (4 + 8 * math.exp(-n / 20)) * (0.7 if n > count - 10 else 1) * math.exp(dice.gauss(0, 0.1))
        val = (4 + 10 * math.exp(-n / 15)) * math.exp(dice.gauss(0, 0.4))
        val *= 10 ** dice.uniform(0, 4) if n in (1, 2, 4) else 1
        metric = 0.0 if n < 8 or dice.random() < 0.1 else 0.6 * (1 - math.exp(-n / 40))
        made.append((train, val, metric))
    return rows(*made)


@pytest.mark.parametrize("seed", range(20))
def test_healthy_trainings_are_not_accused(seed: int) -> None:
    whole = healthy(seed)
    assert first_collapse(whole) is None
    assert [first_collapse(whole[:count]) for count in range(10, len(whole))] == [None] * (len(whole) - 10)


def test_what_a_living_training_may_do() -> None:
    """Never validated; overfitted; mAP 0 from the start; a validation loss that fp16 spoilt; a stumble."""
    assert first_collapse([]) is None
    assert first_collapse(rows(*[(3.0, 0.0)] * 20)) is None
    assert first_collapse(rows(*[(3 * 0.8**n, 0.5 * 1.2**n, 0.7) for n in range(25)])) is None
    assert first_collapse(rows(*[(9.0, 12.0)] * 30)) is None
    assert first_collapse(rows(*learning(30), *[(4.0, 5e6, 0.49)] * 5)) is None
    assert first_collapse(rows(*learning(30), (800.0, 5e6), (90.0, 4e3), (6.0, 7.0, 0.3))) is None
    assert first_collapse(rows(*learning(30), (4.0, 6.0, 0.0), (4.0, 6.0, 0.0))) is None


def test_validation_switched_off_is_no_loss_of_the_metrics() -> None:
    assert first_collapse(rows(*learning(30), *[(4.0, 0.0, 0.0)] * 10)) is None


def test_a_validation_loss_that_never_comes_back_is_the_beginning() -> None:
    """As seen with a learning rate of 1: the training losses took nine more epochs."""
    dead = rows((10, 17.7), (24, 1e5, 0.005), (23, 1.8e9, 0.0003), (15, 1.9e12), (2000, 0.0), (1e-17, 0.0))
    found = first_collapse(dead)
    assert found is not None and (found.epoch, found.kind) == (2, EXPLODED)
    assert found.text == "the validation losses are 1e+05 where 17.7 was usual, and did not come back"


def test_training_losses_of_zero_are_the_beginning() -> None:
    found = first_collapse(rows(*[(9.0, 12.0)] * 5, *[(1e-7, 12.0)] * 3))
    assert found is not None and (found.epoch, found.kind) == (6, ZERO)
    assert found.text == "all training losses are zero (1e-07 where 9 was usual)"
    alone = first_collapse(rows((1e-17, 0.0), (0.0, 0.0)))
    assert alone is not None and (alone.epoch, alone.text) == (1, "all training losses are zero (1e-17)")


def test_metrics_of_zero_for_good_are_the_beginning() -> None:
    found = first_collapse(rows(*learning(30), *[(5.0, 9.0, 0.0)] * 3))
    assert found is not None and (found.epoch, found.kind) == (31, LOST)
    assert found.text.startswith("the metrics fell to 0 for good, the best before was 0.48")


def test_the_deciding_metric_is_that_of_the_task() -> None:
    top1 = {"metrics/accuracy_top1": 0.4, "metrics/accuracy_top5": 0.9, "train/loss": 1.0}
    assert quality(EpochRow(1, 1.0, top1, 0)) == 0.4
    both = {"metrics/mAP50-95(B)": 0.2, "metrics/mAP50-95(M)": 0.4, "metrics/precision(B)": 0.9}
    assert quality(EpochRow(1, 1.0, both, 0)) == pytest.approx(0.3)
    assert quality(EpochRow(1, 1.0, {"metrics/delta1": 0.7}, 0)) == 0.7
    assert quality(EpochRow(1, 1.0, {}, 0)) == quality(EpochRow(1, 1.0, {"metrics/x": math.nan}, 0)) == 0.0


def test_the_restore_point_is_from_before_it_and_says_why(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    lines = ["1,1,5,5,0,0,8,9.7", "2,2,4,20,.02,.005,3,1e5", "3,3,4,9,0,0,4,1e9", "4,4,0,1e-17,0,0,0,0"]
    layout.results_csv.write_text("\n".join([HEADER, *lines]) + "\n")
    trouble = first_sign(layout)
    assert trouble is not None and (trouble.epoch, trouble.kind) == (2, EXPLODED)
    verdicts = [
        fakes.verdict(layout.weights / f"epoch{n}.pt", n, train_args={"epochs": 60}) for n in range(4)
    ]
    found = list_candidates(verdicts, Judge(trouble, Reached(4, 0, 1.0), 60))
    restore = choose(found)
    assert restore is not None and restore.name == "epoch0.pt"
    assert found[1].why_not == (
        "saved after the first sign of trouble (val_loss_exploded in epoch 2: the validation losses are "
        "1e+05 where 17.7 was usual, and did not come back)"
    )
