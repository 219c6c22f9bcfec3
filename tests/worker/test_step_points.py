"""Step points: taken, written, judged, and gone on from at the next batch as if nothing had been."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from nantui.checkpoint.scan import scan
from nantui.run.layout import RunLayout
from nantui.run.points import PART, is_whole, step_points
from nantui.run.spec import Spec, write_spec
from tests.waiting import eventually
from tests.worker import equality
from tests.worker.equality import CASES, Case, carry_out, requests_of, unequal
from tests.worker.runs import Trainings, on_two_ranks, outcome_of, write_request

ALWAYS = {"step_points": 0.0}
SAMPLED = ("accumulated-ranks1", "AdamW-workers0-mixed-ranks1", "last-batch-of-an-epoch-ranks1")
SAMPLE = [case for case in CASES if case.name in SAMPLED]
ON_TWO = [case for case in CASES if case.name in ("AdamW-workers2-mixed-ranks2",)]


def numbers(rows: list[Any]) -> list[tuple[int, int]]:
    return [(row.epoch, row.step) for row in rows]


@pytest.mark.parametrize("case", SAMPLE, ids=[case.name for case in SAMPLE])
def test_a_resumed_training_is_the_one_that_was_never_stopped(case: Case, trainings: Trainings, tmp_path):
    carry_out(requests_of(case, tmp_path, trainings.common))
    assert unequal(case, tmp_path) == []
    assert (tmp_path / "cut" / "weights" / "nantui_stop.pt").exists(), "it was stopped"


def test_two_ranks_go_on_as_one_training(trainings: Trainings, warm_python: str, tmp_path):
    [case] = ON_TWO
    process = on_two_ranks(requests_of(case, tmp_path, trainings.common), tmp_path / "log", warm_python)
    assert process.returncode == 0, (tmp_path / "log" / "log").read_text()[-3000:]
    assert unequal(case, tmp_path) == []
    assert (tmp_path / "cut" / "weights" / "nantui_stop.pt").exists(), "it was stopped"


@pytest.fixture(scope="module")
def killed(trainings: Trainings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that broke in its first epoch, after each step's point was on the disk; it has no last.pt."""
    from nantui.worker.points.point_file import InMemory, PointWriter

    hand_over = PointWriter.hand_over

    def and_wait(writer: PointWriter, job: InMemory) -> None:
        hand_over(writer, job)
        eventually(lambda: writer._waiting is None and writer._writing is None)

    run = tmp_path_factory.mktemp("points") / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PointWriter, "hand_over", and_wait)
        trainings(run, ours=ALWAYS, faults=[{"fault": "exception", "batch": 4}])
    return run


@pytest.fixture
def run(killed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(killed, tmp_path / "run"))


def test_points_take_turns_and_are_checkpoints_like_any_other(killed):
    layout = RunLayout(killed)
    newest, older = step_points(layout)
    assert (newest.epoch, newest.batch, newest.batches, newest.attempt) == (1, 3, 4, 1)
    assert older.batch < newest.batch and newest.step == 3
    assert newest.training["world_size"] == 1 and newest.training["classes"] == 3
    assert all(is_whole(layout, point) for point in (newest, older))
    assert not [path for path in layout.points.iterdir() if path.suffix == ".tmp"]
    verdict = scan(layout.point(newest.name), crc=True)
    assert (verdict.badge, verdict.resumable, verdict.epoch) == ("clean", True, None)


def test_the_first_epoch_is_gone_on_with(trainings, run):
    point = step_points(RunLayout(run))[0]
    outcome = trainings(run, 2, mode="resume", checkpoint=point.path, train={"epochs": 2})
    assert outcome.code == 0, outcome.exit.text
    assert numbers(outcome.steps)[:2] == [(1, 4), (2, 1)]
    [told] = outcome.of("continued")
    assert (told["epoch"], told["step"], told["path"]) == (1, 3, point.path)
    rows = (run / "results.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["epoch", "1", "2", "3"]


def test_a_script_of_the_users_own_goes_on_inside_its_first_epoch(trainings, tmp_path, warm_python):
    run, script = RunLayout(tmp_path / "run"), tmp_path / "train.py"
    options = {name: value for name, value in trainings.common.items() if name != "model"}
    script.write_text(
        f"from ultralytics import YOLO\nYOLO({str(trainings.model)!r}).train(**{options!r}, project='asked')"
    )
    command = {"argv": [warm_python, str(script)], "cwd": str(tmp_path), "env": {}}
    write_spec(run.spec, Spec({}, kind="exec", exec=command))
    slow = {"fault": "slow_step", "batch": 4, "seconds": 3.0}
    write_request(run.run, 1, {}, ours=ALWAYS, faults=[slow, {"fault": "exception", "batch": 4}])
    assert in_a_process(warm_python, run, 1) == 1
    point = step_points(run)[0]
    write_request(run.run, 2, {}, mode="resume", checkpoint=point.path)
    assert in_a_process(warm_python, run, 2) == 0
    told = outcome_of(run.run, 2, 0)
    assert told.exit.outcome == "finished"
    assert numbers(told.steps)[0] == (1, point.batch + 1), "whichever point the thread has got to write"


def in_a_process(python: str, run: RunLayout, number: int) -> int:
    root = str(Path(__file__).parents[2])
    argv = [python, "-m", "nantui.worker", str(run.run), f"{number:03d}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    return subprocess.run(argv, env=environment, capture_output=True).returncode


def test_settings_are_changed_in_a_point_as_in_any_checkpoint(trainings, run):
    """As a rollback does it: the rebased copy takes the place of last.pt, and still goes on at the batch."""
    from nantui.worker.checkpoints.rebase import Request, rebase

    layout = RunLayout(run)
    point = step_points(layout)[0]
    layout.weights.mkdir(exist_ok=True)
    rebase(Request(str(layout.point(point.name)), str(layout.last), str(run), {"lr0": 0.0007}))
    outcome = trainings(run, 2, mode="resume", checkpoint="weights/last.pt", asked={"lr0": 0.0007})
    assert outcome.code == 0, outcome.exit.text
    assert numbers(outcome.steps)[0] == (1, 4)
    assert outcome.of("in_effect")[0]["values"]["lr0"] == 0.0007


def test_a_hostile_or_torn_point_is_not_loaded(trainings, run, tmp_path):
    layout = RunLayout(run)
    point = step_points(layout)[0]
    whole = layout.point(point.name).read_bytes()
    layout.point(point.name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    refused = trainings(run, 2, mode="resume", checkpoint=point.path)
    assert refused.code == 1 and "its header describes" in refused.exit.text


class Bomb:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        return Path.touch, (self.witness,)


def test_what_a_point_would_run_is_not_run(trainings, run, tmp_path):
    import hashlib
    from dataclasses import replace

    from nantui.run.points import write_header

    layout, witness = RunLayout(run), tmp_path / "ran"
    point = step_points(layout)[0]
    file = layout.point(point.name)
    document = torch.load(file, weights_only=False)
    torch.save({**document, "train_args": Bomb(witness)}, file)
    data = file.read_bytes()
    write_header(layout, replace(point, size=len(data), digest=hashlib.sha256(data).hexdigest()))
    refused = trainings(run, 2, mode="resume", checkpoint=point.path)
    assert refused.code == 1 and "unreadable" in refused.exit.text
    assert not witness.exists()


def edited(run: Path, **training: Any) -> str:
    """Let the newest point say that it is of another training; returns a copy, as of a rollback."""
    layout = RunLayout(run)
    document = torch.load(layout.point(step_points(layout)[0].name), weights_only=False)
    document[PART]["training"].update(training)
    layout.weights.mkdir(exist_ok=True)
    torch.save(document, layout.last)
    return "weights/last.pt"


def test_a_point_of_another_training_is_refused_with_what_differs(trainings, run):
    checkpoint = edited(run, world_size=2, model="another")
    refused = trainings(run, 2, mode="resume", checkpoint=checkpoint)
    assert refused.code == 1
    assert "processes: 2 there, 1 here" in refused.exit.text and "model" in refused.exit.text


def test_with_other_batches_the_epoch_begins_again_from_the_points_weights(trainings, run):
    checkpoint = edited(run, images="31 (others)")
    outcome = trainings(run, 2, mode="resume", checkpoint=checkpoint)
    assert outcome.code == 0, outcome.exit.text
    assert numbers(outcome.steps)[0] == (1, 1)
    assert outcome.of("continued")[0]["step"] == 0 and "images" in outcome.of("continued")[0]["text"]


def test_rows_of_results_that_come_again_are_taken_out_once(trainings, run):
    """A kill between an epoch's row and its checkpoint leaves the row, and may tear it."""
    point = step_points(RunLayout(run))[0]
    (run / "results.csv").write_text("epoch,time,x\n1,2.0,3.0\n1,2")
    outcome = trainings(run, 2, mode="resume", checkpoint=point.path, train={"epochs": 1})
    rows = (run / "results.csv").read_text().splitlines()
    assert outcome.code == 0 and [row.split(",")[0] for row in rows] == ["epoch", "1", "2", "3"]
    kept = RunLayout(run).backups / "attempt-002-results.csv"
    assert kept.read_text() == "epoch,time,x\n1,2.0,3.0\n1,2"


def test_out_of_memory_in_the_resumed_epoch_begins_it_again_with_half_the_batch(trainings, run, monkeypatch):
    from nantui.worker import faults

    point = step_points(RunLayout(run))[0]
    short = [{"fault": "out_of_memory", "epoch": 1, "batch": 4}]
    raised: list[str] = []

    def once(fault: Any, device: Any) -> None:
        if not raised:
            raised.append(fault.fault)
            raise RuntimeError("CUDA out of memory (injected)")

    monkeypatch.setattr(faults, "_disturb", once)
    outcome = trainings(run, 2, mode="resume", checkpoint=point.path, faults=short)
    assert outcome.code == 0, outcome.exit.text
    assert [row.steps for row in outcome.steps if row.epoch == 1] == [8] * 8


def test_a_full_disk_costs_the_points_and_not_the_training(trainings, tmp_path, monkeypatch):
    from nantui.worker.points import point_file

    monkeypatch.setattr(point_file, "RESERVE", 2**62)
    outcome = trainings(tmp_path / "run", train={"epochs": 1}, ours=ALWAYS)
    assert outcome.code == 0 and step_points(RunLayout(outcome.run)) == ()
    assert "the disk has" in next(w["text"] for w in outcome.of("warning") if w["warning"] == "step_points")


def test_without_memory_there_are_no_points_and_it_is_said(trainings, tmp_path, monkeypatch):
    from nantui.worker.points import step_points as keeper

    monkeypatch.setattr(keeper, "memory_left", lambda: 1)
    outcome = trainings(tmp_path / "run", train={"epochs": 1}, ours=ALWAYS)
    assert outcome.code == 0 and not RunLayout(outcome.run).points.exists()
    assert "GiB of memory" in next(w["text"] for w in outcome.of("warning") if w["warning"] == "step_points")


def test_a_point_that_is_not_finite_is_not_written(tmp_path):
    from nantui.worker.points.host_copy import HostCopy
    from nantui.worker.points.point_file import InMemory, PointWriter

    said: list[str] = []
    layout = RunLayout(tmp_path)
    writer = PointWriter(layout, said.append)
    copy = HostCopy(torch.device("cpu"))
    document = {"optimizer": copy.take({"state": [torch.tensor([1.0, float("inf")])]})}
    writer.hand_over(InMemory(copy, document))
    eventually(lambda: said)
    writer.close()
    assert "optimizer.state.0 is not finite" in said[0]
    assert not layout.points.exists() or not list(layout.points.iterdir())


def test_a_point_is_there_only_once_the_rows_of_its_steps_are(tmp_path, monkeypatch):
    """A kill between the two would leave a batch that was learned, is not repeated, and has no row."""
    from nantui.worker.points.host_copy import HostCopy
    from nantui.worker.points.point_file import InMemory, PointWriter
    from nantui.worker.telemetry import Recorder

    layout, rows = RunLayout(tmp_path / "run"), tmp_path / "steps.csv"
    stock, seen = Recorder._append, []

    def slow(self, path, text):
        time.sleep(0.3)
        stock(self, path, text)

    monkeypatch.setattr(Recorder, "_append", slow)
    recorder = Recorder(tmp_path / "events.jsonl", 0, steps=rows)

    def before_header():
        recorder.settle()
        seen.append((rows.exists() and len(rows.read_text().splitlines()), layout.point_header("a").exists()))

    writer = PointWriter(layout, seen.append, before_header)
    recorder.event("epoch", epoch=1)  # its round is under way when the row comes
    recorder.step(("box_loss",), (1, 1, 8, 0.0), [1.0], (0.1,) * 6)
    header = {"attempt": 1, "epoch": 1, "batch": 1, "batches": 8, "step": 1, "t": 1.0, "training": {}}
    copy = HostCopy(torch.device("cpu"))
    writer.hand_over(InMemory(copy, {"weights": copy.take({"w": torch.ones(2)})}, header))
    eventually(lambda: layout.point_header("a").exists())
    writer.close()
    recorder.close()
    assert seen == [(2, False)], "the names of the columns, and the row"


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD])
def test_what_is_resumed_lies_in_memory_as_the_parameters_do(optimizer):
    """As on a GPU, where Ultralytics trains channels-last and the copies of a point are not."""
    from nantui.worker import ultralytics_api
    from nantui.worker.points.training_state import restore_gradients

    model = torch.nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    options = {"momentum": 0.9} if optimizer is torch.optim.SGD else {}
    before = optimizer(model.parameters(), lr=0.1, **options)
    model(torch.rand(1, 3, 8, 8)).sum().backward()
    before.step()
    kept = before.state_dict()
    for state in kept["state"].values():
        state.update({k: v.contiguous() for k, v in state.items() if torch.is_tensor(v)})
    gradients = {name: parameter.grad.contiguous() for name, parameter in model.named_parameters()}
    after = optimizer(model.parameters(), lr=0.1, **options)
    after.load_state_dict(kept)
    ultralytics_api.lay_out_optimizer_state(after)
    restore_gradients(model, gradients)
    assert gradients["weight"].stride() != model.weight.stride()
    for name, parameter in model.named_parameters():
        assert parameter.grad.stride() == parameter.stride() and torch.equal(parameter.grad, gradients[name])
        for field, value in after.state[parameter].items():
            assert torch.equal(value, before.state[parameter][field])
            assert value.dim() == 0 or value.stride() == parameter.stride()


def test_a_place_in_memory_is_made_once(tmp_path):
    from nantui.worker.points.host_copy import HostCopy

    copy, live = HostCopy(torch.device("cpu")), {"a": torch.ones(3), "b": [torch.zeros(2), 7]}
    first = copy.take(live)
    live["a"].fill_(5.0)
    assert first["a"].tolist() == [1.0] * 3 and first["b"][1] == 7
    second = copy.take(live)
    assert second["a"] is first["a"] and second["a"].tolist() == [5.0] * 3
    assert copy.take({"a": torch.ones(4)})["a"].shape == (4,)


class LoadedTrainer:
    """What the order of samples needs of a trainer; its loader shuffles `images` numbers."""

    epoch = 0

    def __init__(self, images: int = 7, workers: int = 0) -> None:
        from torch.utils.data import TensorDataset
        from ultralytics.data.build import InfiniteDataLoader

        generator, data = torch.Generator(), TensorDataset(torch.arange(images))
        generator.manual_seed(1)
        self.train_loader: Any = InfiniteDataLoader(
            data, batch_size=3, shuffle=True, generator=generator, num_workers=workers
        )

    def epochs(self, count: int, anew: int | None = None) -> list[list[int]]:
        """Return the next epochs' samples; the loader is reset before `anew`, as where mosaic closes."""
        seen = []
        for epoch in range(self.epoch, self.epoch + count):
            self.epoch = epoch
            if epoch == anew:
                self.train_loader.reset()
            seen.append([int(x) for batch in self.train_loader for x in batch[0]])
        return seen


def test_the_order_of_samples_is_what_the_sampler_would_have_drawn():
    from torch.utils.data import DataLoader, TensorDataset

    from nantui.worker.points.loader_order import Begin, record

    plain, recorded = LoadedTrainer(), LoadedTrainer()
    order = record(recorded, exact=False)  # type: ignore[arg-type]
    assert order is not None and record(recorded, exact=False) is order  # type: ignore[arg-type]
    expected = plain.epochs(3)
    assert recorded.epochs(2) == expected[:2]
    state = order.state()
    again = LoadedTrainer()
    again.epoch = 1
    record(again, exact=False, begin=Begin(1, 2, state))  # type: ignore[arg-type]
    rest = iter(again.train_loader)
    assert next(rest)[0].tolist() == expected[1][6:]
    again.epoch = 2
    assert again.epochs(1) == expected[2:]
    other: Any = LoadedTrainer()
    other.train_loader = DataLoader(TensorDataset(torch.arange(3)))
    assert record(other, exact=False) is None


@pytest.mark.parametrize(("images", "workers"), [(7, 0), (6, 0), (7, 2), (6, 2)])
def test_the_order_is_plain_ultralytics_where_mosaic_closes(images, workers):
    """By the epoch's border an iterator has drawn more or less ahead; a new one goes on from there."""
    from nantui.worker.points.loader_order import Begin, record

    recorded: Any = LoadedTrainer(images, workers)
    order = record(recorded, exact=False)
    expected = LoadedTrainer(images, workers).epochs(5, anew=3)
    found, rest = recorded.epochs(1), iter(recorded.train_loader)
    recorded.epoch = 1
    found.append(next(rest)[0].tolist())
    again: Any = LoadedTrainer(images, workers)
    again.epoch, state = 1, order.state()
    found[1] += [int(x) for batch in rest for x in batch[0]]
    recorded.epoch = 2
    assert found + recorded.epochs(3, anew=3) == expected
    record(again, exact=False, begin=Begin(1, 1, state))
    rest = iter(again.train_loader)
    resumed = [int(x) for _ in range(len(again.train_loader) - 1) for x in next(rest)[0]]
    again.epoch = 2
    assert [resumed, *again.epochs(3, anew=3)] == [expected[1][3:], *expected[2:]]


def test_drawing_an_epoch_leaves_the_generator_and_its_batches_move_it():
    from nantui.worker.points.loader_order import Order

    generator = torch.Generator()

    def late() -> Any:
        yield [0, 1]
        yield [int(torch.randint(9, (1,), generator=generator))]

    before = generator.get_state()
    order = Order.draw(0, late(), generator)
    assert torch.equal(generator.get_state(), before)
    moved = [not torch.equal(generator.get_state(), before) for _ in order.batches(generator)]
    assert moved == [False, True]


@pytest.mark.parametrize(("images", "workers"), [(7, 0), (6, 0), (6, 2)])
def test_a_point_at_any_batch_goes_on_in_the_order_of_plain_ultralytics(images, workers):
    """At the last one of an epoch, too: whether mosaic closes then, has closed or never does."""
    from nantui.worker.points.loader_order import Begin, record

    for anew in (None, 2):
        expected = LoadedTrainer(images, workers).epochs(4, anew)
        whole: Any = LoadedTrainer(images, workers)
        states, order = {}, record(whole, exact=False)
        for whole.epoch in range(3):
            if whole.epoch == anew:
                whole.train_loader.reset()
            for batch, _ in enumerate(whole.train_loader, 1):
                states[whole.epoch, batch] = order.state()
        for (epoch, batch), state in states.items():
            again: Any = LoadedTrainer(images, workers)
            again.epoch, left = epoch, len(again.train_loader) - batch
            record(again, exact=False, begin=Begin(epoch, batch, state)).take_up(again.train_loader)
            rest = [int(x) for _, part in zip(range(left), again.train_loader, strict=False) for x in part[0]]
            again.epoch += 1
            assert [rest, *again.epochs(3 - epoch, anew)] == [
                expected[epoch][3 * batch :],
                *expected[epoch + 1 :],
            ]


def test_a_point_of_the_version_before_goes_on():
    """It has the generator as it stands once its orders are drawn, and does not say how it came there."""
    from nantui.worker.points.loader_order import Begin, record

    expected, whole = LoadedTrainer().epochs(3), LoadedTrainer()
    order = record(whole, exact=False)  # type: ignore[arg-type]
    next(iter(whole.train_loader))
    state = order.state()
    [kept] = state["orders"]
    state["generator"] = list(kept.pop("drawn").values())[-1]
    again: Any = LoadedTrainer()
    record(again, exact=False, begin=Begin(0, 1, state)).take_up(again.train_loader)
    rest = [int(x) for _, part in zip(range(2), again.train_loader, strict=False) for x in part[0]]
    again.epoch = 1
    assert [rest, *again.epochs(2)] == [expected[0][3:], *expected[1:]]


def test_the_table_of_equal_trainings_is_whole():
    names = [case.name for case in equality.CASES]
    assert len(names) == len(set(names)) and len(SAMPLE) == 3 and len(ON_TWO) == 1
    for word in ("SGD", "AdamW", "MuSGD", "workers0", "workers2", "mixed", "plain", "accumulated", "ranks2"):
        assert any(word in name for name in names), word
