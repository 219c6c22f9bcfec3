"""When is it divergence, when a warning, and when nothing at all."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nantui.errors import UserError
from nantui.run.incidents import INCIDENTS, SUSPICIONS
from nantui.worker.guard.anomaly import (
    CALM,
    LAG,
    NEARLY_ALL,
    SPREAD_CEILING,
    SPREAD_FLOOR,
    WINDOW,
    WORSE,
    Distribution,
    Explosion,
    Skips,
    Trend,
)
from nantui.worker.guard.batch_probe import BatchProbe
from nantui.worker.guard.incident_policy import IncidentPolicy, incident_kind
from nantui.worker.incident import TrainingDiverged
from nantui.worker.options import read_options

HEALTHY = BatchProbe(
    names=("box_loss", "cls_loss"), losses=(0.5, 0.5), loss=1.0, zero_loss=False, norm=2.0, scale=None,
    bad_loss=False, bad_norm=False, bad_buffers=False, bad_targets=False, asked_to_stop=False, mine=False,
)  # fmt: skip


ASKED = {"on_suspicion": "end"}


def incident_policy(**ours: Any) -> tuple[IncidentPolicy, list[Any], list[str]]:
    incidents: list[Any] = []
    warnings: list[str] = []
    made = IncidentPolicy(
        read_options(ours), incidents.append, lambda kind, text, **evidence: warnings.append(kind)
    )
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
    made, incidents, warnings = incident_policy()
    dice = random.Random(seed)
    for step, loss in enumerate(training_losses(3000, seed)):
        norm = 10 * loss * math.exp(dice.gauss(0, 0.4))
        made.healthy_batch(replace(HEALTHY, loss=loss, norm=norm), 1, step)
    assert incidents == [] and warnings == []


def test_an_exploding_loss_warns_first_and_then_ends_where_that_was_asked_for():
    made, incidents, warnings = incident_policy(loss_patience=20, **ASKED)
    losses = training_losses(300, 0) + [2.0 * 1.6**step for step in range(60)]
    with pytest.raises(TrainingDiverged):
        for step, loss in enumerate(losses):
            made.healthy_batch(replace(HEALTHY, loss=loss, norm=10 * loss), 1, step)
    assert warnings and incidents[-1].incident == "loss_exploded"
    assert incidents[-1].evidence["warned_steps_before"] > 10


def follow(losses: Sequence[float], **ours: Any) -> list[tuple[int, str]]:
    """Return (step from 0, kind) of what is said about a detector's finite losses; incidents as `!kind`."""
    said: list[tuple[int, str]] = []
    made = IncidentPolicy(
        read_options(ours),
        lambda incident: said.append((step, f"!{incident.incident}")),
        lambda kind, text, **evidence: said.append((step, kind)),
    )
    for step, loss in enumerate(losses):
        made.healthy_batch(replace(HEALTHY, loss=loss, norm=None), 1, step)
    return said


def test_a_loss_that_explodes_is_said_once_with_its_evidence_and_the_training_goes_on():
    said: list[tuple[str, str, dict[str, Any]]] = []
    made = IncidentPolicy(
        read_options({}), said.append, lambda kind, text, **more: said.append((kind, text, more))
    )
    losses = training_losses(300, 0) + [5000.0] * 150
    for step, loss in enumerate(losses):
        made.healthy_batch(replace(HEALTHY, loss=loss), 1 + step // 100, 1 + step % 100)
    kinds = [kind for kind, *_ in said]
    assert kinds == ["loss_climbing", "loss_exploded"]
    _, text, evidence = said[-1]
    assert evidence["loss"] == 5000 > 100 * evidence["usual"] and evidence["since"] == [4, 1]
    assert "the training goes on" in text and "since epoch 4 step 1" in text


def test_an_explosion_that_is_over_is_forgotten_and_the_next_one_is_said_again():
    usual = training_losses(300, 0)
    quiet = [2.0] * (CALM + 1)
    said = follow([*usual, *[5000.0] * 30, *quiet, *[5000.0] * 30])
    assert [kind for _, kind in said].count("loss_exploded") == 2
    flapping = [*usual, *([5000.0] * 25 + [2.0]) * 5]
    assert [kind for _, kind in follow(flapping)].count("loss_exploded") == 1


def test_what_lasts_is_usual_from_then_on_and_said_no_more():
    """Another data set in a new phase, say: the level is another one, and the training is well."""
    said = follow([*training_losses(300, 0), *[400.0 * loss for loss in training_losses(3000, 1)]])
    assert [kind for _, kind in said] == ["loss_climbing", "loss_exploded"]
    assert max(step for step, _ in said) < 300 + WINDOW


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("low", [24, 60, 150])
def test_a_young_network_that_begins_to_assign_boxes_is_left_alone(low, seed):
    """Measured: 40 images, three batches an epoch, near 0.6 for eight epochs, 1.6 to 8 from then on."""
    dice = random.Random(seed)
    early = [0.62 * math.exp(dice.gauss(0, 0.15)) for _ in range(low)]
    later = [dice.uniform(1.6, 8.2) for _ in range(400)]
    said = follow([*early, *later])
    assert said == []


@pytest.mark.parametrize("share", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("seed", range(5))
def test_batches_without_objects_are_no_calm_before_a_storm(share, seed):
    """Batch 2 of sparse images: most losses are next to nothing, a few of them are a hundred times larger."""
    dice = random.Random(seed)
    losses = [
        dice.uniform(2, 9) if dice.random() < share else 0.1 * math.exp(dice.gauss(0, 0.1))
        for _ in range(3000)
    ]
    assert len(follow(losses)) <= 1


def test_a_classifier_that_is_right_and_sure_is_not_dead():
    """Its cross-entropy is exactly 0 in most batches, and now and then it is not."""
    dice = random.Random(0)
    alone = {"names": ("loss",), "norm": None}
    made, incidents, warnings = incident_policy(**ASKED)
    for step in range(600):
        loss = 0.7 * 0.9**step if dice.random() < 0.3 or step < 40 else 0.0
        loss = 0.01 if step % 97 == 96 else loss
        made.healthy_batch(replace(HEALTHY, loss=loss, zero_loss=loss == 0, **alone), 1, step)
    assert incidents == [] and warnings == []


@pytest.mark.parametrize("growth", [1.002, 1.02, 1.1, 1.6])
def test_a_loss_that_drifts_away_is_said_before_it_is_worse_than_untrained(growth):
    learnt = training_losses(1000, 3)
    said = follow([*learnt, *[learnt[-1] * growth**step for step in range(1200)]])
    exploded = [step - 1000 for step, kind in said if kind == "loss_exploded"]
    assert exploded and learnt[-1] * growth ** (exploded[0] - 20) < 2 * WORSE * max(learnt[-200:])


def test_a_loss_scale_that_keeps_sinking_is_said_once_though_no_step_is_finite():
    made, incidents, warnings = incident_policy()
    for power in range(16, -16, -1):
        made.watch_scale(replace(HEALTHY, norm=math.inf, bad_norm=True, scale=2.0**power), 1, 20 - power)
    assert incidents == [] and warnings == ["scale_collapsed"]
    made.watch_scale(replace(HEALTHY, scale=2.0), 1, 40)
    made.watch_scale(replace(HEALTHY, scale=0.5), 1, 41)
    assert warnings == ["scale_collapsed"] * 2


def test_a_dead_network_is_said_once_and_trains_on():
    said = follow([*training_losses(300, 0), *[0.0] * 200])
    assert said == [(300, "zero_batch"), (305, "zero_loss")]


def test_every_suspicion_says_what_may_be_done():
    assert {"loss_exploded", "zero_loss", "scale_collapsed"} == SUSPICIONS
    assert all(INCIDENTS[kind].said and INCIDENTS[kind].advice for kind in SUSPICIONS)


def test_probation_only_warns_earlier_also_where_an_end_was_asked_for():
    ends = []
    for suspicion in (1.0, 2.0):
        made, _, _ = incident_policy(**ASKED)
        made.suspicion = suspicion
        with pytest.raises(TrainingDiverged) as ended:
            for step, loss in enumerate(training_losses(300, 1) + [5000.0] * 30):
                made.healthy_batch(replace(HEALTHY, loss=loss), 1, step)
        ends.append(ended.value.incident.step)
    assert ends[0] == ends[1]


def test_probation_is_more_suspicious():
    normal, suspicious = (Explosion(12.0, 20) for _ in range(2))
    for loss in training_losses(300, 1):
        normal.add(loss)
        suspicious.add(loss, 2.0)
    verdicts = [(normal.add(200.0)[1], suspicious.add(200.0, 2.0)[1]) for _ in range(10)]
    assert verdicts[-1] == (False, True)


def test_zero_losses_are_reported_at_once_and_end_after_some_where_that_was_asked_for():
    made, incidents, warnings = incident_policy(max_consecutive_skips=3, **ASKED)
    made.healthy_batch(replace(HEALTHY, loss=0.0, zero_loss=True), 1, 1)
    assert incidents == [] and warnings == ["zero_batch"]
    with pytest.raises(TrainingDiverged):
        for step in range(2, 9):
            made.healthy_batch(replace(HEALTHY, loss=0.0, zero_loss=True), 1, step)


@pytest.mark.parametrize(("usual", "dead"), [(20.0, 1e-17), (20.0, 9e-6), (2829.0, 9e-4)])
def test_losses_that_are_practically_zero_end_like_zeros(usual, dead):
    made, incidents, warnings = incident_policy(**ASKED)
    for step in range(1, 31):
        made.healthy_batch(replace(HEALTHY, loss=usual), 1, step)
    with pytest.raises(TrainingDiverged):
        for step in range(31, 38):
            made.healthy_batch(replace(HEALTHY, loss=dead), 1, step)
    assert warnings == ["zero_batch"]
    assert [(i.incident, i.action, i.step) for i in incidents] == [("zero_loss", "ended", 36)]


def test_a_dead_network_is_known_right_after_a_resume():
    """There is no earlier level in that attempt."""
    made, incidents, _ = incident_policy(**ASKED)
    with pytest.raises(TrainingDiverged):
        for step in range(1, 8):
            made.healthy_batch(replace(HEALTHY, loss=1e-17), 22, step)
    assert incidents[-1].step == 6


def test_losses_that_shrink_or_change_sign_are_not_zero():
    """A small data set learnt by heart, and a likelihood (pose with RLE) that passes zero."""
    made, incidents, warnings = incident_policy(**ASKED)
    for step in range(4000):
        made.healthy_batch(replace(HEALTHY, loss=3.0 * 0.995**step), 1, step)
    assert incidents == [] and warnings == []
    made, incidents, warnings = incident_policy(**ASKED)
    for step in range(2000):
        made.healthy_batch(replace(HEALTHY, loss=3.0 - (step + 0.5) / 300), 1, step)
    assert incidents == [] and warnings == []


def test_a_collapsed_loss_scale_ends_and_a_lone_overflow_is_nothing():
    made, incidents, _ = incident_policy(**ASKED)
    overflow = replace(HEALTHY, norm=math.inf, scale=65536.0, bad_norm=True)
    assert incident_kind(overflow) is None and incident_kind(replace(overflow, bad_loss=True)) == "nan_loss"
    with pytest.raises(TrainingDiverged):
        made.healthy_batch(replace(HEALTHY, scale=0.5), 1, 1)
    assert incidents[-1].incident == "scale_collapsed"


def test_observing_ends_nothing():
    made, incidents, warnings = incident_policy(guard="observe", max_consecutive_skips=1, **ASKED)
    for step in range(5):
        made.healthy_batch(replace(HEALTHY, loss=0.0, zero_loss=True), 1, step)
    assert incidents == [] and warnings == ["zero_batch", "zero_loss"]


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
    for ours in ({"guard": "maybe"}, {"on_suspicion": "panic"}, {"grad_clip": "much"}, {"grad_clip": -1}):
        with pytest.raises(UserError):
            read_options(ours)


@given(
    st.lists(st.floats(1e-6, 1e6), min_size=3, max_size=90),
    st.floats(1e-6, 1e6),
    st.sampled_from((0.5, NEARLY_ALL, 1.0)),
)
def test_a_score_is_the_distance_from_the_upper_end_in_median_deviations(values, value, share):
    window = 25
    seen = Distribution(share, window)
    for one in values:
        seen.add(one)
    known = values[: max(LAG, len(values) - LAG)]
    logs = [math.log(one) for one in known[-window:]]
    middle = median(logs)
    spread = max(1.4826 * median(abs(log - middle) for log in logs), SPREAD_FLOOR)
    upper = sorted(logs)[math.ceil(share * len(logs)) - 1]
    above = max(math.log(value) - upper, 0.0)
    assert seen.score(value) == pytest.approx(above / min(spread, SPREAD_CEILING))
    assert seen.highest == pytest.approx(math.exp(upper))
    assert seen.typical == pytest.approx(math.exp(middle))
