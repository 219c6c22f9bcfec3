"""Step points outside of the worker: what a plain resume goes on from, and what it never does."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nantui.checkpoint.scan import refuse_unsound
from nantui.errors import UserError
from nantui.machine.process_tree import send
from nantui.recovery import restore_points
from nantui.recovery.agreement import would_run
from nantui.recovery.plan import make_plan
from nantui.recovery.restore_points import RestoreCriteria, list_candidates, point_to_resume
from nantui.recovery.rollback import roll_back
from nantui.recovery.undo import undo
from nantui.run.events import AttemptStarted, RollbackBegun, newest
from nantui.run.journal import Journal, attempts_in_force
from nantui.run.layout import RunLayout
from nantui.run.points import StepPoint, is_whole, step_points, write_header
from nantui.run.record import Reached
from nantui.run.results import current, read_results
from nantui.supervisor.client import create_run
from tests import waiting
from tests.checkpoint import archives
from tests.checkpoint.hostile import DATA, RUNS_CODE
from tests.recovery import fakes
from tests.supervisor import stub_run
from tests.supervisor.stub_run import StubRun
from tests.waiting import eventually
from tests.worker.runs import draw_data_set, tiny_model


def leave_point(
    layout: RunLayout, name: str, epoch: int, attempt: int = 1, t: float = 0.0, **more: Any
) -> StepPoint:
    """Write a point of random bytes after half of `epoch`."""
    data = os.urandom(1000)
    layout.points.mkdir(parents=True, exist_ok=True)
    layout.point(name).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    point = StepPoint(name, attempt, epoch, 2, 4, epoch * 4, t or float(epoch), len(data), digest, **more)
    write_header(layout, point)
    return point


def started(layout: RunLayout, attempt: int, mode: str = "start") -> None:
    Journal(layout.journal).append("attempt_started", attempt=attempt, mode=mode)


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunLayout:
    """A run whose epochs 1 to 3 are clean (epoch2.pt is the restore point) and which broke in epoch 4."""
    fakes.without_torch(monkeypatch)
    found = fakes.make_run(tmp_path / "run")
    started(found, 1)
    return found


@pytest.fixture
def sound(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random bytes pass for a clean checkpoint, so long as they are whole."""
    words = "not the file that its header describes"
    monkeypatch.setattr(
        restore_points, "why_unsound", lambda layout, point: "" if is_whole(layout, point) else words
    )


def chosen(layout: RunLayout, **changes: Any) -> tuple[str | None, int]:
    """Return the point that a resume takes, and how many were left out; nothing is in trouble."""
    plan = fakes.make_plan(layout, {}, **{"trouble": None, **changes})
    point, left_out = point_to_resume(layout.run, plan.candidates)
    return point.name if point else None, len(left_out)


def test_the_newest_good_point_beyond_the_checkpoint_is_taken(layout, sound):
    leave_point(layout, "a", epoch=3)
    assert chosen(layout) == (None, 0), "it is before the end of epoch 3, which epoch2.pt holds"
    leave_point(layout, "a", epoch=4, t=8.0)
    leave_point(layout, "b", epoch=4, t=9.0)
    assert chosen(layout) == ("b", 0)
    layout.point("b").write_bytes(bytes(1000))
    assert chosen(layout) == ("a", 1), "the older one where the newest is torn"
    layout.point("a").write_bytes(bytes(1000))
    assert chosen(layout) == (None, 2)


def test_what_only_looks_like_a_checkpoint_is_not_taken(layout):
    leave_point(layout, "a", epoch=4)
    assert chosen(layout) == (None, 1), "whole, and no checkpoint"


def test_no_point_of_an_epoch_with_trouble_is_taken(layout, sound):
    leave_point(layout, "a", epoch=fakes.BAD)
    assert chosen(layout) == ("a", 0)
    assert chosen(layout, trouble=fakes.TROUBLE) == (None, 1), "it holds the step, and that is said"
    assert chosen(layout, trouble=replace(fakes.TROUBLE, step=None)) == (None, 1), "the epoch is all we know"
    assert chosen(layout, trouble=replace(fakes.TROUBLE, step=3)) == ("a", 0), (
        "of that epoch, before the step"
    )


def test_a_point_of_another_beginning_is_not_taken(layout, sound):
    leave_point(layout, "a", epoch=4)
    started(layout, 2)
    assert chosen(layout) == (None, 0)
    leave_point(layout, "b", epoch=4, attempt=2)
    started(layout, 3, "resume")
    assert chosen(layout) == ("b", 0)


def points_on_disk(layout: RunLayout) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in layout.points.glob("*")}


def test_a_rollback_moves_points_aside_and_undo_brings_them_back_byte_for_byte(layout, sound):
    for name in "ab":
        leave_point(layout, name, epoch=4)
    before, old = points_on_disk(layout), attempts_in_force(Journal(layout.journal).events())
    roll_back(fakes.make_plan(layout, {}, "back"), by="me")
    assert points_on_disk(layout) == {} and chosen(layout) == (None, 0)
    for name, data in before.items():
        (layout.points / name).write_bytes(data)
    assert step_points(layout) and chosen(layout) == (None, 0), "put back by hand it is as old as it was"
    started(layout, 2, "resume")
    leave_point(layout, "a", epoch=5, attempt=2)
    later = points_on_disk(layout)
    undo(layout, by="me")
    assert points_on_disk(layout) == before
    assert attempts_in_force(Journal(layout.journal).events()) == old == {1}
    aside = {path.name: path.read_bytes() for path in layout.backups.glob("undo-*/nantui/points/*")}
    assert aside == later, "what was trained since moves aside"
    assert chosen(layout)[0] in ("a", "b")


def test_a_point_is_a_restore_point_with_cost_name_and_undo(layout, sound):
    """The run broke in epoch 4 of 6, at step 3; the point is after step 2 of 4 in that epoch."""
    leave_point(layout, "a", epoch=4)
    before, points = fakes.tree(layout), points_on_disk(layout)
    broke = replace(fakes.TROUBLE, step=3)
    for name in ("", "epoch4-step2", "epoch 4 step 2", "nantui/points/a.pt"):
        plan = fakes.make_plan(layout, {}, "back", trouble=broke, to=name)
        assert plan.restore is not None and plan.restore.name == "epoch4-step2"
    assert re.match(r"go back to epoch 4 step 2, .* ago \(lost: ", plan.headline), plan.headline
    assert plan.costs.again == "3 epochs to train again (steps 3 to 4 of epoch 4 and epochs 5 and 6)"
    assert plan.best is not None and plan.best.name == "epoch2.pt", "a point is no best.pt"
    assert not any("points" in one.source for one in plan.moves)
    roll_back(plan, by="me")
    assert layout.last.read_bytes() == b"rebased " + points["a.pt"] and points_on_disk(layout) == {}
    assert [row.epoch for row in current(read_results(layout.results_csv))] == [1, 2, 3]
    begun = newest(Journal(layout.journal).events(), RollbackBegun)
    assert begun is not None and (begun.restore_point, begun.epoch) == ("nantui/points/epoch4-step2", 3)
    fakes.train_on(layout)
    assert undo(layout, by="me").text == "the rollback to epoch 4 step 2 was taken back"
    assert (fakes.tree(layout), points_on_disk(layout)) == (before, points)


def test_a_point_of_the_first_epoch_keeps_no_row_and_makes_no_best(layout, sound):
    leave_point(layout, "a", epoch=1)
    plan = fakes.make_plan(layout, {}, "back", to="epoch1-step2")
    assert plan.restore is not None and (plan.restore.epoch, plan.restore.work, plan.best) == (-1, 0, None)
    roll_back(plan, by="me")
    assert current(read_results(layout.results_csv)) == [] and not layout.best.exists()


def test_the_newest_of_what_is_inside_an_epoch_comes_first(layout, sound):
    """A stop point does not say where it is: whichever was written later is further."""
    layout.stop_point.write_bytes(b"stopped")
    clean = [fakes.verdict(layout.stop_point, 2, point=True), fakes.verdict(layout.weights / "epoch2.pt", 2)]
    point = leave_point(layout, "a", epoch=4)
    inside = fakes.verdict(layout.point("a"), 2, point=True)
    criteria = RestoreCriteria(None, Reached(3, 0.75, 60.0), 8, points={layout.point("a"): point})
    for age, order in ((-9, ["epoch4-step2", "nantui_stop.pt"]), (9, ["nantui_stop.pt", "epoch4-step2"])):
        os.utime(layout.stop_point, (point_time := layout.point("a").stat().st_mtime + age,) * 2)
        found = list_candidates([*clean, inside], criteria)
        assert [one.name for one in found] == [*order, "epoch2.pt"], point_time
    lost = {one.name: (one.lost_text, one.epochs_lost, one.steps_lost, one.hours_lost) for one in found}
    assert lost["nantui_stop.pt"] == ("nothing", 0, 0, 0.0)
    assert lost["epoch4-step2"] == ("step 3 of epoch 4", 0, 1, 0.25 / 60)
    assert lost["epoch2.pt"] == ("part of 4", 1, 0, 0.75 / 60)


def test_a_header_that_tells_of_another_epoch_is_no_restore_point(layout, sound):
    leave_point(layout, "a", epoch=4)
    header = json.loads(layout.point_header("a").read_text())
    plan = fakes.make_plan(layout, {}, trouble=None)
    criteria = RestoreCriteria(
        None, Reached(6, 0.0, 60.0), 8, points={layout.point("a"): step_points(layout)[0]}
    )
    said = fakes.verdict(layout.point("a"), 0, point=True)
    assert plan.restore is not None and header["epoch"] == 4
    assert "its header" in list_candidates([said], criteria)[0].why_not


@pytest.mark.parametrize(
    ("asked", "named"),
    [({"device": "0,1"}, "processes: 1 there, 2 here"), ({"data": "/other.yaml"}, "data set: /d.yaml there")],
)
def test_a_point_that_the_worker_would_refuse_is_left_out_before_the_start(layout, sound, asked, named):
    leave_point(layout, "a", epoch=4, training={"world_size": 1, "data": "/d.yaml", "model": "x"})
    assert chosen(layout) == ("a", 0)
    plan = fakes.make_plan(layout, asked, trouble=None)
    point, (said,) = point_to_resume(layout.run, plan.candidates)
    assert point is None and said.startswith("the step point of epoch 4 step 2") and named in said
    assert plan.restore is not None and plan.restore.point is None, "the newest checkpoint instead"


@pytest.mark.parametrize("kind", sorted(RUNS_CODE)[::17])
def test_a_hostile_point_is_judged_as_any_save_and_shown_before_a_copied_run_goes_on(layout, kind, tmp_path):
    """Its header is right in everything, which proves nothing: who wrote the file wrote the header."""
    point = leave_point(layout, "a", epoch=4)
    data = archives.write(layout.point("a"), RUNS_CODE[kind], DATA).read_bytes()
    write_header(layout, replace(point, size=len(data), digest=hashlib.sha256(data).hexdigest()))
    plan = make_plan(layout.run)
    (judged,) = (one for one in plan.candidates if one.point is not None)
    assert judged.verdict.badge == "unreadable" and not judged.usable and plan.restore is None
    assert point_to_resume(layout.run, plan.candidates)[0] is None
    with pytest.raises(UserError, match="cannot be the restore point"):
        make_plan(layout.run, "epoch4-step2")
    with pytest.raises(UserError, match="choose another"):
        refuse_unsound(layout, layout.point("a"))
    copied = RunLayout(tmp_path / "copied")
    shutil.copytree(layout.run, copied.run)
    assert any("unpickles nantui/points/a.pt (unreadable" in line for line in would_run(copied))


def test_a_resume_that_is_taken_back_takes_its_points_with_it(layout, sound):
    Journal(layout.journal).append("kept", id="k", epoch=3)
    started(layout, 2, "resume")
    leave_point(layout, "a", epoch=5, attempt=2)
    assert chosen(layout) == ("a", 0)
    Journal(layout.journal).append("undo_begun", id="u", of="k", steps=[])
    Journal(layout.journal).append("undo_done", id="u", of="k")
    assert chosen(layout) == (None, 0)


@pytest.mark.training
def test_a_killed_training_goes_on_in_the_epoch_that_was_begun(tmp_path, monkeypatch, warm_python):
    """SIGKILL in the first epoch, where there is no last.pt, and again in the second."""
    for name, value in {**stub_run.own_home(tmp_path), "OMP_NUM_THREADS": "1"}.items():
        monkeypatch.setenv(name, value)
    patience = "patience: {stop_s: 60, tick_s: 0.1, idle_exit_s: 1, other_phase_s: 600}\n"
    (tmp_path / "config" / "nantui" / "supervise.yaml").write_text(patience)
    monkeypatch.setattr(waiting, "PATIENCE_S", 180.0)
    train = {
        "model": str(tiny_model(tmp_path)), "data": str(draw_data_set(tmp_path / "data")), "imgsz": 64,
        "batch": 4, "nbs": 4, "epochs": 3, "device": "cpu", "workers": 0, "plots": False, "warmup_epochs": 0,
        "optimizer": "SGD", "project": str(tmp_path / "runs"), "name": "real", "save_period": 1,
    }  # fmt: skip
    waits = [
        {"fault": "slow_step", "epoch": epoch, "batch": batch, "attempt": attempt, "seconds": seconds}
        for epoch, attempt in ((1, 1), (2, 2))
        for batch, seconds in ((5, 2.0), (7, 600.0))
    ]
    run = StubRun(create_run(train, {"step_points": 0.2}, faults=waits, python=warm_python))
    try:
        for attempt, epoch in ((1, 1), (2, 2)):
            eventually(lambda a=attempt, e=epoch: any((p.attempt, p.epoch) == (a, e) and p.batch >= 4
                       for p in step_points(run.layout)), lambda: str(run.status()))  # fmt: skip
            eventually(lambda a=attempt: run.status().attempt == a and (run.status().step or 0) >= 6)
            for ref in run.members():
                send(ref, signal.SIGKILL)
            run.await_state("lost", "failed")
            assert run.layout.last.exists() == (epoch > 1)
            point = step_points(run.layout)[0]
            outcome = run.do("resume")
            assert outcome.ok and f"goes on in epoch {epoch} after step {point.batch}" in outcome.text, (
                outcome
            )
            begun = newest(Journal(run.layout.journal).events(), AttemptStarted)
            assert begun is not None and (begun.mode, begun.checkpoint) == ("resume", point.path)
        run.await_state("finished")
        told = [json.loads(line) for n in (2, 3) for line in run.layout.events(n, 0).read_text().splitlines()]
        places = [(one["epoch"], one["step"] > 0) for one in told if one["kind"] == "continued"]
        assert places == [(1, True), (2, True)]
        assert [row.epoch for row in current(read_results(run.layout.results_csv))] == [1, 2, 3]
    finally:
        for ref in run.members():
            send(ref, signal.SIGKILL)
