"""Plans: reading them, the change from one phase to the next as a transaction, and a real one end to end."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from nantui import cli
from nantui.checkpoint.catalog import Catalog
from nantui.errors import UserError
from nantui.machine.process_tree import send
from nantui.recovery import __main__ as act
from nantui.recovery import phase_change as changing
from nantui.recovery import transaction as steps
from nantui.recovery.comparison import results_of
from nantui.recovery.history import earlier_recoveries
from nantui.recovery.phase_change import advance, clean_weights
from nantui.recovery.transaction import pending
from nantui.recovery.undo import undo
from nantui.run.attempts import read_attempt
from nantui.run.events import parse_all
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.plan import PlanPhase, next_step, next_waits, phases_of, standing, with_phase
from nantui.run.record import RunRecord
from nantui.run.results import current, read_results
from nantui.run.spec import read_args, read_spec
from nantui.settings.presets import read_phases
from nantui.settings.schema import Schema
from tests import waiting
from tests.recovery import fakes
from tests.recovery.conftest import SETTINGS
from tests.supervisor.stub_run import StubRun
from tests.waiting import eventually


def test_the_guides_plan_is_small_first_and_then_large() -> None:
    phases = read_phases("progressive", Schema.load())
    assert [dict(phase.settings) for phase in phases] == [
        {"epochs": 150, "imgsz": 640}, {"epochs": 50, "imgsz": 1280, "lr0": 0.001},
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({}, "needs `phases:`"),
        ({"phases": []}, "at least one phase"),
        ({"phases": [{"title": "x"}]}, "each with `settings:`"),
        ({"phases": [{"settings": {"lr": 1}}]}, "did you mean lr0"),
        ({"phases": [{"settings": {"model": "other.pt"}}]}, "a phase cannot set it"),
    ],
)
def test_a_wrong_plan_is_named_with_what_is_wrong(
    tmp_path: Path, document: dict[str, Any], says: str
) -> None:
    path = tmp_path / "plan.yaml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(UserError, match=f"plan.yaml.*{says}"):
        read_phases(str(path), Schema.load())
    with pytest.raises(UserError, match="no plan 'nix'"):
        read_phases("nix", Schema.load())


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunLayout:
    fakes.without_torch(monkeypatch)
    return fakes.finished_phase(fakes.make_run(tmp_path / "run"), monkeypatch)


def test_the_next_phase_has_the_runs_own_settings_its_own_and_the_weights_before(layout: RunLayout) -> None:
    before = fakes.tree(layout)
    done = advance(layout, id="p1", by="me")
    assert (done.phase, done.asked) == (2, {"imgsz": 128, "grad_clip": 1.0})
    aside = {path.removeprefix("nantui/phases/01/") for path in moved(layout)}
    assert aside == {path for path, content in before.items() if content}
    assert not any(content for content in fakes.tree(layout).values())
    spec = read_spec(layout.spec)
    assert spec is not None and spec.plan is not None and spec.plan["phase"] == 2
    assert spec.train["epochs"] == 20, "phase 1's own settings end with it"
    assert (spec.train["imgsz"], spec.ours) == (128, {"guard": "observe", "grad_clip": 1.0})
    assert spec.train["model"] == str(layout.run / "nantui/phases/01/weights/best.pt")
    assert standing(Journal(layout.journal).events()) == (2, False)


def moved(layout: RunLayout) -> list[str]:
    found = (layout.home / "phases").rglob("*")
    return [str(path.relative_to(layout.run)) for path in found if path.is_file()]


def test_what_recoveries_decided_stays_in_force_and_each_phase_has_its_own_ladder(layout: RunLayout) -> None:
    rows = [{"name": "amp", "then": False}, {"name": "imgsz", "then": 32}, {"name": "lr0", "then": 0.001}]
    journal = Journal(layout.journal)
    journal.append("rollback_begun", id="r1", settings=rows, restore_point="weights/last.pt", epoch=3)
    journal.append("rollback_done", id="r1")
    journal.append("attempt_started", attempt=2, phase={"number": 1})
    journal.append("attempt_ended", attempt=2, outcome="finished")
    assert len(earlier_recoveries(RunRecord(layout))) == 1
    advance(layout, id="p1", by="me")
    spec = read_spec(layout.spec)
    assert spec is not None and (spec.train["amp"], spec.train["lr0"], spec.train["imgsz"]) == (
        False,
        0.001,
        128,
    )
    assert earlier_recoveries(RunRecord(layout)) == []
    undo(layout, by="me")
    assert len(earlier_recoveries(RunRecord(layout))) == 1


def test_undo_gives_the_finished_phase_back_also_after_the_next_has_trained(layout: RunLayout) -> None:
    before, spec = fakes.tree(layout), layout.spec.read_bytes()
    advance(layout, id="p1", by="me")
    Journal(layout.journal).append("attempt_started", attempt=2, phase={"number": 2})
    (layout.run / "results.csv").write_text("epoch,time,train/box_loss\n1,2.0,3.0\n")
    layout.last.write_bytes(b"phase 2")
    assert "phase 2 was taken back" in undo(layout, by="me").text
    assert fakes.tree(layout) == before and layout.spec.read_bytes() == spec
    assert next_waits(read_spec(layout.spec).plan, Journal(layout.journal).events())
    advance(layout, id="p2", by="me")
    assert standing(Journal(layout.journal).events()) == (2, False)


def test_an_attempt_of_an_earlier_phase_still_has_its_curves(layout: RunLayout) -> None:
    results = layout.results_csv.read_bytes()
    assert results_of(RunRecord(layout), 1) == layout.results_csv
    advance(layout, id="p1", by="me")
    Journal(layout.journal).append("attempt_started", attempt=2, phase={"number": 2})
    assert results_of(RunRecord(layout), 1).read_bytes() == results
    assert results_of(RunRecord(layout), 2) == layout.results_csv


def test_a_full_disk_or_a_plan_at_its_end_changes_nothing(
    layout: RunLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, spec = fakes.tree(layout), layout.spec.read_bytes()

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(changing, "write_atomic", full)
        with pytest.raises(UserError, match="nothing was changed"):
            advance(layout, id="p1", by="me")
    assert fakes.tree(layout) == before and layout.spec.read_bytes() == spec
    advance(layout, id="p2", by="me")
    with pytest.raises(UserError, match="no further phase"):
        advance(layout, id="p3", by="me")


def test_a_change_of_phase_that_a_crash_left_half_done_is_finished_and_not_done_twice(
    layout: RunLayout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(run: Path, step: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(steps, "do", killed)
        with pytest.raises(KeyboardInterrupt):
            advance(layout, id="p1", by="me")
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"action": "phase", "run": str(layout.run), "id": "p2"}))
    assert act.main([str(request)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["phase"], answer["asked"]) == (2, {"imgsz": 128, "grad_clip": 1.0})
    assert standing(Journal(layout.journal).events()) == (2, False)


def test_what_stands_in_the_way_of_a_change_of_phase_leaves_everything_as_it_was(layout: RunLayout) -> None:
    before = fakes.tree(layout)
    (layout.home / "phases").write_text("in the way")
    with pytest.raises(UserError, match="put back as it was"):
        advance(layout, id="p1", by="me")
    assert fakes.tree(layout) == before and pending(layout) is None


def test_a_phase_that_left_nothing_clean_is_no_ground_for_the_next(poisoned: Path, finished: Path) -> None:
    assert clean_weights(RunLayout(finished), 1) == "weights/best.pt"
    for name in ("best.pt", "last.pt"):
        (poisoned / "weights" / name).write_bytes((poisoned / "weights/epoch6.pt").read_bytes())
    with pytest.raises(UserError, match=r"best.pt is corrupt, last.pt is corrupt"):
        clean_weights(RunLayout(poisoned), 1)


def test_a_phase_is_appended_to_a_run_without_a_plan() -> None:
    plan = with_phase(None, PlanPhase("fine-tune", {"imgsz": 640}), {"imgsz": 320}, {})
    assert [phase.settings for phase in phases_of(plan)] == [{}, {"imgsz": 640}]
    ended = parse_all([{"kind": "attempt_started"}, {"kind": "attempt_ended", "outcome": "finished"}])
    assert next_waits(plan, ended) and not next_waits(plan, ended[:1]) and not next_waits(None, ended)


def test_what_a_remedy_advises_afterwards_is_said_until_it_is_undone() -> None:
    advice = {"title": "fine-tune", "settings": {"imgsz": 1280, "epochs": 50}}
    begun, done = (
        {"kind": "rollback_begun", "id": "r", "afterwards": advice},
        {"kind": "rollback_done", "id": "r"},
    )
    assert "--phase imgsz=1280 epochs=50" in next_step(parse_all([begun, done]))
    assert next_step(parse_all([begun, done, {"kind": "undo_done", "of": "r"}])) == ""
    changed = [{"kind": "phase_begun", "id": "p"}, {"kind": "phase_done", "id": "p"}]
    assert next_step(parse_all([begun, done, *changed])) == ""
    back = [*changed, {"kind": "undo_done", "of": "p"}]
    assert "--phase imgsz=1280 epochs=50" in next_step(parse_all([begun, done, *back]))


@pytest.fixture
def place(room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in ("CONFIG", "CACHE", "STATE"):
        monkeypatch.setenv(f"XDG_{name}_HOME", str(tmp_path / name.lower()))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(waiting, "PATIENCE_S", 300.0)
    yield tmp_path
    for run in (tmp_path / "runs").glob("*"):
        for ref in StubRun(run).members():
            send(ref, signal.SIGKILL)


def test_a_real_plan_trains_small_and_then_large_as_one_run(
    room: Path, place: Path, warm_python: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two trainings through the command, the supervisor and the worker."""
    plan = {"phases": [{"title": "small", "settings": {"epochs": 1, "imgsz": 32}},
                       {"title": "large", "settings": {"epochs": 2, "imgsz": 64, "lr0": 0.001}}]}  # fmt: skip
    (place / "plan.yaml").write_text(yaml.safe_dump(plan))
    asked = {**SETTINGS, "model": room / "tiny.yaml", "data": room / "data/data.yaml", "optimizer": "SGD",
             "project": place / "runs", "name": "plan", "epochs": 9}  # fmt: skip
    words = [f"{name}={value}" for name, value in asked.items()]
    plan_file = str(place / "plan.yaml")
    assert cli.main(["train", *words, "--plan", plan_file, "--python", warm_python]) == 0
    said = capsys.readouterr().err
    assert "phase 2 of 2: large (epochs=2, imgsz=64, lr0=0.001)" in said
    assert "the plan sets" in said and "epochs" in said
    run = StubRun(place / "runs/plan")
    eventually(lambda: run.status().state in ("finished", "failed"), lambda: str(run.status()))
    phase = run.status().phase
    assert phase == {"number": 2, "of": 2, "title": "large", "epochs_before": 1, "epochs_in_all": 3,
                     "eta_s": None, "unknown": ""}, run.journal()[-1]  # fmt: skip
    assert [entry["outcome"] for entry in run.journal() if entry["kind"] == "attempt_ended"] == [
        "finished",
        "finished",
    ]
    effect = [entry for entry in run.journal() if entry["kind"] == "in_effect"]
    assert [(one["values"]["imgsz"], one["values"]["lr0"]) for one in effect] == [(32, 0.01), (64, 0.001)]
    assert not effect[1]["differences"]
    assert [row.epoch for row in current(read_results(run.layout.results_csv))] == [1, 2]
    first = run.layout.home / "phases/01"
    assert [row.epoch for row in current(read_results(first / "results.csv"))] == [1]
    assert read_args(run.layout.args_yaml)["model"] == str(first / "weights/best.pt")
    assert "Transferred" in run.layout.attempt_log(2).read_text()
    assert {verdict.badge for verdict in Catalog(run.layout.weights).verdicts()} == {"clean"}
    attempt = read_attempt(run.layout, 2)
    assert attempt is not None and attempt.asked == {"epochs": 2, "imgsz": 64, "lr0": 0.001}
