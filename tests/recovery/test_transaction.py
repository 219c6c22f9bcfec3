"""Rollback and undo as transactions: what moves where, faults at every call, and undo byte for byte."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nantui.errors import UserError
from nantui.recovery import rollback, transaction
from nantui.recovery import rollback as stage
from nantui.recovery import transaction as steps
from nantui.recovery import undo as undoing
from nantui.recovery.phase_change import advance
from nantui.recovery.rollback import roll_back
from nantui.recovery.transaction import pending, settle
from nantui.recovery.undo import keep_for_undo, undo
from nantui.run.events import Change, RollbackBegun
from nantui.run.journal import Journal, in_force
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from nantui.run.results import read_results
from nantui.run.spec import read_args, read_spec, write_spec
from tests.recovery import fakes


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunLayout:
    fakes.without_torch(monkeypatch)
    return fakes.make_run(tmp_path / "run")


def test_a_rollback_restores_moves_trims_and_keeps_everything(layout: RunLayout) -> None:
    before, originals = fakes.tree(layout), fakes.contents(layout)
    plan = fakes.make_plan(layout, {"lr0": 0.003, "grad_clip": 1.0})
    assert plan.restore is not None and plan.restore.name == "epoch2.pt"
    done = roll_back(plan, by="me@here")
    after = fakes.tree(layout)
    backup = "weights/corrupted_backup"
    for name in ("last", "best", "epoch3", "epoch4", "epoch5"):
        assert after[f"{backup}/{name}_epoch4_corrupted.pt"] == before[f"weights/{name}.pt"]
    assert after["weights/best.pt"] == before["weights/epoch2.pt"]
    assert layout.last.read_bytes() == b"rebased " + (layout.weights / "epoch2.pt").read_bytes()
    assert [row.epoch for row in read_results(layout.results_csv)] == [1, 2, 3]
    assert read_args(layout.args_yaml)["lr0"] == 0.003
    spec = read_spec(layout.spec)
    assert spec is not None and spec.train["lr0"] == 0.003
    assert spec.ours == {"guard": "protect", "grad_clip": 1.0}
    assert originals <= fakes.contents(layout)
    assert (done.mode, done.checkpoint) == ("resume", "weights/last.pt")
    assert done.asked == {"lr0": 0.003, "grad_clip": 1.0, "guard": "protect"}
    assert not list(layout.run.rglob(".nantui-*"))


SCRIPT = {"python": "/env/bin/python", "kind": "exec", "exec": {"argv": ["python", "train.py"]}}


@pytest.mark.parametrize("act", ["rollback", "change of phase"])
@pytest.mark.parametrize("lock_is_theirs", [False, True])
def test_where_a_mount_gives_files_another_owner_what_the_spec_would_run_is_kept(
    layout: RunLayout, monkeypatch: pytest.MonkeyPatch, act: str, lock_is_theirs: bool
) -> None:
    """The lock that this user has just made shows whose name the mount gives; else the spec is theirs."""
    fakes.finished_phase(layout, monkeypatch)
    mine = read_spec(layout.spec)
    assert mine is not None
    write_spec(layout.spec, replace(mine, **SCRIPT))
    layout.lock.touch()
    if os.getuid() == 0:  # root is trusted by everybody: the mount's owner must be somebody else
        os.chown(layout.spec, 4711, -1)
        os.chown(layout.lock, 4712 if lock_is_theirs else 4711, -1)
    elif lock_is_theirs:
        layout.lock.unlink()
    monkeypatch.setattr("os.getuid", lambda: 12345)
    if act == "rollback":
        roll_back(fakes.make_plan(layout, {"lr0": 0.003}), by="me")
    else:
        advance(layout, id="p1", by="me")
    monkeypatch.undo()
    now = read_spec(layout.spec)
    assert now is not None
    kept = (now.python, now.exec)
    assert kept == (("", None) if lock_is_theirs else (SCRIPT["python"], SCRIPT["exec"]))


def test_the_journal_has_the_plan_before_the_first_step_and_each_step_before_it_is_done(
    layout: RunLayout,
) -> None:
    roll_back(fakes.make_plan(layout, {"lr0": 0.003}), by="me@here")
    events = Journal(layout.journal).events()
    kinds = [event.kind for event in events]
    assert kinds == ["rollback_begun", *["rollback_step"] * (len(kinds) - 2), "rollback_done"]
    begun = events[0]
    assert isinstance(begun, RollbackBegun)
    assert begun.restore_point == "weights/epoch2.pt" and begun.epoch == 3 and begun.epochs_lost == 3
    assert len(begun.steps) == len(kinds) - 2
    assert Change("lr0", 0.01, 0.003, "asked for", kept=False) in begun.settings


def test_a_second_rollback_never_overwrites_an_older_back_up(layout: RunLayout) -> None:
    roll_back(fakes.make_plan(layout, {}, "one"), by="me")
    fakes.train_on(layout)
    old = fakes.contents(layout)
    roll_back(fakes.make_plan(layout, {}, "two"), by="me")
    names = {path.name for path in layout.corrupted_backup.iterdir()}
    assert {"last_epoch4_corrupted.pt", "last_epoch4_corrupted-2.pt", "epoch3_epoch4_corrupted-2.pt"} <= names
    assert old <= fakes.contents(layout)


@pytest.mark.parametrize("trained", [False, True])
def test_undo_gives_everything_back_byte_for_byte(layout: RunLayout, trained: bool) -> None:
    before, spec = fakes.tree(layout), layout.spec.read_bytes()
    stamps = {name: os.stat(layout.run / name).st_mtime_ns for name, content in before.items() if content}
    roll_back(fakes.make_plan(layout, {"lr0": 0.003}), by="me")
    if trained:
        fakes.train_on(layout)
    later = fakes.contents(layout)
    done = undo(layout, by="me")
    assert fakes.tree(layout) == before and done.missing == ()
    assert {name: os.stat(layout.run / name).st_mtime_ns for name in stamps} == stamps
    assert layout.spec.read_bytes() == spec
    assert later <= fakes.contents(layout), "what the later attempt made moves aside, nothing is deleted"
    assert not in_force(RunRecord(layout).journal)
    with pytest.raises(UserError, match="no rollback, resume or change of phase to take back"):
        undo(layout, by="me")


def test_of_two_who_were_shown_the_same_rollback_one_takes_it_back(layout: RunLayout) -> None:
    for id in ("one", "two"):
        roll_back(fakes.make_plan(layout, {"lr0": 0.001}, id), by="me")
        fakes.train_on(layout)
    assert undo(layout, by="me", shown="two").of == "two"
    left = fakes.tree(layout)
    with pytest.raises(UserError, match="not the last any more, look again"):
        undo(layout, by="somebody else", shown="two")
    assert fakes.tree(layout) == left, "the one before it was not asked for"
    assert undo(layout, by="somebody else", shown="one").of == "one"


def test_rollbacks_are_taken_back_one_by_one(layout: RunLayout) -> None:
    trees = [fakes.tree(layout)]
    for id in ("one", "two"):
        roll_back(fakes.make_plan(layout, {"lr0": 0.001}, id), by="me")
        fakes.train_on(layout)
        trees.append(fakes.tree(layout))
    undo(layout, by="me")
    assert fakes.tree(layout) == trees[1]
    undo(layout, by="me")
    assert fakes.tree(layout) == trees[0]


def test_a_plain_resume_is_taken_back_byte_for_byte(layout: RunLayout) -> None:
    trees = [fakes.tree(layout)]
    for id in ("one", "two"):
        keep_for_undo(layout, 3, id=id, by="me")
        fakes.train_on(layout)
        (layout.best).write_bytes(id.encode())
        trees.append(fakes.tree(layout))
    later = fakes.contents(layout)
    assert undo(layout, by="me").text == "the resume after epoch 3 was taken back"
    assert fakes.tree(layout) == trees[1] and later <= fakes.contents(layout)
    undo(layout, by="me")
    assert fakes.tree(layout) == trees[0]
    with pytest.raises(UserError, match="no rollback, resume or change of phase to take back"):
        undo(layout, by="me")


def test_a_resume_is_no_rollback_and_the_copies_of_older_ones_go(layout: RunLayout) -> None:
    roll_back(fakes.make_plan(layout, {}, "back"), by="me")
    for id in ("one", "two", "three"):
        keep_for_undo(layout, 3, id=id, by="me")
    assert {path.name for path in layout.backups.iterdir()} == {"back", "two", "three"}
    assert [one.id for one in in_force(RunRecord(layout).journal)] == ["back", "two", "three"]
    for of in ("three", "two", "back"):
        assert undo(layout, by="me").of == of


def test_a_resume_without_room_for_its_copies_leaves_nothing(
    layout: RunLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(steps, "copy_durably", full)
    before = fakes.tree(layout)
    with pytest.raises(UserError, match="No space left on device.*nothing was started"):
        keep_for_undo(layout, 3, id="one", by="me")
    assert fakes.tree(layout) == before and not (layout.backups / "one").exists()
    assert not in_force(RunRecord(layout).journal)


def test_undo_says_what_somebody_else_has_destroyed(layout: RunLayout) -> None:
    roll_back(fakes.make_plan(layout, {}), by="me")
    (layout.weights / "epoch0.pt").unlink()
    (layout.corrupted_backup / "epoch4_epoch4_corrupted.pt").unlink()
    done = undo(layout, by="me")
    assert sorted(done.missing) == ["weights/epoch0.pt", "weights/epoch4.pt"]
    assert (layout.weights / "epoch3.pt").exists() and not layout.corrupted_backup.exists()


def test_plan_b_moves_everything_aside_and_leaves_the_directory_for_a_fresh_start(layout: RunLayout) -> None:
    for name in ("epoch0.pt", "epoch1.pt", "epoch2.pt"):
        (layout.weights / name).unlink()
    before = fakes.tree(layout)
    plan = fakes.make_plan(layout, {"lr0": 0.003})
    assert plan.restore is None and plan.mode == "restart"
    done = roll_back(plan, by="me")
    assert done.mode == "restart" and done.checkpoint is None
    assert not list(layout.weights.glob("*.pt")) and not layout.results_csv.exists()
    undo(layout, by="me")
    assert fakes.tree(layout) == before


def fault(monkeypatch: pytest.MonkeyPatch, calls: list[tuple[Any, str]], number: int, code: int) -> list[str]:
    """Let the `number`-th call of any of `calls`, and all after it, fail as a full or forbidden disk does."""
    seen: list[str] = []

    def failing(real: Any, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            seen.append(name)
            if len(seen) == number or (len(seen) > number and code == errno.ENOSPC and name == "append"):
                raise OSError(code, os.strerror(code))
            return real(*args, **kwargs)

        return call

    for owner, name in calls:
        monkeypatch.setattr(owner, name, failing(getattr(owner, name), name))
    return seen


CALLS: list[tuple[Any, str]] = [
    (steps, "rename_without_replacing"), (steps, "sync_directory"), (Journal, "append"),
    (stage, "copy_durably"), (steps, "copy_durably"), (undoing, "write_json"), (stage, "write_atomic"),
]  # fmt: skip


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_a_fault_at_any_call_leaves_everything_as_it_was(tmp_path: Path, code: int) -> None:
    number, finished = 0, False
    while not finished:
        number += 1
        with pytest.MonkeyPatch.context() as monkeypatch:
            fakes.without_torch(monkeypatch)
            layout = fakes.make_run(tmp_path / f"run{number}")
            before, originals = fakes.tree(layout), fakes.contents(layout)
            plan = fakes.make_plan(layout, {"lr0": 0.003})
            seen = fault(monkeypatch, CALLS, number, code)
            try:
                roll_back(plan, by="me")
                finished = True
            except UserError as error:
                assert "nothing was" in str(error) or "put back" in str(error)
                assert "\n" not in str(error)
        if not finished:
            assert fakes.tree(layout) == before and originals <= fakes.contents(layout)
            settle(layout, by="me")
            assert pending(layout) is None and fakes.tree(layout) == before
    assert number > 30 and len(seen) < number


def test_a_file_that_vanishes_before_the_transaction_stops_it(layout: RunLayout) -> None:
    plan = fakes.make_plan(layout, {"lr0": 0.003})
    (layout.weights / "epoch4.pt").unlink()
    before = fakes.tree(layout)
    with pytest.raises(UserError, match="nothing was changed"):
        roll_back(plan, by="me")
    assert fakes.tree(layout) == before and not (layout.backups / "t1").exists()


def test_a_file_that_vanishes_during_the_transaction_costs_only_itself(
    layout: RunLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fakes.tree(layout)
    append = Journal.append

    def deleting(self: Journal, kind: str, **fields: Any) -> Any:
        if kind == "rollback_begun":
            (layout.weights / "epoch5.pt").unlink()
        return append(self, kind, **fields)

    monkeypatch.setattr(Journal, "append", deleting)
    with pytest.raises(UserError, match="put back as it was"):
        roll_back(fakes.make_plan(layout, {"lr0": 0.003}), by="me")
    assert fakes.tree(layout) == {
        name: content for name, content in before.items() if name != "weights/epoch5.pt"
    }


def test_a_file_that_a_stray_writer_puts_in_the_way_is_moved_aside(
    layout: RunLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fakes.tree(layout)
    append = Journal.append
    index = {"n": 0}

    def interfering(self: Journal, kind: str, **fields: Any) -> Any:
        index["n"] += kind == "rollback_step"
        if index["n"] == 7 and kind == "rollback_step":
            layout.last.write_bytes(b"a stray save")
            raise OSError(errno.ENOSPC, "No space left on device")
        return append(self, kind, **fields)

    monkeypatch.setattr(Journal, "append", interfering)
    with pytest.raises(UserError, match="put back as it was"):
        roll_back(fakes.make_plan(layout, {"lr0": 0.003}), by="me")
    monkeypatch.setattr(Journal, "append", append)
    assert fakes.tree(layout) == before
    assert b"a stray save" in {path.read_bytes() for path in layout.home.rglob("last.pt")}


def test_a_living_writer_is_refused(layout: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollback, "living_writers", lambda layout: ["pid 7 (rank 0)"])
    before = fakes.tree(layout)
    with pytest.raises(UserError, match="pid 7 .*stop it first"):
        roll_back(fakes.make_plan(layout, {}), by="me")
    assert fakes.tree(layout) == before


def test_settling_a_run_without_a_transaction_does_nothing(layout: RunLayout) -> None:
    before = fakes.tree(layout)
    assert settle(layout, by="me") == "" and fakes.tree(layout) == before
    assert transaction.pending(layout) is None
