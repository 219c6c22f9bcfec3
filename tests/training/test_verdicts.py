"""When is it divergence, when a warning, and when nothing at all."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nantui.errors import UserError
from nantui.training.ends import Diverged
from nantui.training.judge import Judge, kind_of
from nantui.training.look import Look
from nantui.training.options import read_options
from nantui.training.verdicts import (
    EARLY_FLOOR,
    ENOUGH,
    SPREAD_FLOOR,
    Distribution,
    Explosion,
    Skips,
    Trend,
)

HEALTHY = Look(
    names=("box_loss",), losses=(1.0,), loss=1.0, zero_loss=False, norm=2.0, scale=None,
    bad_loss=False, bad_norm=False, bad_buffers=False, bad_targets=False, asked_to_stop=False, mine=False,
)  # fmt: skip


def judge(**ours: Any) -> tuple[Judge, list[Any], list[str]]:
    incidents: list[Any] = []
    warnings: list[str] = []
    made = Judge(read_options(ours), incidents.append, lambda kind, text, **evidence: warnings.append(kind))
    return made, incidents, warnings


def test_skips_in_a_row_are_divergence_one_beyond_the_limit():
    skips = Skips(3, 100, 1.0)
    assert [skips.add(True) is None for _ in range(4)] == [True, True, True, False]
    assert skips.add(False) is None and skips.add(True) is None


def test_a_large_share_of_skips_is_divergence_once_the_window_is_full():
    skips = Skips(100, 10, 0.3)
    verdicts = [skips.add(step % 2 == 0) for step in range(12)]
    assert verdicts[:9] == [None] * 9
    assert any(verdicts[9:])


def training_losses(steps: int, seed: int) -> list[float]:
    """Losses like a real run's: warm-up, decay, noise, a drop where mosaic closes and the rate falls."""
    dice = random.Random(seed)
    losses = []
    for step in range(steps):
        base = 2 + 8 * math.exp(-step / 150)
        base *= 0.75 if step > steps * 0.8 else 1.0
        base *= 0.85 if step > steps * 0.5 else 1.0
        losses.append(base * math.exp(dice.gauss(0, 0.25)))
    return losses


@pytest.mark.parametrize("seed", range(10))
def test_healthy_runs_raise_no_alarm(seed):
    made, incidents, warnings = judge()
    dice = random.Random(seed)
    for step, loss in enumerate(training_losses(3000, seed)):
        norm = 10 * loss * math.exp(dice.gauss(0, 0.4))
        made.healthy_batch(replace(HEALTHY, loss=loss, norm=norm), 1, step)
    assert incidents == [] and warnings == []


def test_an_exploding_loss_warns_first_and_then_ends():
    made, incidents, warnings = judge(loss_patience=20)
    losses = training_losses(300, 0) + [2.0 * 1.6**step for step in range(60)]
    with pytest.raises(Diverged):
        for step, loss in enumerate(losses):
            made.healthy_batch(replace(HEALTHY, loss=loss, norm=10 * loss), 1, step)
    assert warnings and incidents[-1].incident == "loss_exploded"
    assert incidents[-1].evidence["warned_steps_before"] > 10


def test_probation_is_more_suspicious():
    normal, suspicious = (Explosion(12.0, 20) for _ in range(2))
    for loss in training_losses(300, 1):
        normal.add(loss)
        suspicious.add(loss, 2.0)
    verdicts = [(normal.add(200.0)[1], suspicious.add(200.0, 2.0)[1]) for _ in range(10)]
    assert verdicts[-1] == (False, True)


def test_zero_losses_are_reported_at_once_and_end_after_some():
    made, incidents, _ = judge(max_consecutive_skips=3)
    made.healthy_batch(replace(HEALTHY, loss=0.0, zero_loss=True), 1, 1)
    assert [(i.incident, i.action) for i in incidents] == [("zero_loss", "observed")]
    with pytest.raises(Diverged):
        for step in range(2, 9):
            made.healthy_batch(replace(HEALTHY, loss=0.0, zero_loss=True), 1, step)


@pytest.mark.parametrize(("usual", "dead"), [(20.0, 1e-17), (20.0, 9e-6), (2829.0, 9e-4)])
def test_losses_that_are_practically_zero_end_like_zeros(usual, dead):
    made, incidents, _ = judge()
    for step in range(1, 31):
        made.healthy_batch(replace(HEALTHY, loss=usual), 1, step)
    with pytest.raises(Diverged):
        for step in range(31, 38):
            made.healthy_batch(replace(HEALTHY, loss=dead), 1, step)
    assert [(i.incident, i.action, i.step) for i in incidents] == [
        ("zero_loss", "observed", 31),
        ("zero_loss", "ended", 36),
    ]


def test_a_dead_network_is_known_right_after_a_resume():
    """There is no earlier level in that attempt."""
    made, incidents, _ = judge()
    with pytest.raises(Diverged):
        for step in range(1, 8):
            made.healthy_batch(replace(HEALTHY, loss=1e-17), 22, step)
    assert incidents[-1].step == 6


def test_losses_that_shrink_or_change_sign_are_not_zero():
    """A small data set learnt by heart, and a likelihood (pose with RLE) that passes zero."""
    made, incidents, _ = judge()
    for step in range(4000):
        made.healthy_batch(replace(HEALTHY, loss=3.0 * 0.995**step), 1, step)
    assert incidents == []
    made, incidents, _ = judge()
    for step in range(2000):
        made.healthy_batch(replace(HEALTHY, loss=3.0 - (step + 0.5) / 300), 1, step)
    assert incidents == []


def test_a_collapsed_loss_scale_ends_and_a_lone_overflow_is_nothing():
    made, incidents, _ = judge()
    overflow = replace(HEALTHY, norm=math.inf, scale=65536.0, bad_norm=True)
    assert kind_of(overflow) is None and kind_of(replace(overflow, bad_loss=True)) == "nan_loss"
    with pytest.raises(Diverged):
        made.healthy_batch(replace(HEALTHY, scale=0.5), 1, 1)
    assert incidents[-1].incident == "scale_collapsed"


def test_observing_ends_nothing():
    made, incidents, _ = judge(guard="observe", max_consecutive_skips=1)
    for step in range(5):
        made.healthy_batch(replace(HEALTHY, loss=0.0, zero_loss=True), 1, step)
    assert {i.action for i in incidents} == {"observed"} and len(incidents) == 2


def test_a_distribution_of_one_value_is_no_tripwire():
    seen = Distribution()
    for _ in range(100):
        seen.add(3.0)
    assert seen.score(3.3) < 1 and seen.score(300.0) > 12
    assert math.isnan(Distribution().typical) and Distribution().score(1.0) == 0.0


def test_a_trend_warns_once_an_episode():
    trend = Trend(6.0)
    for loss in training_losses(200, 2):
        trend.add(loss)
    assert [trend.add(1e6) is not None for _ in range(3)] == [True, False, False]


def test_wrong_settings_are_refused_in_one_line():
    for ours in ({"guard": "maybe"}, {"grad_clip": "much"}, {"grad_clip": -1}):
        with pytest.raises(UserError):
            read_options(ours)


@given(st.lists(st.floats(1e-6, 1e6), min_size=3, max_size=60), st.floats(1e-6, 1e6))
def test_a_score_is_the_distance_from_the_median_in_median_deviations(values, value):
    window = 25
    seen = Distribution(window)
    for one in values:
        seen.add(one)
    logs = [math.log(one) for one in values[-window:]]
    middle = median(logs)
    spread = 1.4826 * median(abs(log - middle) for log in logs)
    floor = SPREAD_FLOOR if len(logs) >= ENOUGH else EARLY_FLOOR
    assert seen.score(value) == pytest.approx((math.log(value) - middle) / max(spread, floor))
    assert seen.typical == pytest.approx(math.exp(middle))
