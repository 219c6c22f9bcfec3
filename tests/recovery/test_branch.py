"""`--into NAME`, images left out, and what a plan takes from the machine: without torch."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nantui.errors import UserError
from nantui.machine.gpus import Gpu, Host, Sample
from nantui.recovery import __main__ as act
from nantui.recovery import plan_inputs, rollback, run_facts
from nantui.recovery.history import earlier_recoveries
from nantui.recovery.transaction import settle
from nantui.run import spec as specs
from nantui.run.events import Created
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from nantui.run.results import read_results
from nantui.run.spec import read_args, read_spec, write_spec
from nantui.run.telemetry import AFTER_LOSSES, BEFORE_LOSSES
from nantui.settings.gpu_memory import Measured
from tests.recovery import fakes


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunLayout:
    fakes.without_torch(monkeypatch)
    layout = fakes.make_run(tmp_path / "run")
    Journal(layout.journal).append("created", spec={}, cwd="/somewhere")
    return layout


def test_into_a_new_directory_leaves_the_old_one_untouched(layout: RunLayout) -> None:
    before, ours = fakes.tree(layout), sorted(path.name for path in layout.home.rglob("*"))
    done = rollback.branch(fakes.make_plan(layout, {"lr0": 0.003}), "second", by="me")
    new = RunLayout(layout.run.parent / "second")
    assert fakes.tree(layout) == before and sorted(path.name for path in layout.home.rglob("*")) == ours
    assert (done.run, done.mode, done.checkpoint) == (str(new.run), "resume", "weights/last.pt")
    assert new.last.read_bytes() == b"rebased " + (layout.weights / "epoch2.pt").read_bytes()
    assert new.best.read_bytes() == (layout.weights / "epoch2.pt").read_bytes()
    assert [row.epoch for row in read_results(new.results_csv)] == [1, 2, 3]
    args, spec = read_args(new.args_yaml), read_spec(new.spec)
    assert args["lr0"] == 0.003 and args["save_dir"] == str(new.run) and args["name"] == "second"
    assert spec is not None and spec.train["save_dir"] == str(new.run) and spec.ours["guard"] == "protect"
    created = Journal(new.journal).events()[0]
    assert isinstance(created, Created) and created.cwd == "/somewhere"
    assert not [path for path in layout.run.parent.iterdir() if path.name.startswith(".nantui")]


def test_of_a_run_of_somebody_elses_the_settings_are_taken_and_no_program(
    layout: RunLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = read_spec(layout.spec)
    assert spec is not None
    theirs = replace(spec, python="/theirs/python", kind="exec", exec={"argv": ["/theirs/program"]})
    write_spec(layout.spec, theirs)
    for name, named, trains in (("mine", "", "/theirs/python"), ("named", "/my/python", "/my/python")):
        rollback.branch(fakes.make_plan(layout, {}), name, by="me", python=named)
        mine = read_spec(layout.run.parent / name / "nantui/spec.yaml")
        assert mine is not None and (mine.python, mine.kind) == (trains, "exec")
    text, look = layout.spec.read_bytes(), specs.read_owned
    monkeypatch.setattr(
        specs, "read_owned", lambda path, most: (text, 4242) if path == layout.spec else look(path, most)
    )
    rollback.branch(fakes.make_plan(layout, {}), "second", by="me", python="/my/python")
    mine = read_spec(layout.run.parent / "second/nantui/spec.yaml")
    assert mine is not None and (mine.python, mine.kind, mine.exec) == ("/my/python", "train", None)
    assert mine.train["epochs"] == 8


@pytest.mark.parametrize(
    ("name", "says"), [("run", "exists already"), ("a/b", "plain name"), ("..", "plain name")]
)
def test_a_name_that_is_taken_or_no_name_is_refused(layout: RunLayout, name: str, says: str) -> None:
    before = fakes.tree(layout)
    with pytest.raises(UserError, match=says):
        rollback.branch(fakes.make_plan(layout, {}), name, by="me")
    assert fakes.tree(layout) == before


def test_a_full_disk_leaves_no_half_run(layout: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(rollback, "copy_durably", full)
    with pytest.raises(UserError, match="could not be made"):
        rollback.branch(fakes.make_plan(layout, {}), "second", by="me")
    assert [path.name for path in layout.run.parent.iterdir()] == ["run"]


def test_images_are_left_out_by_the_label_checks_own_list_and_count_as_a_step(
    layout: RunLayout, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(act, "plan_for", lambda request: fakes.make_plan(layout, {}, "with-images"))
    request = layout.run.parent / "request.json"
    asked = {"action": "rollback", "run": str(layout.run), "images": ["/data/bad.png"], "id": "with-images"}
    request.write_text(json.dumps(asked))
    assert act.main([str(request)]) == 0, capsys.readouterr().out
    assert "/data/bad.png" in (layout.home / "quarantine.txt").read_text()
    assert earlier_recoveries(RunRecord(layout))[-1].presets == ("quarantine",)


def test_what_a_kill_inside_an_atomic_write_leaves_is_cleared_away(layout: RunLayout) -> None:
    left = [layout.run / "..nantui-abc-results.csv.x1.tmp", layout.home / "..nantui-abc-spec.yaml.x2.tmp"]
    for path in (*left, layout.weights / ".nantui-abc-last.pt"):
        path.write_bytes(b"half")
    before = {name: content for name, content in fakes.tree(layout).items() if "nantui-abc" not in name}
    settle(layout, by="me")
    assert fakes.tree(layout) == before and not any(path.exists() for path in left)


def with_gpus(monkeypatch: pytest.MonkeyPatch, *gpus: Gpu) -> None:
    host = Host(0, 2, 0, 8, 1, 1, 0, 10, 5, 0)
    sampler = SimpleNamespace(sample=lambda: Sample(0.0, gpus, host))
    monkeypatch.setattr(run_facts, "Sampler", lambda: sampler)


def a_gpu(index: int, gib: float, capability: float | None = 9.0) -> Gpu:
    return Gpu(index, "a GPU", gib * 1.073741824, 1.0, None, None, None, None, (), capability)


def write_peaks(layout: RunLayout, peaks: str) -> None:
    layout.attempts.mkdir(exist_ok=True)
    layout.attempt(1).write_text("{}")
    header = ",".join((*BEFORE_LOSSES, "box_loss", *AFTER_LOSSES))
    layout.steps(1).write_text(f"{header}\n1.0,1,1,4,0,,1.0,1.0,0.01,,0.1,80,20,{peaks},9,64,0.01\n")


def test_the_peak_is_what_tensors_filled_and_the_gpus_are_those_that_train(
    layout: RunLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpus(monkeypatch, a_gpu(0, 24), a_gpu(1, 48), a_gpu(2, 8, 7.5))
    write_peaks(layout, "20.5,")
    known = run_facts.known_about(RunRecord(layout), {"device": "0,1"})
    assert known.measured == Measured(20.5, pytest.approx(24.0), 2) and known.bf16 is True
    write_peaks(layout, "20.5,17")
    assert run_facts.known_about(RunRecord(layout), {"device": "1"}).measured == Measured(
        17, pytest.approx(48.0), filled=True
    )
    assert run_facts.known_about(RunRecord(layout), {"device": "1,2"}).bf16 is False
    known = run_facts.known_about(RunRecord(layout), {"device": "cpu,cpu"})
    assert known.measured is None and known.bf16 is None


def test_a_peak_belongs_to_the_settings_it_was_measured_with_also_after_a_change(
    layout: RunLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_gpus(monkeypatch, a_gpu(0, 24, None))
    write_peaks(layout, "6,5")
    Journal(layout.journal).append("in_effect", attempt=1, values={"imgsz": 640, "batch": 16, "stride": 64})
    known = run_facts.known_about(RunRecord(layout), {"imgsz": 1280, "batch": 16, "epochs": 9})
    assert (known.now["imgsz"], known.now["epochs"], known.bf16, known.stride) == (640, 9, None, 64)
    layout.attempt(2).write_text("{}")
    assert run_facts.known_about(RunRecord(layout), {"imgsz": 1280}).now["imgsz"] == 1280


def test_the_size_of_checkpoints_tells_how_much_of_the_peak_the_weights_are() -> None:
    million = 4e6 / 2**30
    saved = [("SGD", 4, False), ("AdamW", 10, False), ("AdamW", 2, True)]
    for optimizer, each, stripped in saved:
        one = fakes.verdict(Path("last.pt"), 3, train_args={"optimizer": optimizer})
        one = replace(one, bytes=each * 1_000_000, epoch=None if stripped else 3, ultralytics=True)
        assert run_facts.weights_gb([one]) == pytest.approx(million)
    assert run_facts.weights_gb([]) == 0


def test_lint_hears_of_the_device_and_the_images_that_the_worker_reported(layout: RunLayout) -> None:
    assert run_facts.known_about(RunRecord(layout), {"device": None}).on_gpu is None
    Journal(layout.journal).append("in_effect", attempt=1, values={"images": 640, "device": "cuda:0"})
    data = layout.run.parent / "data.yaml"
    data.write_text("names: [a, b, c]\n")
    known = run_facts.known_about(RunRecord(layout), {"device": "0,1,2,3", "data": str(data)}, 7)
    assert known.classes == 3 and run_facts.classes_of("nowhere.yaml") is None
    assert (known.images, known.devices, known.on_gpu, known.epoch) == (640, 4, True, 7)
    assert run_facts.known_about(RunRecord(layout), {"device": "cpu"}).on_gpu is False


def test_a_foreign_run_has_no_guard_and_is_offered_one(layout: RunLayout) -> None:
    layout.spec.unlink()
    assert plan_inputs.ours_of(RunRecord(layout))["guard"] == "off"
    rows = {row.name: row.then for row in fakes.make_plan(layout, {}).settings}
    assert rows["guard"] == "protect"


@pytest.mark.parametrize("known_from", ["a corrupt checkpoint", "the live optimizer", "nowhere"])
def test_beginning_again_compares_with_the_rate_that_auto_had_chosen(
    layout: RunLayout, monkeypatch: pytest.MonkeyPatch, known_from: str
) -> None:
    for path in layout.weights.glob("epoch[012].pt"):
        path.unlink()
    layout.args_yaml.write_text("optimizer: auto\nlr0: 0.01\nmomentum: 0.937\nepochs: 8\nbatch: 8\n")
    live = {"optimizer": "AdamW", "lr0": 0.00125, "momentum": 0.9}
    if known_from == "the live optimizer":
        Journal(layout.journal).append("in_effect", attempt=1, values=live)
    real = fakes.verdict
    args = live if known_from == "a corrupt checkpoint" else {"optimizer": "auto"}
    monkeypatch.setattr(fakes, "verdict", lambda *a, **k: real(*a, **{**k, "train_args": args}))
    plan = fakes.make_plan(layout, {}, presets=("restart",))
    rows = {row.name: row for row in plan.settings}
    assert plan.mode == "restart" and rows["optimizer"].then == "SGD"
    if known_from == "nowhere":
        assert rows["lr0"].then == 0.003
    else:
        assert rows["lr0"].kept and rows["lr0"].now == 0.00125
        assert plan.asked["lr0"] == 0.00125 and plan.asked["momentum"] == 0.9
