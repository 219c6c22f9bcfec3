"""Warned before it breaks: in time where a network runs away, never where it is well, alike on every rank."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.diagnosis_cases import Case, train
from benchmarks.lead_time_ways import each_step, scaled
from nantui.run.events import Warned, parse_lines
from nantui.run.incidents import EARLY_WARNINGS
from nantui.run.layout import RunLayout
from nantui.run.points import step_points
from nantui.ui.model.timeline import sentences
from nantui.worker.guard.anomaly import BEGINNING, CALM, GREW, GREW_FP16, Growth
from nantui.worker.guard.batch_probe import NO_WISHES, BatchProbe, probe_batch
from nantui.worker.guard.incident_policy import FOREWARNED, IncidentPolicy
from nantui.worker.options import read_options
from tests.worker.forked_ranks import on_forked_ranks
from tests.worker.runs import outcome_of

WELL = BatchProbe(("loss",), (1.0,), 1.0, False, 1.0, None, *[False] * 6)
RUNS_AWAY_FROM, SELDOM = 40, 3600.0
ROOT = Path(__file__).parents[3]


def runs_away(trainer: Any) -> None:
    """From one step on a convolution's weights are doubled before each batch; BatchNorm hides it."""
    each_step(scaled(2.0, lambda model: [model.model[1].conv.weight]), RUNS_AWAY_FROM)(trainer)


def trained(place: Path, at_start: Callable[[Any], None] | None, **ours: Any) -> Path:
    case = Case(
        "", "", 1, {"epochs": 7, "seed": 1, "save": False}, {"grad_clip": 10.0, **ours}, at_start=at_start
    )
    return train(case, place)


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("away") / "it", runs_away, step_points=SELDOM)


def test_a_network_that_runs_away_is_warned_of_long_before_it_breaks(broken: Path) -> None:
    told = outcome_of(broken, 1, 0)
    step_of = {(row.epoch, row.step): at for at, row in enumerate(told.steps)}
    warning = next(one for one in told.of("warning") if one["warning"] == "statistics_climbing")
    first = told.incidents[0]
    began, broke = (step_of[one["epoch"], one["step"]] for one in (warning, first))
    assert began >= RUNS_AWAY_FROM and broke - began >= 20
    assert first["incident"] == "nan_buffer" and first["evidence"]["warned_steps_before"] <= broke - began
    assert EARLY_WARNINGS["statistics_climbing"] in warning["text"]


def test_a_step_point_is_taken_on_a_warning_and_only_then(broken: Path) -> None:
    """By the clock none was due within this training."""
    told = outcome_of(broken, 1, 0)
    warned = {(one["epoch"], one["step"]) for one in told.of("warning")}
    places = [(row.epoch, row.step) for row in told.steps]
    [point] = step_points(RunLayout(broken))
    assert places[places.index((point.epoch, point.batch)) - 1] in warned


def test_the_same_training_without_its_fault_is_not_warned_of(tmp_path: Path) -> None:
    told = outcome_of(trained(tmp_path / "it", None, step_points=SELDOM), 1, 0)
    assert told.exit.outcome == "finished" and len(told.steps) == 112
    assert [one["warning"] for one in told.of("warning")] == []
    assert not step_points(RunLayout(tmp_path / "it" / "run"))


@pytest.mark.parametrize("begins_with", [0.9, 40.0, 3e8])
def test_what_a_network_begins_with_is_usual(begins_with: float) -> None:
    """Trained before, or with inputs of its own size: its statistics rise in the first batches."""
    growth, dice = Growth(), random.Random(0)
    values = [begins_with * min(1.0, (at + 1) / BEGINNING) for at in range(BEGINNING)]
    values += [begins_with * math.exp(dice.gauss(0, 1)) for _ in range(500)]
    assert not any(map(growth.add, values))
    assert [growth.add(2 * GREW * max(begins_with, 1.0)) for _ in range(3)] == [True, False, False]


def test_it_is_said_again_only_after_it_was_away_for_a_while() -> None:
    growth = Growth()
    low, high = 1.0, 2 * GREW
    values = [low] * BEGINNING + [high, low, high] + [low] * CALM + [high]
    assert [at for at, value in enumerate(values) if growth.add(value)] == [BEGINNING, len(values) - 1]


def test_a_restless_run_has_a_point_taken_seldom() -> None:
    points, warnings = [], []
    policy = IncidentPolicy(read_options({}), warnings.append, lambda kind, text, **_: warnings.append(kind))
    policy.keep_now = lambda: points.append(at)
    for at in range(4 * FOREWARNED):
        restless = 2 * GREW if at >= BEGINNING and at % (CALM + 2) == 0 else 1.0
        policy.healthy_batch(replace(WELL, statistics=restless), 1, at)
    assert len(warnings) > 50 and set(warnings) == {"statistics_climbing"}
    apart = [later - sooner for sooner, later in zip(points, points[1:], strict=False)]
    assert len(points) == 4 and min(apart) >= FOREWARNED


def test_under_fp16_which_ends_sooner_it_comes_sooner() -> None:
    for scale, grew in ((None, GREW), (512.0, GREW_FP16)):
        said: list[tuple[str, str]] = []
        policy = IncidentPolicy(
            read_options({}), print, lambda kind, text, into=said, **_: into.append((kind, text))
        )
        for at in range(BEGINNING + 2):
            largest = 1.0 if at < BEGINNING else grew * (0.9 if at == BEGINNING else 1.1)
            policy.healthy_batch(replace(WELL, statistics=largest, scale=scale), 1, at)
            assert bool(said) == (at > BEGINNING)
        [(kind, text)] = said
        under = ", fp16" if scale else ""
        assert kind == "statistics_climbing" and text.endswith(EARLY_WARNINGS[f"{kind}{under}"])


def test_a_warning_is_a_sign_that_keeps_the_point_from_before_it() -> None:
    policy = IncidentPolicy(read_options({}), print, lambda *_, **__: None)
    for at in range(BEGINNING + 5):
        policy.healthy_batch(replace(WELL, statistics=2 * GREW if at > BEGINNING else 1.0), 1, at)
    assert policy.in_trouble and policy.first_sign == (1, BEGINNING + 1)


def seen_by(statistics: list[list[float]], rank: int) -> list[tuple[float, float, bool]]:
    one = torch.tensor(1.0 + rank)
    probes = [
        probe_batch(("loss",), [one], one, torch.tensor(own[rank]), [], None, None, NO_WISHES).read()
        for own in statistics
    ]
    return [(probe.statistics, probe.loss, probe.bad_buffers) for probe in probes]


def test_ranks_agree_on_the_largest_statistic(tmp_path: Path) -> None:
    """Statistics are each rank's own; a warning must come on all of them or on none."""
    statistics = [[3.0, 5e8], [7e9, 2.0], [math.nan, 4.0], [1.0, math.inf]]
    answers = on_forked_ranks(partial(seen_by, statistics), tmp_path / "store")
    assert answers[0] == answers[1]
    assert answers[0] == [(5e8, 2.0, False), (7e9, 2.0, False), (4.0, 2.0, True), (1.0, 2.0, True)]


def test_what_is_said_of_a_warning_is_what_was_measured() -> None:
    page = (ROOT / "docs" / "lead-time.md").read_text()
    assert EARLY_WARNINGS and all(f"- `{kind}`: {said}\n" in page for kind, said in EARLY_WARNINGS.items())


def test_a_journal_with_the_kind_of_before_is_still_read() -> None:
    line = {"t": 1.0, "kind": "warning", "rank": 0, "warning": "gradient_climbing", "epoch": 1, "step": 2,
            "text": "gradient norm 7 where at most 1 was usual", "evidence": {"score": 9.0}}  # fmt: skip
    [event] = parse_lines([json.dumps(line)])
    assert isinstance(event, Warned) and event.warning == "gradient_climbing"
    [said] = sentences([], [event])
    assert line["text"] in said.text
