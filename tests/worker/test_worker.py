"""The worker's life beside the training step: stops, saves, restore points, telemetry, what it refuses."""

from __future__ import annotations

import json
import tempfile
import threading
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nantui.run.atomic_files import write_json
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.telemetry import StepFollower
from nantui.worker import telemetry
from nantui.worker.checkpoints import save as restore_points
from nantui.worker.checkpoints import save as saves
from nantui.worker.guard.step_guard import StepGuard
from nantui.worker.telemetry import Recorder
from nantui.worker.trainer import RunningMean
from tests.worker.runs import tensors_of


def ask_to_stop_at(monkeypatch: pytest.MonkeyPatch, epoch: int, step: int) -> None:
    """Put the request there when the training is in that batch, and wait until it was seen."""
    from nantui.worker import faults

    def plant(self: Any, trainer: Any, batch: Any) -> None:
        progress = trainer.session.progress
        if (progress.epoch, progress.step) == (epoch, step):
            session = trainer.session
            session.layout.stop_request(session.attempt.attempt).write_text(json.dumps({"id": "x"}))
            assert session.recorder.stop_requested.wait(20)

    monkeypatch.setattr(faults.Faults, "on_batch", plant)


NEVER = [{"fault": "slow_step", "epoch": 99}]


def test_without_step_points_a_stop_leaves_what_repeats_the_interrupted_epoch(
    trainings, tmp_path, monkeypatch
):
    off = {"step_points": "off"}
    with monkeypatch.context() as patch:
        ask_to_stop_at(patch, 2, 3)
        stopped = trainings(tmp_path / "run", faults=NEVER, ours=off)
    assert stopped.code == 70 and stopped.exit.outcome == "stopped"
    assert (stopped.exit.epoch, stopped.exit.step) == (2, 3)
    assert stopped.exit.checkpoint == "weights/nantui_stop.pt" and stopped.exit.resumable
    point, last = stopped.checkpoint("nantui_stop.pt"), stopped.checkpoint("last.pt")
    assert point["epoch"] == last["epoch"] == 0
    one, other = tensors_of(point), tensors_of(last)
    assert any(not torch.equal(one[name], other[name]) for name in one), "the weights have advanced"
    again = trainings(tmp_path / "run", 2, mode="resume", checkpoint="weights/nantui_stop.pt", ours=off)
    assert again.code == 0
    assert [(s.epoch, s.step) for s in again.steps][0] == (2, 1)


def test_without_step_points_there_is_nothing_to_resume_inside_the_first_epoch(
    trainings, tmp_path, monkeypatch
):
    ask_to_stop_at(monkeypatch, 1, 2)
    stopped = trainings(tmp_path / "run", faults=NEVER, ours={"step_points": "off"})
    assert stopped.code == 70 and not stopped.exit.resumable
    assert "first epoch" in stopped.exit.text
    assert stopped.checkpoint("nantui_stop.pt")["ema"] is not None


def test_a_full_disk_leaves_the_old_file_whole(trainings, tmp_path):
    failing = [{"fault": "save_failure", "epoch": 2}, {"fault": "exception", "epoch": 3}]
    outcome = trainings(tmp_path / "run", faults=failing)
    assert outcome.of("save_failed")[0]["path"].endswith("last.pt")
    assert outcome.checkpoint("last.pt")["epoch"] == 0
    assert sorted(p.name for p in (outcome.run / "weights").iterdir()) == ["best.pt", "last.pt"]


def test_a_full_disk_at_the_end_leaves_the_trained_weights_whole(trainings, tmp_path):
    outcome = trainings(tmp_path / "run", train={"epochs": 1}, faults=[{"fault": "strip_failure"}])
    assert outcome.code == 0 and outcome.exit.outcome == "finished"
    assert [Path(event["path"]).name for event in outcome.of("save_failed")] == ["last.pt", "best.pt"]
    assert outcome.checkpoint("last.pt")["epoch"] == 0 and outcome.checkpoint("best.pt")["optimizer"]
    assert sorted(p.name for p in (outcome.run / "weights").iterdir()) == ["best.pt", "last.pt"]


def test_a_kill_while_stripping_leaves_the_trained_weights_whole(tmp_path):
    file = tmp_path / "last.pt"
    torch.save({"model": None, "epoch": 4}, file)
    before = file.read_bytes()

    def killed(source: Path, s: str, updates: Any) -> None:
        Path(s).write_bytes(before[:100])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        saves.strip_staged(killed, file)
    assert file.read_bytes() == before
    with pytest.raises(zipfile.BadZipFile):
        saves.strip_staged(lambda source, s, updates: Path(s).write_bytes(before[:100]), file)
    assert file.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_what_stripping_ruins_does_not_take_the_place_of_the_trained_weights(tmp_path):
    model = torch.nn.Linear(2, 2).half()
    file = tmp_path / "last.pt"
    torch.save({"model": None, "ema": model, "epoch": 4, "train_args": {}}, file)

    def ruined(source: Path, s: str, updates: Any) -> dict[str, Any]:
        model.weight.data.fill_(float("nan"))
        torch.save({"model": model, "ema": None, "epoch": -1, "train_args": {}}, s)
        return {"epoch": -1}

    whole = file.read_bytes()
    with pytest.raises(saves.Unsound, match="weight"):
        saves.strip_staged(ruined, file)
    assert file.read_bytes() == whole and [path.name for path in tmp_path.iterdir()] == ["last.pt"]
    assert saves.strip_staged(ruined, file, protects=False) and file.read_bytes() != whole


def test_pictures_of_the_first_batches_are_drawn_of_a_copy(trainings, tmp_path, monkeypatch):
    """An autopsy looks at the batch while `plot_images` writes into what it was given, in a thread."""
    seen: list[tuple[float, str]] = []
    probe = StepGuard.probe

    def look(guard: StepGuard) -> Any:
        batch = guard.trainer._batch
        seen.append((float(batch["img"].max()), type(batch["cls"]).__name__))
        return probe(guard)

    def draw(labels: dict[str, Any], **options: Any) -> None:
        labels["img"] *= 255
        labels["cls"] = labels["cls"].numpy()
        seen.append((float(labels["img"].max()), "drawn"))

    monkeypatch.setattr(StepGuard, "probe", look)
    monkeypatch.setattr("ultralytics.models.yolo.detect.train.plot_images", draw)
    assert trainings(tmp_path / "run", train={"epochs": 1, "plots": True}).code == 0
    assert any(kind == "drawn" and most > 1 for most, kind in seen)
    assert all(most <= 1 and kind == "Tensor" for most, kind in seen if kind != "drawn"), seen


def test_a_bug_is_failed_and_not_diverged(trainings, tmp_path):
    outcome = trainings(tmp_path / "run", faults=[{"fault": "exception", "batch": 2}])
    assert outcome.code == 1 and outcome.exit.outcome == "failed"
    assert "a bug in somebody's code" in outcome.exit.text


def test_a_fresh_start_never_overwrites_a_run(trainings, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "results.csv").write_text("epoch,time\n1,2\n")
    outcome = trainings(tmp_path / "run")
    assert outcome.code == 1 and "resume it instead" in outcome.exit.text
    assert (tmp_path / "run" / "results.csv").read_text() == "epoch,time\n1,2\n"


def test_values_in_effect_come_from_the_live_objects(trainings, tmp_path):
    train = {"epochs": 1, "optimizer": "auto", "lr0": 0.3, "box": 9.0, "degrees": 5.0, "hsv_h": 0.02}
    values = trainings(tmp_path / "run", train=train).of("in_effect")[0]["values"]
    assert values["optimizer"] == "AdamW" and values["lr0"] == 0.001429
    assert (values["box"], values["degrees"], values["hsv_h"]) == (9.0, 5.0, 0.02)
    assert values["amp"] is False and values["batch"] == 8
    assert values["weight_decay"] == pytest.approx(0.0005)


def test_restore_points_by_the_clock_are_kept_and_pruned(trainings, tmp_path):
    ours = {"restore_every_minutes": 1e-6, "keep_restore_points": 2}
    outcome = trainings(tmp_path / "run", train={"epochs": 5}, ours=ours)
    assert outcome.code == 0
    kept = sorted(path.name for path in (outcome.run / "weights").glob("epoch*.pt"))
    assert kept == ["epoch3.pt", "epoch4.pt"]
    assert [event["by_the_clock"] for event in outcome.of("saved")] == [True] * 5


def test_each_epoch_on_probation_leaves_a_restore_point_and_ultralytics_own_are_never_ours(
    trainings, tmp_path
):
    outcome = trainings(tmp_path / "run", train={"epochs": 4, "save_period": 2}, probation_epochs=2)
    kept = sorted(path.name for path in (outcome.run / "weights").glob("epoch*.pt"))
    assert kept == ["epoch0.pt", "epoch1.pt", "epoch2.pt"], "0 and 2 by save_period, 1 on probation"
    assert [event.get("by_the_clock", False) for event in outcome.of("saved")] == [False, True, False, False]


def test_only_points_of_the_clock_are_ever_deleted(tmp_path):
    layout = RunLayout(tmp_path)
    layout.weights.mkdir()
    for epoch in range(6):
        (layout.weights / f"epoch{epoch}.pt").touch()
    points = restore_points.RestorePoints(layout, 1.0, 2)
    assert points.saved(["epoch0.pt"], by_the_clock=False, clean=True) == []
    assert points.saved(["epoch1.pt"], by_the_clock=True, clean=True) == []
    assert points.saved(["epoch2.pt"], by_the_clock=True, clean=False) == []
    assert points.saved(["epoch3.pt"], by_the_clock=True, clean=True) == []
    assert points.saved(["epoch4.pt"], by_the_clock=True, clean=True) == ["epoch1.pt", "epoch2.pt"]
    assert (layout.weights / "epoch0.pt").exists() and (layout.weights / "epoch5.pt").exists()


def clocked(layout: RunLayout, number: int, epochs: range) -> None:
    """Leave points by the clock as attempt `number` would, with its record."""
    layout.attempts.mkdir(parents=True, exist_ok=True)
    layout.weights.mkdir(exist_ok=True)
    write_json(layout.attempt(number), {})
    recorder = Recorder(layout.events(number, 0), 0)
    for epoch in epochs:
        (layout.weights / f"epoch{epoch}.pt").touch()
        recorder.event("saved", paths=[f"weights/epoch{epoch}.pt"], epoch=epoch + 1, by_the_clock=True)
    recorder.close()


def test_points_of_earlier_attempts_are_pruned_but_those_from_before_a_rollback_stay(tmp_path):
    layout = RunLayout(tmp_path)
    clocked(layout, 1, range(2))
    Journal(layout.journal).append("rollback_done", id="x", text="")
    clocked(layout, 2, range(2, 4))
    points = restore_points.RestorePoints(layout, 1.0, 2)
    for epoch in (4, 5):
        (layout.weights / f"epoch{epoch}.pt").touch()
    assert points.saved(["epoch4.pt"], by_the_clock=True, clean=True) == []
    assert points.saved(["epoch5.pt"], by_the_clock=True, clean=True) == ["epoch2.pt", "epoch3.pt"]
    left = sorted(path.name for path in layout.weights.iterdir())
    assert left == ["epoch0.pt", "epoch1.pt", "epoch4.pt", "epoch5.pt"]


@given(saves=st.lists(st.tuples(st.booleans(), st.booleans()), max_size=12), keep=st.integers(1, 4))
def test_the_newest_clean_points_are_always_there(saves, keep):
    with tempfile.TemporaryDirectory() as folder:
        layout = RunLayout(Path(folder))
        layout.weights.mkdir()
        points = restore_points.RestorePoints(layout, 1.0, keep)
        for epoch, (by_the_clock, clean) in enumerate(saves):
            (layout.weights / f"epoch{epoch}.pt").touch()
            points.saved([f"epoch{epoch}.pt"], by_the_clock, clean)
            newest = [n for n, (_, good) in enumerate(saves[: epoch + 1]) if good][-keep:]
            assert all((layout.weights / f"epoch{n}.pt").exists() for n in newest)


def test_telemetry_survives_a_disk_that_hangs_and_counts_what_it_dropped(tmp_path, monkeypatch):
    hanging = threading.Event()
    append = Recorder._append

    def slow(self: Recorder, path: Path, text: str) -> None:
        hanging.wait(30)
        append(self, path, text)

    monkeypatch.setattr(Recorder, "_append", slow)
    monkeypatch.setattr(telemetry, "ROWS_WAITING", 50)
    recorder = Recorder(tmp_path / "001.rank0.events.jsonl", 0, steps=tmp_path / "001.steps.csv")
    after = (1.0, 0.01, None, 0.1, 80.0, 16, 64, 0.02)
    started = time.monotonic()
    for step in range(500):
        recorder.step(("box_loss",), (time.time(), 1, step + 1, 500, 0, ""), (1.0,), after)
    assert time.monotonic() - started < 20, "a step waited for the disk"
    assert recorder.dropped > 300
    hanging.set()
    recorder.close()
    steps = StepFollower(tmp_path / "001.steps.csv").read()[0]
    assert len(steps) + recorder.dropped == 500
    assert "rows of telemetry dropped" in (tmp_path / "001.rank0.events.jsonl").read_text()


def test_a_row_of_telemetry_is_small(trainings, tmp_path):
    outcome = trainings(tmp_path / "run", train={"epochs": 1})
    lines = RunLayout(outcome.run).steps(1).read_text().splitlines()
    assert len(lines) == 5 and max(map(len, lines)) < 300
    waits = [(step.value("data_s"), step.value("step_s")) for step in outcome.steps]
    assert all(0 <= waited < whole for waited, whole in waits), "a step is the wait for its images and more"


def test_the_running_mean_is_ultralytics_own_while_all_is_finite():
    dice = torch.Generator().manual_seed(0)
    batches = [torch.rand(3, generator=dice) * 5 for _ in range(50)]
    stock, ours = batches[0], RunningMean()
    for i, losses in enumerate(batches):
        stock = (stock * i + losses) / (i + 1) if i else losses
        ours.add(losses.tolist())
    assert torch.equal(stock, ours.mean)
    ours.add([1.0, float("nan"), 1.0])
    assert torch.equal(stock, ours.mean)


def test_on_a_gpu_the_running_mean_is_rounded_as_cuda_rounds_it():
    dice = torch.Generator().manual_seed(0)
    batches = [torch.rand(3, generator=dice) * 5 for _ in range(50)]
    cuda, ours, elsewhere = batches[0], RunningMean("cuda"), RunningMean()
    for i, losses in enumerate(batches):
        cuda = (cuda * i + losses) * (torch.tensor(1.0) / (i + 1)) if i else losses
        ours.add(losses.tolist())
        elsewhere.add(losses.tolist())
    assert torch.equal(cuda, ours.mean)
    assert not torch.equal(ours.mean, elsewhere.mean) and torch.allclose(ours.mean, elsewhere.mean)


def test_a_mean_that_begins_with_a_bad_batch_is_the_mean_of_the_others():
    mean = RunningMean()
    for losses in ([float("nan"), 1.0], [2.0, 4.0], [4.0, 8.0]):
        mean.add(losses)
    assert mean.mean.tolist() == [3.0, 6.0]
