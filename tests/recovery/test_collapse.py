"""What finite numbers say of a training is a judgement: it accuses no healthy one, and it never decides."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from nantui.recovery.restore_points import RestoreCriteria, choose, list_candidates
from nantui.recovery.trouble import (
    EXPLODED,
    LASTING,
    LOST,
    ZERO,
    first_trouble,
    judge_numbers,
    proven_ruin,
    quality,
)
from nantui.run.layout import RunLayout
from nantui.run.record import Reached, RunRecord
from nantui.run.results import EpochRow, current, read_results
from tests.recovery import fakes

DATA = Path(__file__).parent / "data"
HEALTHY = sorted((DATA / "healthy").glob("*.csv"))
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


@pytest.mark.parametrize("path", HEALTHY, ids=lambda path: path.stem)
def test_real_healthy_trainings_are_accused_at_no_epoch(path: Path) -> None:
    """Whatever the epoch at which somebody looks; one of them lost nearly all its metrics twice."""
    whole = current(read_results(path))
    assert max(map(quality, whole)) > 0.1, "it did learn"
    looks = [whole[:count] for count in range(1, len(whole) + 1)]
    assert [judge_numbers(rows) for rows in looks] == [None] * len(whole)
    everywhere = {row.epoch for row in whole}
    assert [proven_ruin(rows, everywhere) for rows in looks] == [None] * len(whole)


@pytest.mark.parametrize("seed", range(20))
def test_healthy_trainings_are_not_accused(seed: int) -> None:
    whole = healthy(seed)
    assert [judge_numbers(whole[:count]) for count in range(1, len(whole))] == [None] * (len(whole) - 1)


def test_a_network_that_never_learned_has_nothing_to_go_back_to() -> None:
    """AdamW at 0.03: dead from epoch 3 on, with finite numbers."""
    assert judge_numbers(read_results(DATA / "never-learned.csv")) is None
    assert judge_numbers(rows((10, 17.7), (24, 1e5, 0.005), *[(15, 1.9e12)] * 30)) is None
    assert judge_numbers(rows((1e-17, 0.0), *[(0.0, 0.0)] * 30)) is None


def test_a_real_training_whose_rate_went_wild_is_judged_from_the_first_dead_epoch() -> None:
    """Learned up to epoch 22, then lr 1: losses of zero. It is no proof, for no validation was worse."""
    whole = read_results(DATA / "ruined.csv")
    found = judge_numbers(whole)
    assert found is not None and (found.epoch, found.kind) == (23, ZERO)
    assert proven_ruin(whole, range(1, 41)) is None


def test_what_a_living_training_may_do() -> None:
    """Never validated; overfitted; mAP 0 from the start; a validation loss that fp16 spoilt; a stumble;
    losses of zero beside perfect metrics.
    """
    assert judge_numbers([]) is None
    assert judge_numbers(rows(*[(3.0, 0.0)] * 20)) is None
    assert judge_numbers(rows(*[(3 * 0.8**n, 0.5 * 1.2**n, 0.7) for n in range(25)])) is None
    assert judge_numbers(rows(*[(9.0, 12.0)] * 30)) is None
    assert judge_numbers(rows(*learning(30), *[(4.0, 5e6, 0.49)] * 15)) is None
    assert judge_numbers(rows(*learning(30), *lost(20), (6.0, 7.0, 0.3))) is None
    assert judge_numbers(rows(*learning(30), *lost(LASTING - 1))) is None
    assert judge_numbers(rows(*learning(30), *[(0.0, 0.0, 1.0)] * 20)) is None


def test_validation_switched_off_is_no_loss_of_the_metrics() -> None:
    assert judge_numbers(rows(*learning(30), *[(4.0, 0.0, 0.0)] * 20)) is None


def lost(count: int, val: float = 9.0) -> list[tuple[float, float, float]]:
    """Epochs with metrics of 0, each validated anew."""
    return [(5.0, val + n / 100, 0.0) for n in range(count)]


def test_metrics_that_are_gone_for_good() -> None:
    found = judge_numbers(rows(*learning(30), *lost(LASTING)))
    assert found is not None and (found.epoch, found.kind) == (31, LOST)
    assert found.named == (
        "before the metrics were lost; a judgement, no proof: the metrics fell to 0 for good, the best "
        "before was 0.483 (from epoch 31 on)"
    )


def test_one_network_validated_many_times_counts_once() -> None:
    """With few steps an epoch the averaged network does not change between validations."""
    assert judge_numbers(rows(*learning(30), *[(5.0, 9.0, 0.0)] * 40)) is None


def test_validation_losses_that_never_come_back() -> None:
    found = judge_numbers(rows(*learning(30), *[(8.0, 1e5 + n, 0.1) for n in range(LASTING)]))
    assert found is not None and (found.epoch, found.kind) == (31, EXPLODED)
    assert found.text == "the validation losses are 1e+05 where 7.72 was usual, and did not come back"


def test_training_losses_of_zero() -> None:
    found = judge_numbers(rows(*learning(30), *[(1e-7, 12.0, 0.1)] * LASTING))
    assert found is not None and (found.epoch, found.kind) == (31, ZERO)
    assert found.text == "all training losses are zero (1e-07 where 6.43 was usual)"


def resumed_at(epoch: int, made: list[EpochRow]) -> list[EpochRow]:
    """The clock of results.csv begins again at a resume."""
    return [EpochRow(r.epoch, r.seconds - 2.0 * (epoch - 1) * (r.epoch >= epoch), r.values, 0) for r in made]


def restarted_at(epoch: int, made: list[EpochRow]) -> list[EpochRow]:
    """The learning rate rises once more."""
    rates = {r.epoch: 0.01 * 0.9 ** ((r.epoch - epoch) % 40) for r in made}
    return [EpochRow(r.epoch, r.seconds, {**r.values, "lr/pg0": rates[r.epoch]}, 0) for r in made]


def test_epochs_in_which_a_training_settles_are_no_evidence() -> None:
    """A resume, a rate that rises, mosaic being closed: five epochs more must pass."""
    few, more = rows(*learning(30), *lost(LASTING)), rows(*learning(30), *lost(LASTING + 5))
    assert judge_numbers(few) is not None
    for unsettled in (resumed_at, restarted_at):
        assert judge_numbers(unsettled(31, few)) is None
        found = judge_numbers(unsettled(31, more))
        assert found is not None and found.epoch == 31
    assert judge_numbers(few, mosaic_closes=33) is None and judge_numbers(more, mosaic_closes=33) is not None


def test_the_deciding_metric_is_that_of_the_task() -> None:
    top1 = {"metrics/accuracy_top1": 0.4, "metrics/accuracy_top5": 0.9, "train/loss": 1.0}
    assert quality(EpochRow(1, 1.0, top1, 0)) == 0.4
    both = {"metrics/mAP50-95(B)": 0.2, "metrics/mAP50-95(M)": 0.4, "metrics/precision(B)": 0.9}
    assert quality(EpochRow(1, 1.0, both, 0)) == pytest.approx(0.3)
    assert quality(EpochRow(1, 1.0, {"metrics/delta1": 0.7}, 0)) == 0.7
    assert quality(EpochRow(1, 1.0, {}, 0)) == quality(EpochRow(1, 1.0, {"metrics/x": math.nan}, 0)) == 0.0


BN_LAGS = (
    "1,1,4.77,3.13,0,0,6.85,4.32", "2,2,4.33,3.23,.0007,.00046,4.40,3.72",
    "3,3,4.13,2.54,.001,.00074,3.92,1.13e6",
    "4,4,3.67,1.93,.001,.00085,3.66,68893", "5,5,3.61,1.91,.003,.00171,3.34,36845",
    "6,6,3.45,1.76,.01,.00656,3.42,141891", "7,7,3.37,1.72,.001,.00051,3.76,84886",
)  # fmt: skip
"""A healthy young training whose averaged BatchNorm statistics lag behind (measured)."""


@pytest.mark.parametrize("how", ["results", "corrupt file"])
def test_a_rollback_goes_to_the_newest_clean_epoch(tmp_path: Path, how: str) -> None:
    layout = RunLayout(tmp_path)
    planted = "8,8,3.10,1.76,0,0,nan,nan"
    layout.results_csv.write_text("\n".join([HEADER, *BN_LAGS, planted]) + "\n")
    assert judge_numbers(current(read_results(layout.results_csv))) is None
    trouble = first_trouble(RunRecord(layout), [8] if how == "corrupt file" else [])
    assert trouble is not None and trouble.epoch == 8
    verdicts = [
        fakes.verdict(
            layout.weights / f"epoch{n}.pt", n, "corrupt" if n == 7 else "clean", train_args={"epochs": 60}
        )
        for n in range(8)
    ]
    restore = choose(list_candidates(verdicts, RestoreCriteria(trouble, Reached(8, 0, 1.0), 60)))
    assert restore is not None and restore.work == 7


def test_a_judgement_is_no_sign_of_trouble_and_its_restore_point_is_from_before_it(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    made = rows(*learning(30), *lost(LASTING))
    names = HEADER.split(",")[2:]
    lines = [",".join(map(str, (r.epoch, r.seconds, *(r.values[name] for name in names)))) for r in made]
    layout.results_csv.write_text("\n".join([HEADER, *lines]) + "\n")
    assert first_trouble(RunRecord(layout)) is None
    found = judge_numbers(current(read_results(layout.results_csv)))
    assert found is not None
    files = [fakes.verdict(layout.weights / f"epoch{n}.pt", n, train_args={"epochs": 60}) for n in range(40)]
    candidates = list_candidates(files, RestoreCriteria(None, Reached(40, 0, 1.0), 60))
    assert choose(candidates).work == 40  # type: ignore[union-attr]
    assert choose(candidates, found.epoch).work == 30  # type: ignore[union-attr]
