"""Two ranks agree on every decision, and nobody waits for a rank that is gone."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from nantui.run.layout import RunLayout
from tests.worker.equality import differences
from tests.worker.runs import Outcome, Trainings, on_two_ranks, outcome_of, write_request

SHORT = {"epochs": 2}
ACCUMULATED = {"nbs": 16, "warmup_epochs": 0.0}
CASES: dict[str, dict[str, Any]] = {
    "stopped": {},
    "save_fails": {"faults": [{"fault": "save_failure", "epoch": 1}]},
    "last_save_fails": {"faults": [{"fault": "save_failure", "epoch": 2}]},
    "stalled": {"faults": [{"fault": "slow_step", "rank": 1, "epoch": 1, "batch": 2, "seconds": 3.0}]},
    "averaged_weights": {"faults": [{"fault": "nan_ema", "epoch": 2, "batch": 4}]},
    "asking": {},
    "too_many": {"faults": [{"fault": "nan_pixel", "rank": 1, "batch": 1, "times": 4}]},
}
SCALED = {"scaled": {"faults": [{"fault": "nan_gradient", "rank": 1, "epoch": 1, "batch": 2}]}}
if hasattr(torch.amp, "GradScaler"):  # torch 2.3 has none for the CPU
    CASES |= SCALED


@pytest.fixture(scope="module")
def outcomes(
    trainings: Trainings, warm_python: str, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, list[Outcome]]:
    place = tmp_path_factory.mktemp("ranks")
    for name, request in CASES.items():
        ours = {"max_consecutive_skips": 2}
        train = {**trainings.common, **SHORT, **(ACCUMULATED if name == "asking" else {})}
        write_request(place / name, 1, train, devices=2, ours=ours, **request)
    RunLayout(place / "stopped").stop_request(1).write_text(json.dumps({"id": "x", "t": 0.0, "by": "test"}))
    requests: list[dict[str, Any]] = [
        {
            "run": str(place / name),
            "number": 1,
            "stalled_after": 1.0,
            "scaled": name in SCALED,
            "asking": name == "asking",
        }
        for name in CASES
    ]
    for name in SCALED.keys() & CASES:
        requests[[*CASES].index(name)]["spy"] = {"end": str(place / "at.end"), "workers": 0}
    process = on_two_ranks(requests, place / "log", warm_python)
    assert process.returncode == 0, (place / "log" / "log").read_text()[-3000:]
    return {name: [outcome_of(place / name, 1, 0, rank) for rank in (0, 1)] for name in CASES}


def endings(outcomes: list[Outcome]) -> list[tuple[str, int]]:
    return [(outcome.exit.outcome, outcome.exit.code) for outcome in outcomes]


def test_a_callback_that_asks_the_other_rank_finds_it_at_the_same_question(outcomes):
    """Also in a batch without a step, which rank 0 looks at before, for its progress line."""
    assert endings(outcomes["asking"]) == [("finished", 0)] * 2
    steps = outcomes["asking"][0].steps
    assert [math.isnan(step.value("grad_norm")) for step in steps[:4]] == [True, False, True, False]


def test_a_stop_is_taken_by_both_at_the_same_step(outcomes):
    first, second = (outcome.exit for outcome in outcomes["stopped"])
    assert endings(outcomes["stopped"]) == [("stopped", 70)] * 2
    assert (first.epoch, first.step) == (second.epoch, second.step)
    assert first.checkpoint == "weights/nantui_stop.pt" and second.checkpoint is None


def test_a_failed_save_costs_the_file_and_not_the_run(outcomes):
    assert endings(outcomes["save_fails"]) == [("finished", 0)] * 2
    failed = outcomes["save_fails"][0].of("save_failed")
    assert len(failed) == 1 and "No space left" in failed[0]["text"]


def test_a_lost_last_checkpoint_fails_the_run_on_both_and_leaves_the_one_before(outcomes):
    assert endings(outcomes["last_save_fails"]) == [("failed", 1)] * 2
    assert outcomes["last_save_fails"][0].checkpoint("last.pt")["epoch"] == 0


def test_a_rank_that_hangs_is_named_by_both_sides(outcomes):
    assert endings(outcomes["stalled"]) == [("finished", 0)] * 2
    stalls = [outcome.of("warning") for outcome in outcomes["stalled"]]
    assert all([w["warning"] for w in found] == ["stalled"] for found in stalls)
    assert any("_disturb" in line for line in stalls[1][0]["evidence"]["stack"])


def test_one_rank_with_bad_averaged_weights_ends_both_without_a_save(outcomes):
    assert endings(outcomes["averaged_weights"]) == [("diverged", 77)] * 2
    assert outcomes["averaged_weights"][0].incidents[-1]["incident"] == "nan_ema"
    assert outcomes["averaged_weights"][0].checkpoint("last.pt")["epoch"] == 0


def test_bad_batches_on_one_rank_end_both(outcomes):
    assert endings(outcomes["too_many"]) == [("diverged", 77)] * 2
    skipped, ended = outcomes["too_many"][0].incidents[0], outcomes["too_many"][0].incidents[-1]
    assert skipped["evidence"]["ranks"] == [1] and skipped["evidence"]["cause"] == "broken_pixels"
    assert ended["incident"] == "too_many_skips" and ended["step"] == 3
    assert len(skipped["evidence"]["files"]) == 4


@pytest.mark.skipif("scaled" not in CASES, reason="this PyTorch has no GradScaler for the CPU")
def test_a_step_that_one_ranks_scaler_refuses_is_refused_by_all(outcomes):
    """A gradient that is bad after the all-reduce: GradScaler looks at its own rank alone."""
    both = outcomes["scaled"]
    assert endings(both) == [("finished", 0)] * 2
    assert [(s.epoch, s.step) for s in both[0].steps if s.skipped] == [(1, 2)]
    assert both[0].incidents == [] and {s.value("loss_scale") for s in both[0].steps[2:]} == {4.0}
    place = both[0].run.parent / "at.end"
    ends = [torch.load(place.with_suffix(f".rank{rank}"), weights_only=False) for rank in (0, 1)]
    unlike = differences(*({key: end[key] for key in ("weights", "optimizer")} for end in ends))
    assert [name for name in unlike if "running_" not in name] == []


def test_a_killed_rank_takes_the_other_with_it(trainings: Trainings, warm_python: str, tmp_path: Path):
    fault = {"fault": "kill", "rank": 1, "epoch": 2, "batch": 2}
    write_request(tmp_path / "run", 1, {**trainings.common, **SHORT}, devices=2, faults=[fault])
    cases = [{"run": str(tmp_path / "run"), "number": 1}]
    process = on_two_ranks(cases, tmp_path / "log", warm_python, timeout=120)
    first, second = (outcome_of(tmp_path / "run", 1, 1, rank) for rank in (0, 1))
    assert process.returncode != 0
    assert second.exit is None
    assert first.exit is None or first.exit.outcome == "failed"
    assert first.checkpoint("last.pt")["epoch"] == 0
