"""The transactional step, on real trainings."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nantui.recovery.trouble import first_trouble
from nantui.run.record import read_run
from nantui.run.results import read_results
from nantui.worker import faults as faults_module
from nantui.worker import ultralytics_api
from nantui.worker.autopsy.incident_report import IncidentReporter
from nantui.worker.guard.batch_probe import plain
from nantui.worker.guard.step_guard import StepGuard
from nantui.worker.guard.tensor_copies import StepBackup
from tests.worker.runs import Outcome, Trainings, tensors_of


@pytest.fixture(params=["verdict first", "step ahead"])
def order(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both orders of step and verdict: that of the CPU and, forced, that of a GPU."""
    if request.param == "step ahead":
        monkeypatch.setattr(ultralytics_api, "step_can_be_taken_back", lambda trainer: True)
    return str(request.param)


@pytest.fixture(scope="module")
def plain_run(trainings: Trainings, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Outcome]:
    """Return a maker of unguarded trainings: each is there once, whatever it is compared with."""

    @cache
    def made(settings: str) -> Outcome:
        run = tmp_path_factory.mktemp("plain") / "off"
        return trainings(run, train=json.loads(settings), ours={"guard": "off"})

    return lambda train: made(json.dumps(train))


@pytest.mark.parametrize(
    "extra",
    [
        {"nbs": 32, "warmup_epochs": 1.0, "optimizer": "AdamW"},
        {"multi_scale": 0.5, "freeze": 2, "optimizer": "MuSGD"},
    ],
)
def test_a_healthy_run_is_bit_equal_with_the_guard_on_and_off(trainings, plain_run, tmp_path, order, extra):
    train = {"epochs": 2, **extra}
    protected = trainings(tmp_path / "protect", train=train, ours={"guard": "protect"})
    plain = plain_run(train)
    assert protected.code == plain.code == 0
    ours, theirs = (tensors_of(outcome.checkpoint("last.pt")) for outcome in (protected, plain))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    rows = [[row.values for row in read_results(o.run / "results.csv")] for o in (protected, plain)]
    assert rows[0] == rows[1] and len(rows[0]) == 2
    assert protected.incidents == []


def test_a_healthy_run_is_bit_equal_with_ultralytics_alone(trainings, tmp_path, order):
    """With the guard off, a step is still the guard's: only a training without nantui is not."""
    from ultralytics import YOLO

    train = {**trainings.common, "epochs": 2, "optimizer": "MuSGD", "mosaic": 1.0, "close_mosaic": 1}
    protected = trainings(tmp_path / "protect", train=train)
    YOLO(train["model"]).train(**train, project=str(tmp_path), name="stock")
    ours = tensors_of(protected.checkpoint("last.pt"))
    theirs = tensors_of(torch.load(tmp_path / "stock/weights/last.pt", weights_only=False))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    runs = protected.run, tmp_path / "stock"
    rows = [[row.values for row in read_results(run / "results.csv")] for run in runs]
    assert rows[0] == rows[1] and len(rows[0]) == 2


def state_of(trainer: Any) -> dict[str, Any]:
    """Return copies of all that a bad batch could touch, by its path."""
    return copied(
        {
            "model": trainer.model.state_dict(),
            "ema": trainer.ema.ema.state_dict(),
            "updates": trainer.ema.updates,
            "optimizer": trainer.optimizer.state_dict()["state"],
        }
    )


def copied(state: Any, path: str = "") -> dict[str, Any]:
    if isinstance(state, dict):
        return {k: v for key, value in state.items() for k, v in copied(value, f"{path}/{key}").items()}
    return {path: state.clone() if isinstance(state, torch.Tensor) else copy.deepcopy(state)}


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> dict[tuple[int, int], dict[str, Any]]:
    """Records the state before each batch, before its faults are planted."""
    states: dict[tuple[int, int], dict[str, Any]] = {}
    plant = faults_module.Faults.on_batch

    def record(self: Any, trainer: Any, batch: Any) -> None:
        progress = trainer.session.progress
        states[progress.epoch, progress.step] = state_of(trainer)
        plant(self, trainer, batch)

    monkeypatch.setattr(faults_module.Faults, "on_batch", record)
    return states


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    assert one.keys() == other.keys()
    return [
        name
        for name, value in one.items()
        if not (torch.equal(value, other[name]) if isinstance(value, torch.Tensor) else value == other[name])
    ]


@pytest.mark.parametrize(
    ("fault", "optimizer"), [("nan_pixel", "AdamW"), ("nan_gradient", "SGD"), ("batchnorm_nan", "MuSGD")]
)
def test_a_skipped_batch_leaves_no_trace(trainings, tmp_path, recorded, order, fault, optimizer):
    wanted = [{"fault": fault, "epoch": 2, "batch": 2}]
    outcome = trainings(tmp_path / "run", train={"epochs": 2, "optimizer": optimizer}, faults=wanted)
    assert outcome.code == 0
    assert differing(recorded[2, 2], recorded[2, 3]) == []
    assert differing(recorded[2, 1], recorded[2, 2]) != []
    if fault == "nan_gradient":
        [found] = outcome.of("autopsy")
        assert found["evidence"]["bad_gradients"] == ["model.0.conv.weight"]


def test_the_very_first_step_leaves_no_optimizer_state_behind(trainings, tmp_path, recorded, order):
    wanted = [{"fault": "nan_pixel", "epoch": 1, "batch": 1}]
    outcome = trainings(tmp_path / "run", train={"epochs": 1, "optimizer": "AdamW"}, faults=wanted)
    assert outcome.code == 0 and outcome.steps[0].skipped
    assert differing(recorded[1, 1], recorded[1, 2]) == []


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Records the state in which each autopsy finds the training."""
    states: list[dict[str, Any]] = []
    evidence = IncidentReporter.evidence

    def examine(self: IncidentReporter, *args: Any, **options: Any) -> dict[str, Any]:
        states.append(state_of(self.trainer))
        return evidence(self, *args, **options)

    monkeypatch.setattr(IncidentReporter, "evidence", examine)
    return states


def test_a_step_that_is_finite_and_ends_the_training_is_not_taken(trainings, tmp_path, recorded, kept, order):
    wanted = [{"fault": "zero_loss", "epoch": 2, "batch": 1, "times": 4}]
    ours = {"on_suspicion": "end", "max_consecutive_skips": 1}
    outcome = trainings(tmp_path / "run", faults=wanted, ours=ours)
    assert outcome.code == 77 and outcome.incidents[-1]["incident"] == "zero_loss"
    before = recorded[2, outcome.incidents[-1]["step"]]
    unlike = differing(before, kept[-1])
    assert all(name.startswith("/model/") and ("running" in name or "num_batches" in name) for name in unlike)


def test_a_run_that_diverges_keeps_the_weights_from_before_the_step(trainings, tmp_path, kept, order):
    wanted = [{"fault": "nan_pixel", "epoch": 1, "batch": batch} for batch in (2, 3)]
    ours = {"max_consecutive_skips": 1}
    outcome = trainings(tmp_path / "run", train={"epochs": 1}, faults=wanted, ours=ours)
    assert outcome.code == 77 and outcome.incidents[-1]["incident"] == "too_many_skips"
    weights = [{name: v for name, v in state.items() if "running" not in name} for state in kept]
    assert len(weights) >= 3 and all(differing(weights[0], state) == [] for state in weights[1:])
    assert all(torch.isfinite(value).all() for value in weights[0].values() if torch.is_tensor(value))


def test_a_step_that_finds_no_room_for_its_copies_waits_for_its_verdict(trainings, tmp_path, monkeypatch):
    monkeypatch.setattr(ultralytics_api, "step_can_be_taken_back", lambda trainer: True)

    def full(self: StepBackup) -> None:
        raise torch.cuda.OutOfMemoryError("out of memory")

    monkeypatch.setattr(StepBackup, "copy", full)
    wanted = [{"fault": "nan_pixel", "epoch": 1, "batch": 2}]
    outcome = trainings(tmp_path / "run", train={"epochs": 1}, faults=wanted)
    assert outcome.code == 0
    assert [(s.step, s.skipped) for s in outcome.steps] == [(1, False), (2, True), (3, False), (4, False)]


def test_without_room_for_the_copies_none_are_asked_for_again(trainings, tmp_path, monkeypatch):
    """Each time that there is none, PyTorch gives back what it has cached, and has to ask for that again."""
    monkeypatch.setattr(ultralytics_api, "step_can_be_taken_back", lambda trainer: True)
    asked: list[int] = []

    def full(self: StepBackup) -> None:
        asked.append(self._trainer.epoch)
        raise torch.cuda.OutOfMemoryError("out of memory")

    monkeypatch.setattr(StepBackup, "copy", full)
    assert trainings(tmp_path / "run", train={"epochs": 2}).code == 0
    assert asked == [0]


@pytest.mark.parametrize(
    ("bad", "full"),
    [
        (False, torch.cuda.OutOfMemoryError("CUDA out of memory.")),
        (True, RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")),
    ],
)
def test_a_step_that_has_no_room_beside_its_copies_is_left_out(
    trainings, tmp_path, monkeypatch, recorded, bad, full
):
    monkeypatch.setattr(ultralytics_api, "step_can_be_taken_back", lambda trainer: True)
    take, taken = StepGuard._take, []

    def full_in_the_second(self: StepGuard) -> None:
        taken.append(self.batch_index)
        take(self)
        if len(taken) == 2:
            raise full

    monkeypatch.setattr(StepGuard, "_take", full_in_the_second)
    wanted = [{"fault": "nan_pixel", "epoch": 1, "batch": 2 if bad else 9}]  # an epoch has four
    outcome = trainings(tmp_path / "run", train={"epochs": 1}, faults=wanted)
    assert outcome.code == 0 and taken == [1, 2, 3, 4]
    assert differing(recorded[1, 2], recorded[1, 3]) == []
    assert [(s.step, s.skipped) for s in outcome.steps] == [(1, False), (2, True), (3, False), (4, False)]
    assert [w["warning"] for w in outcome.of("warning")] == ([] if bad else ["no_room"])
    assert [i["incident"] for i in outcome.incidents] == (["nan_loss"] if bad else [])


def test_whether_a_step_can_be_taken_back_is_asked_in_every_epoch(trainings, tmp_path, monkeypatch):
    """A callback may exchange optimizer or EMA once the training has begun."""
    copied: list[int] = []
    copy_now = StepBackup.copy

    def counted(self: StepBackup) -> None:
        copied.append(self._trainer.epoch)
        copy_now(self)

    monkeypatch.setattr(StepBackup, "copy", counted)
    monkeypatch.setattr(ultralytics_api, "step_can_be_taken_back", lambda trainer: trainer.epoch == 1)
    assert trainings(tmp_path / "run", train={"epochs": 3}).code == 0
    assert copied == [1] * 4


def test_a_training_out_of_time_reads_the_verdict_on_its_last_step(trainings, tmp_path, recorded, order):
    """Ultralytics leaves the batch right after the step, without an event of its own."""
    wanted = [{"fault": "nan_pixel", "epoch": 1, "batch": 1}]
    outcome = trainings(tmp_path / "run", train={"epochs": 3, "time": 1e-9, "val": False}, faults=wanted)
    assert [(i["incident"], i["step"]) for i in outcome.incidents] == [("nan_loss", 1)]
    saved = tensors_of(outcome.checkpoint("last.pt"))
    average = {name: recorded[1, 1][f"/ema/{name}"] for name in saved}
    assert all(torch.equal(saved[name], average[name].to(saved[name].dtype)) for name in saved)


def test_no_callback_sees_a_step_without_a_verdict(trainings, tmp_path, monkeypatch, order):
    seen: list[list[str]] = []
    base: Any = ultralytics_api.base_trainer()
    run_callbacks = base.run_callbacks

    def looked_at(self: Any, event: str) -> None:
        if event == "on_train_batch_end":
            seen.append(ultralytics_api.non_finite_state(self.ema.ema))
        run_callbacks(self, event)

    monkeypatch.setattr(base, "run_callbacks", looked_at)
    wanted = [{"fault": "nan_pixel", "epoch": 1, "batch": 2}]
    outcome = trainings(tmp_path / "run", train={"epochs": 1}, faults=wanted)
    assert outcome.steps[1].skipped and seen == [[]] * 4


@pytest.mark.parametrize("when", ["before the verdict", "after a good step"])
def test_a_training_that_breaks_off_keeps_the_steps_that_have_a_verdict(
    trainings, tmp_path, recorded, order, monkeypatch, when
):
    """Told to end, it may lose the loader's processes anywhere in a batch: then the average is saved."""
    from nantui.worker.trainer import GuardedTrainer

    unread = when == "before the verdict"

    def told(self: Any, *args: Any, **options: Any) -> float:
        if (self.session.progress.epoch, self.session.progress.step) == (2, 3):
            self.session.told = "SIGTERM"
            if unread:
                raise RuntimeError("DataLoader worker is killed")
        return 0.0

    monkeypatch.setattr(GuardedTrainer, "_get_memory", told, raising=False)
    at = 3 if unread else 4
    wanted = [{"fault": "nan_pixel" if unread else "exception", "epoch": 2, "batch": at}]
    outcome = trainings(tmp_path / "run", faults=wanted)
    assert outcome.exit.resumable, outcome.exit.text
    saved = tensors_of(outcome.checkpoint("nantui_stop.pt"))
    average = {name: recorded[2, at][f"/ema/{name}"] for name in saved}
    assert all(torch.equal(saved[name], average[name].to(saved[name].dtype)) for name in saved)


@pytest.mark.parametrize("fault", ["nan_pixel", "batchnorm_nan"])  # the second leaves gradients finite
def test_one_bad_micro_batch_voids_the_whole_accumulated_step(trainings, tmp_path, recorded, order, fault):
    wanted = [{"fault": fault, "epoch": 2, "batch": 2}]
    outcome = trainings(tmp_path / "run", train={"epochs": 3, "nbs": 32}, faults=wanted)
    assert outcome.code == 0
    taken = [(s.epoch, s.step) for s in outcome.steps if s.value("grad_norm") == s.value("grad_norm")]
    skipped = [(s.epoch, s.step) for s in outcome.steps if s.skipped]
    assert len(skipped) == 1 and skipped[0] > (2, 2)
    assert [(i["epoch"], i["step"]) for i in outcome.incidents] == [(2, 2)]
    assert len(taken) >= 2
    weights = [name for name in recorded[2, 1] if name.startswith(("/ema", "/optimizer"))]
    after = (skipped[0][0], skipped[0][1] + 1) if skipped[0][1] < 4 else (skipped[0][0] + 1, 1)
    before = {name: recorded[2, 2][name] for name in weights}
    assert differing(before, {name: recorded[after][name] for name in weights}) == []
    assert first_trouble(read_run(outcome.run)) is None, "nothing to go back for: nothing of it was kept"


def test_a_bad_micro_batch_that_was_only_watched_is_a_sign_of_trouble(trainings, tmp_path):
    wanted = [{"fault": "nan_pixel", "epoch": 2, "batch": 2}]
    outcome = trainings(
        tmp_path / "run", train={"epochs": 3, "nbs": 32}, ours={"guard": "observe"}, faults=wanted
    )
    trouble = first_trouble(read_run(outcome.run))
    assert trouble is not None and (trouble.epoch, trouble.step) == (2, 2)


def test_the_first_and_the_last_batch_may_be_the_bad_ones(trainings, tmp_path):
    wanted = [{"fault": "nan_pixel", "epoch": 1, "batch": 1}, {"fault": "nan_pixel", "epoch": 1, "batch": 4}]
    outcome = trainings(tmp_path / "run", train={"epochs": 2}, faults=wanted)
    rows = read_results(outcome.run / "results.csv")
    assert outcome.code == 0 and len(rows) == 2 and all(row.finite for row in rows)
    assert rows[0].losses("train")["box_loss"] > 0


def test_an_out_of_memory_retry_resets_the_transaction(trainings, tmp_path, recorded):
    wanted = [{"fault": "out_of_memory", "epoch": 1, "batch": 3}]
    outcome = trainings(tmp_path / "run", train={"epochs": 2, "batch": 8}, faults=wanted)
    # Half the batch means twice the batches; the fault strikes again at batch 3 until retries are used up.
    assert outcome.code == 1 and "out of memory" in outcome.exit.text
    assert outcome.incidents == []


def test_observing_reports_once_and_changes_nothing(trainings, tmp_path):
    wanted = [{"fault": "batchnorm_nan", "epoch": 2, "batch": 2}]
    outcome = trainings(tmp_path / "run", ours={"guard": "observe"}, faults=wanted)
    assert outcome.code == 0
    seen = [(i["incident"], i["epoch"], i["step"], i["action"]) for i in outcome.incidents]
    assert seen[0] == ("nan_buffer", 2, 2, "observed")
    assert [kind for kind, *_ in seen].count("nan_buffer") == 1
    assert {"nan_ema"} <= {kind for kind, *_ in seen}
    state = tensors_of(outcome.checkpoint("best.pt"))
    laundered = [name for name, tensor in state.items() if "running_var" in name and not tensor.any()]
    assert laundered, "stock Ultralytics must have washed the NaN away, or the demo's story is untrue"


def test_clipping_is_a_setting_and_the_norm_before_it_is_recorded(trainings, tmp_path):
    loose = trainings(tmp_path / "loose", train={"epochs": 1}, ours={"grad_clip": 0})
    tight = trainings(tmp_path / "tight", train={"epochs": 1}, ours={"grad_clip": 0.01})
    assert loose.steps[0].value("grad_norm") == tight.steps[0].value("grad_norm") > 0.01
    one, other = (tensors_of(o.checkpoint("last.pt")) for o in (loose, tight))
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_rewarmup_lowers_the_rate_after_a_resume_only(trainings, tmp_path, recorded, order):
    """Of the same first step after a resume, a thousandth is taken."""
    fault = {"fault": "exception", "epoch": 2, "batch": 1}
    trainings(tmp_path / "plain", train={"epochs": 3}, faults=[fault])
    shutil.copytree(tmp_path / "plain", tmp_path / "slow")
    moved = {}
    for name, ours in (("plain", {}), ("slow", {"rewarmup": 1000})):
        later = [{"fault": "slow_step", "epoch": 9}]
        resume = {"mode": "resume", "checkpoint": "weights/last.pt"}
        assert trainings(tmp_path / name, 2, ours=ours, faults=later, **resume).code == 0
        before, after = recorded[2, 1], recorded[2, 2]
        weights = [key for key in before if key.startswith("/model") and key.endswith("weight")]
        moved[name] = max((after[key] - before[key]).abs().max().item() for key in weights)
    assert 0 < moved["slow"] < moved["plain"] / 100


def test_what_lies_on_the_host_is_looked_at_beside_what_does_not():
    """In Ultralytics 8.3.150 `preprocess_batch` moves the images alone; "meta" stands for the GPU."""
    one = torch.tensor(3.0)
    assert plain(one, torch.device("cpu")) is one
    moved = plain(torch.tensor([3.0], dtype=torch.float64), torch.device("meta"))
    assert (moved.device.type, moved.dtype, moved.shape) == ("meta", torch.float32, ())


def test_where_verdicts_come_late_the_host_soon_waits_for_one_only_now_and_then() -> None:
    guard, waited, late = object.__new__(StepGuard), list[int](), True
    guard._in_vain = 0

    def arrives_within(seconds: float) -> bool:
        waited.append(guard._steps_taken)
        return not late

    guard._unread = SimpleNamespace(arrives_within=arrives_within)
    for step in range(120):
        guard._steps_taken = step
        guard._arrives()
    assert waited == [0, 1, 2, 3, 50, 100]
    late = False
    for step in range(120, 160):
        guard._steps_taken = step
        guard._arrives()
    assert waited[6:] == [*range(150, 160)], "once one is there in time, each step waits again"
