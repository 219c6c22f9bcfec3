"""What the page about early warnings is made of: recorded trainings, and the guard's rules tried on them."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from benchmarks import lead_time_record as record
from benchmarks.diagnosis_cases import Case
from benchmarks.lead_time import HOPELESS, do_share, record_gradual, said_of_failures
from benchmarks.lead_time_figures import Seen, ended_at, sure, worth
from benchmarks.lead_time_page import KINDS
from benchmarks.lead_time_signals import every_score, growth, jump, warned
from benchmarks.lead_time_ways import Gradual
from nantui.worker.guard.anomaly import SPREAD_FLOOR, Growth, Trend

FORM = record.Recorded("a way-3", "a way", 3, 30, "here", "nan_loss", ("loss",), np.array([]), np.array([]))


def rows_of(losses: list[float]) -> np.ndarray:
    rows = np.full((len(losses), len(record.COLUMNS)), math.nan)
    rows[:, record.COLUMNS.index("loss")] = rows[:, record.COLUMNS.index("norm")] = losses
    return rows


def test_what_is_kept_of_a_training_is_what_was_seen(tmp_path: Path) -> None:
    rows = rows_of([1 / 3, 1e38, math.inf, -math.inf, math.nan, 400.0])
    record.write(tmp_path, replace(FORM, rows=rows, gaps=np.array([[0.5, math.nan]])))
    kept = record.read(record.path_of(tmp_path, FORM.name))
    assert replace(kept, rows=FORM.rows, gaps=FORM.gaps) == FORM
    np.testing.assert_allclose(kept.rows, rows, rtol=1e-4)
    np.testing.assert_array_equal(kept.gaps, [[0.5, math.nan]])


@pytest.mark.parametrize("seed", range(5))
def test_a_threshold_warns_where_the_guard_does(seed: int) -> None:
    dice = random.Random(seed)
    values = [math.exp(dice.gauss(0, 0.3)) for _ in range(1500)]
    for begin in (300, 700, 1100):
        for place in range(60):
            values[begin + place] *= 1.2**place
    trend = Trend(6.0)
    told = [step for step, value in enumerate(values) if trend.add(value) is not None]
    scores = np.array(jump(values, [SPREAD_FLOOR] * len(values)))
    assert len(told) >= 3 and warned(scores, 6.0).tolist() == told


@pytest.mark.parametrize("seed", range(3))
def test_so_does_the_one_for_statistics(seed: int) -> None:
    dice = random.Random(seed)
    values = [math.exp(dice.gauss(0, 1.0)) for _ in range(900)]
    for begin in (300, 600):
        for place in range(60):
            values[begin + place] *= 1.6**place
    rule = Growth()
    told = [step for step, value in enumerate(values) if rule.add(value)]
    [threshold] = KINDS["statistics_climbing"].values()
    assert len(told) >= 2 and warned(np.array(growth(values, [])), threshold).tolist() == told


def test_fp16_is_taken_as_ending_where_the_statistic_passes_its_end() -> None:
    rows = rows_of([1.0] * 90)
    rows[:, record.COLUMNS.index("statistics")] = np.geomspace(1, 1e9, 90)
    scores = {"peak": np.log10(np.geomspace(1, 1e9, 90))}
    one = Seen(replace(FORM, rows=rows, broke=""), scores)
    ended = ended_at(one, 1e7)
    assert (len(ended.one.rows), ended.one.broke, one.gradual, ended.gradual) == (71, "nan_loss", False, True)
    assert ended.lead({"peak": 4.0}) == 70 - 40 and ended_at(one, 1e10) is one
    healthy = Seen(replace(FORM, rows=rows, broke="", since=-1), scores)
    assert ended_at(healthy, 1e7) is healthy and not one.fp16


def test_how_sure_counts_what_broke_among_all_that_were_warned_of() -> None:
    calm, early, late = np.zeros(101), np.zeros(101), np.zeros(101)
    early[50], late[80], calm[20] = 9.0, 9.0, 9.0
    rows = rows_of([1.0] * 101)
    broke = [Seen(replace(FORM, rows=rows), {"loss": one}) for one in (early, late)]
    went_on = Seen(replace(FORM, rows=rows, broke=""), {"loss": early})
    healthy = Seen(replace(FORM, rows=rows, broke="", since=-1), {"loss": calm})
    said = sure([*broke, went_on, healthy], {"loss": 5.0}).said
    assert said == "2 of 4 broke, half within 35 steps; 1 warning in 191 healthy steps"


def test_a_warning_before_anything_is_wrong_is_for_nothing_and_the_first_after_it_counts() -> None:
    scores = np.zeros(101)
    scores[[10, 45, 70, 100]] = 9.0
    one = Seen(replace(FORM, rows=rows_of([1.0] * 101)), {"loss": scores})
    found = worth([one], {"loss": 5.0})
    assert (found.leads, found.false, found.steps, found.early) == ((55,), 1, 30, 1)
    assert worth([one], {"loss": 9.5}).leads == (0,)


def test_a_training_is_recorded_to_its_first_value_that_is_not_finite(tmp_path: Path) -> None:
    fault = {"fault": "nan_loss", "epoch": 1, "batch": 9}
    way = Gradual("a loss", Case("", "", 1, {"seed": 1}, faults=[fault]), since=4)
    record_gradual(way, "cpu", "here", tmp_path, math.inf, tmp_path / "run")
    one = record.read(record.path_of(tmp_path, way.name))
    assert (one.broke, one.since, len(one.rows)) == ("nan_loss", 4, 9)
    assert np.isfinite(one.column("loss")[:-1]).all()
    assert (one.columns("ratio")[:-1, :3] > 0).all() and (one.columns("activation")[:-1] > 0).all()
    assert all(len(scores) == len(one.rows) for scores in every_score(one).values())


def test_trainings_that_cannot_even_begin_are_said_and_end_a_share(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As on a machine without the device that was asked for."""
    ways = [Gradual("no device", Case("", "", seed, {"device": "7"}), since=0) for seed in range(9)]
    jobs = [(way.name, partial(record_gradual, way, "cpu", "here")) for way in ways]
    do_share(jobs, tmp_path, math.inf, tmp_path / "place")
    log = tmp_path / "log"
    log.write_text(capfd.readouterr().out)
    said = said_of_failures(log)
    assert len(said) == HOPELESS and not list(tmp_path.glob("*.npz"))
    assert said[0].startswith("no device-0: it ended before its first step: ") and "device" in said[0][40:]
