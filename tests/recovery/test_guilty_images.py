"""Images that the autopsy proved guilty: `R` leaves them out where that was measured to help first."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from nantui.commands import acting
from nantui.recovery import __main__ as act
from nantui.recovery import rollback, transaction
from nantui.recovery.plan import exactly, make_plan, plan_lines
from nantui.recovery.rollback import branch
from nantui.run import quarantine
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.quarantine import newest_change, quarantine_add, quarantined
from nantui.settings.values import changed
from nantui.supervisor.client import CommandResult
from tests.recovery import fakes
from tests.recovery.conftest import POISONED

ONE, OTHER = "/data/005.png", "/data/017.png"


def blame(run: Path, *images: str, cause: str = "broken_labels") -> None:
    named = [{"image": 0, "files": [image], "why": "a box of 1e20 images"} for image in images]
    Journal(RunLayout(run).journal).append("autopsy", cause=cause, text="", evidence={"images": named})


def test_one_image_with_broken_labels_goes_with_it_and_no_is_an_answer(poisoned: Path) -> None:
    assert make_plan(poisoned).images == (), "nothing is proven"
    blame(poisoned, ONE)
    blame(poisoned, OTHER, cause="exploding_gradient")
    plan = make_plan(poisoned)
    assert plan.images == plan.guilty == (ONE,) and plan.presets == ()
    assert re.match(r"leave images out: cured (\d+) of \1, ", plan.measured)
    assert f"leaves out: {ONE}, proven by the autopsy" in plan_lines(plan)
    kept = make_plan(poisoned, leave_out=False)
    assert kept.images == () and kept.guilty == (ONE,) and "leave images out: cured" not in kept.measured[:24]
    assert make_plan(poisoned, presets=["unchanged"]).images == (), "a person named the remedy"
    assert make_plan(poisoned, presets=[], propose=True, leave_out=True).images == (ONE,)


@pytest.mark.parametrize(
    ("images", "cause"), [((ONE, OTHER), "broken_pixels"), ((ONE,), "exploding_gradient")]
)
def test_where_something_else_was_measured_to_help_they_stay(
    poisoned: Path, images: tuple[str, ...], cause: str
) -> None:
    blame(poisoned, *images, cause=cause)
    plan = make_plan(poisoned)
    assert plan.images == () and plan.guilty == (images if cause == "broken_pixels" else ())


def test_a_step_that_was_undone_changes_no_setting_of_a_healthy_training(poisoned: Path) -> None:
    layout = RunLayout(poisoned)
    layout.results_csv.write_text("".join(layout.results_csv.open().readlines()[:POISONED]))
    for spoilt in (layout.last, layout.weights / "best.pt", *layout.weights.glob("epoch[4-9].pt")):
        spoilt.unlink()
    blame(poisoned, ONE, OTHER, cause="exploding_gradient")
    plan = make_plan(poisoned, propose=True, diagnosed=("data", "autopsy"))
    assert plan.restore and plan.restore.work == POISONED - 1 and plan.reason is None
    assert plan.presets == () and not changed(plan.settings)
    blame(poisoned, ONE)
    plan = make_plan(poisoned, propose=True, diagnosed=("data", "autopsy"))
    assert plan.images == (ONE,) and plan.presets == (), "what is proven is left out all the same"


def test_where_that_was_tried_the_next_remedy_comes(poisoned: Path) -> None:
    blame(poisoned, ONE)
    Journal(RunLayout(poisoned).journal).append(
        "rollback_begun", id="r1", restore_point="weights/epoch3.pt", epoch=4, images=[ONE], steps=[]
    )
    assert make_plan(poisoned).presets, "it was tried: the next remedy comes"


def carried_out(run: Path, action: str, id: str, **options: Any) -> int:
    request = run.parent / f"{id}.json"
    request.write_text(json.dumps({"action": action, "run": str(run), "id": id, **options}))
    return act.main([str(request)])


@pytest.mark.parametrize("before", [(), (OTHER,), (ONE,)], ids=["no list", "another on it", "on it before"])
def test_undo_gives_back_the_images_that_its_rollback_left_out(
    poisoned: Path, rebase_here: object, before: tuple[str, ...]
) -> None:
    layout = RunLayout(poisoned)
    quarantine_add(layout, before, "label check")
    blame(poisoned, ONE)
    assert carried_out(poisoned, "rollback", "r1", **exactly(make_plan(poisoned))) == 0
    assert set(quarantined(layout)) == {*before, ONE}
    for _ in range(2):  # asked again by a supervisor that did not live to hear of it
        assert carried_out(poisoned, "undo", "u1") == 0
        assert tuple(quarantined(layout)) == before


def test_a_rollback_that_is_refused_leaves_no_image_out(
    poisoned: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = RunLayout(poisoned)
    quarantine_add(layout, [OTHER], "label check")
    blame(poisoned, ONE)
    full = shutil.disk_usage(poisoned)._replace(free=0)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    assert carried_out(poisoned, "rollback", "r1", **exactly(make_plan(poisoned))) != 0
    assert "nothing was done" in capsys.readouterr().out
    assert quarantined(layout) == [OTHER]


def test_where_the_list_cannot_be_read_no_file_moves(
    poisoned: Path, rebase_here: object, capsys: pytest.CaptureFixture[str]
) -> None:
    layout, asked = RunLayout(poisoned), exactly(make_plan(poisoned))
    layout.quarantine.mkdir(parents=True)
    before = fakes.tree(layout)
    assert carried_out(poisoned, "rollback", "r1", **asked) != 0
    said = capsys.readouterr().out
    assert "the images that are left out, cannot be read" in said and "nothing was changed" in said
    assert fakes.tree(layout) == before and not Journal(layout.journal).events()


def test_undo_leaves_alone_what_a_person_left_out_since(poisoned: Path, rebase_here: object) -> None:
    layout = RunLayout(poisoned)
    blame(poisoned, ONE)
    assert carried_out(poisoned, "rollback", "r1", **exactly(make_plan(poisoned))) == 0
    quarantine_add(layout, [OTHER], "as asked")
    assert carried_out(poisoned, "undo", "u1") == 0
    assert OTHER in quarantined(layout)


def no_room(*given: object) -> list[str]:
    raise OSError("no space left")


def test_where_only_the_list_cannot_be_written_undo_says_what_is_done_and_what_is_not(
    poisoned: Path, rebase_here: object, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = RunLayout(poisoned)
    blame(poisoned, ONE)
    assert carried_out(poisoned, "rollback", "r1", **exactly(make_plan(poisoned))) == 0
    capsys.readouterr()
    monkeypatch.setattr(quarantine, "write_atomic", no_room)
    assert carried_out(poisoned, "undo", "u1") == 0
    said = json.loads(capsys.readouterr().out)["text"]
    assert "was taken back; its images are still on" in said and "no space left" in said
    assert str(layout.quarantine) in said and quarantined(layout) == [ONE]


def test_a_rollback_that_cannot_be_prepared_leaves_no_image_out(
    poisoned: Path, rebase_here: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = RunLayout(poisoned)
    blame(poisoned, ONE)
    monkeypatch.setattr(rollback, "keep_copies", no_room)
    assert carried_out(poisoned, "rollback", "r1", **exactly(make_plan(poisoned))) != 0
    assert quarantined(layout) == [] and newest_change(layout) is None


@pytest.mark.parametrize("killed", [False, True], ids=["it failed", "it was killed and is settled"])
def test_a_rollback_that_is_taken_back_gives_its_images_back(
    poisoned: Path, rebase_here: object, monkeypatch: pytest.MonkeyPatch, killed: bool
) -> None:
    layout = RunLayout(poisoned)
    quarantine_add(layout, [OTHER], "label check")
    blame(poisoned, ONE)
    options, seen = exactly(make_plan(poisoned)), list[str]()

    def fail(run: Path, step: transaction.Step) -> None:
        seen.extend(quarantined(layout))
        raise KeyboardInterrupt if killed else OSError("no space left")

    with monkeypatch.context() as here:
        here.setattr(transaction, "do", fail)
        with contextlib.suppress(KeyboardInterrupt):
            assert carried_out(poisoned, "rollback", "r1", **options) != 0
    assert seen == [OTHER, ONE], "it was left out while the rollback was being done"
    if killed:
        next(layout.weights.glob(".nantui-r1-*")).unlink()  # so that it cannot be finished
        assert carried_out(poisoned, "repair", "", by="me") == 0
    assert quarantined(layout) == [OTHER]


@pytest.mark.parametrize("full", [False, True], ids=["it was killed", "the disk was full"])
def test_an_undo_that_ended_before_the_list_was_written_gives_the_images_back_all_the_same(
    poisoned: Path,
    rebase_here: object,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    full: bool,
) -> None:
    layout = RunLayout(poisoned)
    blame(poisoned, ONE)
    assert carried_out(poisoned, "rollback", "r1", **exactly(make_plan(poisoned))) == 0
    assert quarantined(layout) == [ONE]

    def end(*given: object) -> None:
        raise OSError("no space left") if full else KeyboardInterrupt

    with monkeypatch.context() as here:
        here.setattr(quarantine, "write_atomic", end)
        with contextlib.suppress(KeyboardInterrupt):
            assert carried_out(poisoned, "undo", "u1") == 0 and full, "the undo itself is done"
    assert (f"its images are still on {layout.quarantine} (no space left)" in capsys.readouterr().out) is full
    assert carried_out(poisoned, "undo", "u1") == 0
    assert quarantined(layout) == [] and newest_change(layout) is None


def test_the_command_sends_what_it_shows(
    poisoned: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nantui import cli

    blame(poisoned, ONE)
    sent: list[dict[str, Any]] = []

    def keep(run: Path, command: Any, **how: Any) -> CommandResult:
        sent.append(command.options)
        return CommandResult(True, "")

    monkeypatch.setattr(acting, "carry_out", keep)
    monkeypatch.setattr(acting, "named", lambda run: ("data", "autopsy"))
    assert cli.main(["recover", str(poisoned), "--yes", "--our-runner", "--trust"]) == 0
    assert f"leaves out: {ONE}" in capsys.readouterr().err
    assert sent[0]["images"] == [ONE] and sent[0]["propose"] is False


def test_what_a_dialog_sends_is_what_it_showed_with_the_presets_own_reasons(poisoned: Path) -> None:
    shown = make_plan(poisoned, presets=["nan-safe"], propose=True)
    sent = exactly(shown)
    done = make_plan(poisoned, sent["to"], sent["set"], sent["presets"], propose=sent["propose"])
    assert {(row.name, row.then) for row in done.settings} >= {
        (row.name, row.then) for row in shown.settings if not row.kept
    }
    assert {row.name: row.why for row in done.settings}["lr0"] == next(
        row.why for row in shown.settings if row.name == "lr0"
    )


def test_a_new_run_beside_it_leaves_out_what_the_old_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.without_torch(monkeypatch)
    layout = fakes.make_run(tmp_path / "run")
    quarantine_add(layout, [OTHER], "label check")
    branch(fakes.make_plan(layout, {}), "second", by="me", images=[ONE])
    assert quarantined(RunLayout(tmp_path / "second")) == [OTHER, ONE]
    assert quarantined(layout) == [OTHER], "not one byte of the old one changes"
