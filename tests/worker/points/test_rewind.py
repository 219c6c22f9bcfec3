"""Rewind in place: the guard gives up, the training goes back in memory and on, in the same process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from nantui.run.layout import RunLayout
from nantui.run.results import read_results
from nantui.run.spec import Spec, write_spec
from nantui.worker.points import training_state
from nantui.worker.points.host_copy import leaves
from nantui.worker.points.rewind import MOST, Rewind
from nantui.worker.points.step_points import StepPoints
from tests.worker.runs import Outcome, Trainings, on_two_ranks, outcome_of, write_request

ALWAYS = {"step_points": 0.0}
BAD_WEIGHT = {"fault": "nan_weight", "epoch": 2, "batch": 3}


def unattended(run: Path) -> Path:
    """Ask for a run that recovers by itself."""
    write_spec(RunLayout(run).spec, Spec({}, auto=True))
    return run


def numbers(outcome: Outcome) -> list[tuple[int, int]]:
    return [(row.epoch, row.step) for row in outcome.steps]


def rewinds(outcome: Outcome) -> list[tuple[list[int], list[int], list[int]]]:
    """Return where each rewind was, what it took for the first sign, and where it went back to."""
    told = outcome.of("rewind_done")
    assert [one["number"] for one in outcome.of("rewind_begun")] == [one["number"] for one in told]
    return [([r["epoch"], r["step"]], r["since"], [r["to_epoch"], r["to_step"]]) for r in told]


@dataclass
class Seen:
    """The state of a trainer at each of its step points and after each rewind, and where its tensors are."""

    at: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    after: list[dict[str, Any]] = field(default_factory=list)


def state_of(trainer: Any) -> dict[str, Any]:
    tensors = leaves(training_state.live_tensors(trainer))
    return {
        "tensors": {name: tensor.clone() for name, tensor in tensors},
        "addresses": {name: tensor.data_ptr() for name, tensor in tensors},
        "updates": trainer.ema.updates,
        "scaler": trainer.scaler.state_dict(),
        "gradients": [name for name, p in trainer.model.named_parameters() if p.grad is not None],
    }


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    found, take, go = Seen(), StepPoints._take, Rewind.go

    def taken(self: Any) -> None:
        take(self)
        found.at[self.trainer.epoch + 1, self.trainer.guard.batch_index] = state_of(self.trainer)

    def gone(self: Any) -> None:
        go(self)
        found.after.append(state_of(self.trainer))

    monkeypatch.setattr(StepPoints, "_take", taken)
    monkeypatch.setattr(Rewind, "go", gone)
    yield found


def assert_back(seen: Seen, place: tuple[int, int]) -> None:
    """Every tensor is as it was at the point, and where it was."""
    now, then = seen.after[0], seen.at[place]
    assert now["tensors"].keys() == then["tensors"].keys()
    assert [n for n in now["tensors"] if not torch.equal(now["tensors"][n], then["tensors"][n])] == []
    assert now["addresses"] == then["addresses"]
    assert now["updates"] == then["updates"] and now["gradients"] == []


def with_a_loss_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no fp16 on the CPU; a scaler can be at work all the same. It grows every second step."""
    if not hasattr(torch.amp, "GradScaler"):
        pytest.skip("this PyTorch has no GradScaler for the CPU")
    stock = torch.amp.GradScaler
    monkeypatch.setattr(
        torch.amp, "GradScaler", lambda *a, **o: stock("cpu", init_scale=8.0, growth_interval=2)
    )


@pytest.mark.parametrize("optimizer, scaled", [("SGD", False), ("MuSGD", True)])
def test_bad_weights_go_back_in_place_and_the_training_goes_on(
    trainings, tmp_path, seen, monkeypatch, optimizer, scaled
):
    if scaled:
        with_a_loss_scale(monkeypatch)
    run = unattended(tmp_path / "run")
    outcome = trainings(run, train={"optimizer": optimizer}, ours=ALWAYS, faults=[BAD_WEIGHT])
    assert outcome.code == 0, outcome.exit.text
    assert rewinds(outcome) == [([2, 3], [2, 3], [2, 2])]
    assert_back(seen, (2, 2))
    assert seen.after[0]["scaler"] == seen.at[2, 2]["scaler"] and bool(seen.after[0]["scaler"]) == scaled
    assert numbers(outcome) == [(epoch, step) for epoch in (1, 2, 3) for step in (1, 2, 3, 4)]
    assert [(s.epoch, s.step) for s in outcome.steps if s.skipped] == [(2, 3)]
    assert [i["action"] for i in outcome.incidents] == ["skipped", "rewound"]
    assert [row.epoch for row in read_results(run / "results.csv")] == [1, 2, 3]
    assert all(row.finite for row in read_results(run / "results.csv"))


def test_a_nan_that_stays_goes_back_over_the_border_of_an_epoch(trainings, tmp_path, seen, monkeypatch):
    """Six steps in a row from the third of epoch 2: what epoch 2 has left, its best.pt too, is put right."""
    from ultralytics.models.yolo.detect import DetectionTrainer

    stock = DetectionTrainer.validate

    def rising(trainer: Any) -> tuple[Any, float]:
        metrics, _ = stock(trainer)
        trainer.best_fitness = fitness = float(trainer.epoch + 1)
        return metrics, fitness

    monkeypatch.setattr(DetectionTrainer, "validate", rising)
    faults = [{"fault": "nan_pixel", "epoch": 2, "batch": 3, "times": 2},
              {"fault": "nan_pixel", "epoch": 3, "batch": 1, "times": 4}]  # fmt: skip
    run = unattended(tmp_path / "run")
    outcome = trainings(run, train={"epochs": 4, "nbs": 8}, ours=ALWAYS, faults=faults)
    assert outcome.code == 0, outcome.exit.text
    assert rewinds(outcome) == [([3, 4], [2, 3], [2, 2])]
    assert_back(seen, (2, 2))
    assert [row.epoch for row in read_results(run / "results.csv")] == [1, 3, 4]
    kept = RunLayout(run).backups / "attempt-001-rewind-1-results.csv"
    assert [row.epoch for row in read_results(kept)] == [1, 2]
    text = outcome.of("rewind_done")[0]["text"]
    assert "from epoch 2 on" in text and "best.pt was moved aside" in text
    aside = RunLayout(run).backups / "attempt-001-rewind-1-best.pt"
    assert torch.load(aside, weights_only=False)["epoch"] == 1
    assert (run / "weights" / "best.pt").exists()


def test_weights_that_lie_channels_last_as_on_a_gpu(trainings, tmp_path, seen, monkeypatch):
    from ultralytics.models.yolo.detect import DetectionTrainer

    stock = DetectionTrainer.get_model

    def channels_last(*args: Any, **options: Any) -> Any:
        return stock(*args, **options).to(memory_format=torch.channels_last)

    monkeypatch.setattr(DetectionTrainer, "get_model", channels_last)
    run = unattended(tmp_path / "run")
    outcome = trainings(run, train={"optimizer": "AdamW"}, ours=ALWAYS, faults=[BAD_WEIGHT])
    assert outcome.code == 0, outcome.exit.text
    assert_back(seen, (2, 2))
    tensors = seen.after[0]["tensors"].values()
    assert any(t.dim() == 4 and not t.is_contiguous() for t in tensors), "clones keep the layout"


def test_in_the_first_epoch_and_with_accumulation(trainings, tmp_path, seen):
    train = {"nbs": 16, "optimizer": "AdamW"}
    faults = [{"fault": "nan_weight", "epoch": 1, "batch": 4}]
    outcome = trainings(unattended(tmp_path / "run"), train=train, ours=ALWAYS, faults=faults)
    assert outcome.code == 0, outcome.exit.text
    [(here, sign, there)] = rewinds(outcome)
    assert here == sign == [1, 4] and there[0] == 1
    assert_back(seen, (1, there[1]))


def test_three_times_then_it_ends_as_ever(trainings, tmp_path):
    faults = [{"fault": "nan_pixel", "epoch": epoch, "batch": 1, "times": 4} for epoch in (2, 3, 4)]
    ours = {**ALWAYS, "max_consecutive_skips": 1}
    outcome = trainings(unattended(tmp_path / "run"), train={"epochs": 5}, ours=ours, faults=faults)
    assert (outcome.code, outcome.exit.outcome) == (77, "diverged")
    told = outcome.of("rewind_done")
    assert len(told) == MOST and [one["to_epoch"] for one in told] == [1] * MOST
    assert told[0]["eased"] == 0 and told[1]["eased"] > 0, "the second time the rates are lowered, too"
    assert [i["action"] for i in outcome.incidents if i["incident"] == "too_many_skips"] == [
        *["rewound"] * MOST,
        "ended",
    ]


def test_lowered_rates_rise_again(trainings, tmp_path, monkeypatch):
    from nantui.worker.points import rewind

    monkeypatch.setattr(rewind, "EASED_STEPS", 3)
    monkeypatch.setattr(rewind, "TOO_HIGH", {"nan_weight"})
    rates: list[float] = []
    step = torch.optim.SGD.step

    def noted(optimizer: Any, *args: Any) -> Any:
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *args)

    monkeypatch.setattr(torch.optim.SGD, "step", noted)
    outcome = trainings(unattended(tmp_path / "run"), ours=ALWAYS, faults=[BAD_WEIGHT])
    assert outcome.code == 0
    usual = [row.value("lr") for row in outcome.steps if not row.skipped]
    shares = [round(rate / whole, 3) for rate, whole in zip(rates, usual, strict=True)]
    assert shares == [1.0] * 6 + [0.25, 0.5, 0.75] + [1.0] * 2


@pytest.mark.parametrize("again", [(3, 3), (4, 2)], ids=["a point between", "more than memory keeps"])
def test_what_comes_back_again_and_again_goes_back_to_before_the_first(trainings, tmp_path, seen, again):
    """Good steps lie between the bad ones, each with a point: none of them is from before the trouble.

    They have moved everything that is to be put back: weights, averages, their counter, optimizer. Memory
    has room for three points, and the one from before the trouble is not written over.
    """
    faults = [{"fault": "nan_pixel", "epoch": e, "batch": b} for e, b in ((3, 1), again)]
    ours = {**ALWAYS, "skip_window": 8, "max_skip_share": 0.2}
    outcome = trainings(
        unattended(tmp_path / "run"), train={"epochs": 4, "optimizer": "AdamW"}, ours=ours, faults=faults
    )
    assert outcome.code == 0, outcome.exit.text
    assert rewinds(outcome) == [(list(again), [3, 1], [2, 4])]
    assert seen.at[3, 2]["updates"] > seen.at[2, 4]["updates"]
    assert_back(seen, (2, 4))


def test_averaged_weights_go_back_at_an_epochs_end(trainings, tmp_path):
    run = unattended(tmp_path / "run")
    bad = {"fault": "nan_ema", "epoch": 2, "batch": 4}
    outcome = trainings(run, ours={"step_points": 0.0}, faults=[bad])
    assert outcome.code == 0, outcome.exit.text
    [(here, sign, there)] = rewinds(outcome)
    assert here == sign == [2, 4] and there == [2, 3]
    rows = read_results(run / "results.csv")
    assert [row.epoch for row in rows] == [1, 3] and all(row.finite for row in rows)
    state = outcome.checkpoint("best.pt")
    assert all(torch.isfinite(v).all() for v in (state["ema"] or state["model"]).state_dict().values())


def test_a_person_asks_and_it_goes_back_with_no_trouble_and_no_autopilot(
    trainings, tmp_path, seen, monkeypatch
):
    take = StepPoints._take

    def asked_after(points: Any) -> None:
        take(points)
        if points.trainer.epoch == 1 and points.trainer.guard.batch_index == 2 and not seen.after:
            points.session.recorder.rewind_requested.set()

    monkeypatch.setattr(StepPoints, "_take", asked_after)
    outcome = trainings(tmp_path / "run", ours=ALWAYS)
    assert outcome.code == 0, outcome.exit.text
    assert rewinds(outcome) == [([2, 3], [2, 3], [2, 2])]
    assert_back(seen, (2, 2))
    assert numbers(outcome) == [(epoch, step) for epoch in (1, 2, 3) for step in (1, 2, 3, 4)]
    assert outcome.incidents == [] and outcome.of("rewind_done")[0]["incident"] == "asked"


def test_asked_where_there_is_no_point_it_says_so_and_trains_on(trainings, tmp_path):
    run = tmp_path / "run"
    request = RunLayout(run).rewind_request(1)
    request.parent.mkdir(parents=True)
    request.write_text("{}")
    outcome = trainings(run, ours={"step_points": 1e6})
    assert (outcome.code, outcome.of("rewind_begun")) == (0, []) and not request.exists()
    [told] = [one for one in outcome.of("warning") if one["warning"] == "not_rewound"]
    assert "no step point in memory" in told["text"]


@pytest.mark.parametrize(
    "ours, auto", [(ALWAYS, False), ({"step_points": 1e6}, True)], ids=["nobody asked", "no point yet"]
)
def test_where_it_cannot_go_back_it_ends_as_ever(trainings, tmp_path, ours, auto):
    run = tmp_path / "run"
    write_spec(RunLayout(run).spec, Spec({}, auto=auto))
    outcome = trainings(run, ours=ours, faults=[BAD_WEIGHT])
    assert (outcome.code, outcome.incidents[-1]["action"]) == (77, "ended")
    assert outcome.of("rewind_begun") == []


def test_two_ranks_go_back_as_one(trainings: Trainings, warm_python: str, tmp_path):
    """Bad weights on one rank alone, batches that stay bad there, averages on the other: they stay equal."""
    faults = [
        {"fault": "nan_weight", "rank": 1, "epoch": 2, "batch": 2},
        {"fault": "nan_pixel", "rank": 1, "epoch": 3, "batch": 2, "times": 2},
        {"fault": "nan_ema", "epoch": 4, "batch": 4},
    ]
    run = unattended(tmp_path / "run")
    ours = {**ALWAYS, "max_consecutive_skips": 1}
    train = {**trainings.common, "optimizer": "AdamW", "epochs": 5}
    write_request(run, 1, train, devices=2, ours=ours, faults=faults)
    request = {"run": str(run), "number": 1, "spy": {"end": str(tmp_path / "at.end"), "workers": 0}}
    process = on_two_ranks([request], tmp_path / "log", warm_python)
    assert process.returncode == 0, (tmp_path / "log" / "log").read_text()[-3000:]
    outcomes = [outcome_of(run, 1, 0, rank) for rank in (0, 1)]
    assert [outcome.exit.outcome for outcome in outcomes] == ["finished"] * 2, outcomes[0].exit.text
    assert rewinds(outcomes[0]) == [
        ([2, 2], [2, 2], [2, 1]),
        ([3, 3], [3, 2], [3, 1]),
        ([4, 4], [4, 4], [4, 3]),
    ]
    assert outcomes[1].of("rewind_done") == [], "the first rank tells"
    ends = [torch.load(tmp_path / f"at.rank{rank}", weights_only=False) for rank in (0, 1)]
    one, other = (dict(leaves({key: end[key] for key in ("weights", "optimizer")})) for end in ends)
    assert [n for n in one if "running_" not in n and not torch.equal(one[n], other[n])] == []
    assert [row.epoch for row in read_results(run / "results.csv") if row.finite] == [1, 2, 3, 5]
