"""The guide's own story on a tiny model: NaN, laundered checkpoints, rollback, stock resume, finished."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nantui.checkpoint.catalog import Catalog
from nantui.errors import NO, UserError
from nantui.recovery import __main__ as act
from nantui.recovery.plan import make_plan, plan_lines
from nantui.recovery.rollback import roll_back
from nantui.recovery.undo import undo
from nantui.run.attempts import Attempt, write_attempt
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.results import current, read_results
from nantui.run.spec import read_args
from nantui.ui.model.backend import Backend
from nantui.ui.model.checkpoint_rows import rows
from nantui.ui.model.run_reader import list_checkpoints
from nantui.ui.watchers import Scanner
from tests.recovery import fakes
from tests.recovery.conftest import ENDED, EPOCHS, POISONED


def badges(run: Path) -> dict[str, str]:
    catalog = Catalog(run / "weights")
    return {file.name: catalog.verdict(file.path).badge for file in catalog.files() if not file.in_backup}


def test_the_whole_story_ends_with_a_finished_run_under_nan_safe(
    poisoned: Path, rebase_here: Callable[..., Any], capsys: pytest.CaptureFixture[str], warm_python: str
) -> None:
    before = badges(poisoned)
    assert before["last.pt"] == "corrupt"
    assert {name for name, badge in before.items() if badge == "clean" and name != "best.pt"} == {
        f"epoch{n}.pt" for n in range(POISONED - 1)
    }
    plan = make_plan(poisoned)
    assert plan.restore is not None and plan.restore.name == f"epoch{POISONED - 2}.pt"
    assert plan.trouble is not None and plan.trouble.epoch == POISONED
    assert (plan.costs.epochs_lost, plan.costs.lost_text) == (3, "5, 6 and 7")
    assert (
        plan.presets == ("nan-safe",)
        and plan.asked["optimizer"] == "SGD"
        and plan.asked["guard"] == "protect"
    )
    originals = fakes.contents(RunLayout(poisoned))

    request = poisoned.parent / "request.json"
    options = {"set": {}, "presets": ["nan-safe"], "id": "abc", "by": "me@here"}
    request.write_text(json.dumps({"action": "rollback", "run": str(poisoned), **options}))
    assert act.main([str(request)]) == 0
    answer = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (answer["ok"], answer["id"], answer["checkpoint"]) == (True, "abc", "weights/last.pt")
    assert originals <= fakes.contents(RunLayout(poisoned))
    assert (poisoned / f"weights/corrupted_backup/last_epoch{POISONED}_corrupted.pt").exists()
    assert set(badges(poisoned).values()) == {"clean"}

    stock = [
        warm_python,
        "-m",
        "ultralytics.cfg.__init__",
        "train",
        "resume",
        f"model={poisoned}/weights/last.pt",
    ]
    environment = {**os.environ, "YOLO_OFFLINE": "true", "OMP_NUM_THREADS": "1"}
    log = subprocess.run(stock, capture_output=True, text=True, env=environment, cwd=poisoned.parent)
    assert log.returncode == 0, log.stdout[-2000:] + log.stderr[-2000:]
    rows = current(read_results(poisoned / "results.csv"))
    assert [row.epoch for row in rows] == list(range(1, EPOCHS + 1)) and all(row.finite for row in rows)
    expected = 0.003 * ((1 - 11 / EPOCHS) * (1 - 0.00001) + 0.00001)
    assert rows[11].values["lr/pg0"] == pytest.approx(expected, rel=1e-4), (
        "the rate in effect, by stock Ultralytics"
    )
    assert "optimizer: SGD" in (poisoned / "args.yaml").read_text()
    assert badges(poisoned)["best.pt"] == "clean" == badges(poisoned)["last.pt"]


def test_undo_after_a_real_later_attempt(poisoned: Path, rebase_here: Callable[..., Any]) -> None:
    from tests.recovery import live

    layout = RunLayout(poisoned)
    before = fakes.tree(layout)
    roll_back(make_plan(poisoned), by="me")
    live.first_step(str(layout.last), resume=True)
    assert fakes.tree(layout) != before
    undo(layout, by="me")
    assert fakes.tree(layout) == before


def test_after_an_undo_a_plan_is_made_of_the_attempt_that_stands_again(poisoned: Path) -> None:
    """What was taken back had a guard and found a guilty image: of what stands again neither is known."""
    layout = RunLayout(poisoned)
    journal = Journal(layout.journal)

    def start(number: int, mode: str, guard: str) -> None:
        write_attempt(layout, Attempt(number, "u", 0.0, mode, None, {}, {"guard": guard}, "python"))
        journal.append("attempt_started", attempt=number, mode=mode)

    start(1, "start", "observe")
    journal.append("incident", attempt=1, incident="nan_buffer", epoch=2, step=3, action="ended", text="")
    before = make_plan(poisoned)
    assert "guard" in {row.name for row in before.settings}
    journal.append("rollback_begun", id="r1", restore_point="weights/epoch0.pt", epoch=1, steps=[])
    journal.append("rollback_done", id="r1", text="")
    start(2, "resume", "protect")
    journal.append("autopsy", attempt=2, cause="broken_pixels", text="", evidence={})
    journal.append("attempt_ended", attempt=2, outcome="finished")
    journal.append("undo_done", id="u1", of="r1")
    after = make_plan(poisoned)
    assert (after.settings, after.presets) == (before.settings, before.presets)
    assert after.trouble == before.trouble and after.restore and after.restore.epoch == 0
    assert (before.attempt, after.attempt) == (1, 2), "what begins after this is newer"


def test_a_run_that_never_improves_again_still_ends_with_a_best(
    poisoned: Path, rebase_here: Callable[..., Any]
) -> None:
    import torch
    from ultralytics import YOLO

    for n in range(POISONED - 1):
        path = poisoned / f"weights/epoch{n}.pt"
        checkpoint = torch.load(path, weights_only=False)
        checkpoint["train_metrics"]["fitness"] = checkpoint["best_fitness"] = 5.0 - n
        torch.save(checkpoint, path)
    roll_back(make_plan(poisoned, settings={"epochs": 6}), by="me")
    best = (poisoned / "weights/best.pt").read_bytes()
    assert best == (poisoned / "weights/epoch0.pt").read_bytes(), (
        "the best fitness recorded before the trouble"
    )
    YOLO(str(poisoned / "weights/last.pt")).train(resume=True)
    assert Catalog(poisoned / "weights").verdict(poisoned / "weights/best.pt").stripped
    assert Catalog(poisoned / "weights").verdict(poisoned / "weights/best.pt").fitness == 5.0


def test_where_results_csv_cannot_be_read_that_is_said_and_not_that_nothing_is_clean(finished: Path) -> None:
    (finished / "results.csv").write_text("epoch;time\n1;2,5\n")
    said = "last.pt is clean, but stripped, and no epoch can be read in results.csv"
    lines = plan_lines(make_plan(finished))
    assert lines[0] == f"Plan B: {said}, the training begins again"
    assert any(line.startswith("warning: results.csv cannot be read") for line in lines)
    assert not any("no clean checkpoint" in line for line in lines)
    (finished / "results.csv").unlink()
    assert said in make_plan(finished).headline


def test_the_list_marks_the_checkpoint_that_a_recovery_goes_back_to(poisoned: Path) -> None:
    def marked() -> list[Path]:
        *_, seen = scanner.look()
        listed = rows(tuple(list_checkpoints(poisoned / "weights")), *seen)
        return [row.checkpoint.path for row in listed if "restore point" in row.roles]

    scanner = Scanner(poisoned / "weights", Backend(), lambda: 0.0)
    first = make_plan(poisoned).restore
    assert first and marked() == [first.path]
    Journal(RunLayout(poisoned).journal).append(
        "incident", incident="nan_weight", action="ended", epoch=first.work, step=1, text=""
    )
    now = make_plan(poisoned).restore
    assert now and (now.work or 0) < (first.work or 0) and marked() == [now.path], (
        "a younger one is clean, too"
    )


def test_a_finished_run_says_so_and_goes_on_with_more_epochs(
    finished: Path, rebase_here: Callable[..., Any]
) -> None:
    from tests.recovery import live

    with pytest.raises(UserError, match="all 3 epochs are trained") as caught:
        make_plan(finished)
    assert caught.value.status == NO
    assert "e.g. --set epochs=13 (in the cockpit: epochs in c, w, then R)" in str(caught.value)
    plan = make_plan(finished, settings={"epochs": 6})
    assert plan.restore is not None and plan.restore.revive and plan.costs.epochs_lost == 0
    roll_back(plan, by="me")
    seen = live.first_step(str(finished / "weights/last.pt"), resume=True)
    assert (seen["epoch"], seen["epochs"], seen["optimizer"]) == (3, 6, "AdamW")
    assert badges(finished)["best.pt"] == "clean"


@pytest.mark.parametrize(
    ("to", "says"),
    [
        ("last.pt", "corrupt"),
        ("epoch5.pt", "corrupt"),
        ("nope.pt", "no such checkpoint"),
        ("../finished/weights/last.pt", "not a checkpoint of this run"),
    ],
)
def test_what_cannot_be_the_restore_point_is_refused(
    poisoned: Path, finished: Path, to: str, says: str
) -> None:
    wanted = str((poisoned / to).resolve()) if to.startswith("..") else to
    before = fakes.tree(RunLayout(poisoned))
    with pytest.raises(UserError, match=says) as caught:
        make_plan(poisoned, to=wanted)
    assert caught.value.status == NO and fakes.tree(RunLayout(poisoned)) == before


def test_a_checkpoint_copied_in_from_another_run_is_refused(
    poisoned: Path, room: Path, tmp_path: Path
) -> None:
    import torch

    checkpoint = torch.load(poisoned / "weights/epoch3.pt", weights_only=False)
    checkpoint["train_args"]["save_dir"] = str(tmp_path / "elsewhere")
    torch.save(checkpoint, poisoned / "weights/epoch3.pt")
    with pytest.raises(UserError, match="from another run"):
        make_plan(poisoned, to="epoch3.pt")
    plan = make_plan(poisoned)
    assert plan.restore is not None and plan.restore.name == "epoch2.pt"


def test_a_run_without_args_yaml_uses_the_checkpoints_own(
    poisoned: Path, rebase_here: Callable[..., Any]
) -> None:
    (poisoned / "args.yaml").unlink()
    plan = make_plan(poisoned, settings={"lr0": 0.001})
    assert any("args.yaml is missing" in warning for warning in plan.warnings)
    assert plan.in_effect["optimizer"] == "AdamW"
    roll_back(plan, by="me")
    assert not (poisoned / "args.yaml").exists()


def test_nothing_clean_is_plan_b_said_plainly(poisoned: Path) -> None:
    for path in [*(poisoned / "weights").glob("epoch[0-3].pt"), poisoned / "weights/best.pt"]:
        path.unlink()
    plan = make_plan(poisoned)
    assert plan.mode == "restart" and "begins again" in plan.headline and plan.presets == ("restart",)
    assert plan.costs.epochs_lost == ENDED


def test_every_answer_of_the_helper_is_one_json_line(
    poisoned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def ask(**request: Any) -> tuple[int, dict[str, Any]]:
        path = poisoned.parent / "request.json"
        path.write_text(json.dumps(request))
        status = act.main([str(path)])
        return status, json.loads(capsys.readouterr().out)

    status, answer = ask(action="plan", run=str(poisoned), propose=True)
    assert status == 0 and answer["ok"] and answer["plan"]["restore_point"]["name"] == "epoch3.pt"
    assert {row["name"] for row in answer["plan"]["settings"]} >= {"lr0", "optimizer", "guard"}
    status, answer = ask(action="rollback", run=str(poisoned), to="last.pt")
    assert (status, answer["ok"]) == (1, False) and "corrupt" in answer["error"]
    status, answer = ask(action="rollback", run=str(poisoned), set={"lr": 1})
    assert status == 2 and "did you mean lr0?" in answer["error"]
    status, answer = ask(action="undo", run=str(poisoned))
    assert status == 1 and "no rollback" in answer["error"]
    status, answer = ask(action="repair", run=str(poisoned))
    assert status == 0 and answer["text"] == ""
    status, answer = ask(action="rollback", run=str(poisoned / "nowhere"))
    assert status == 2 and "no such directory" in answer["error"]
    status, answer = ask(action="dance", run=str(poisoned))
    assert status == 2 and not answer["ok"]


def test_a_copied_run_is_resumed_where_it_lies(
    poisoned: Path, tmp_path: Path, rebase_here: Callable[..., Any]
) -> None:
    """Stock Ultralytics would write into the original: `save_dir` comes from the checkpoint."""
    from tests.recovery import live

    copy = Path(shutil.copytree(poisoned, tmp_path / "copy"))
    roll_back(make_plan(copy), by="me")
    assert live.first_step(str(copy / "weights/last.pt"), resume=True)["save_dir"] == copy


def test_a_finished_run_begins_again_with_the_remedy_that_its_evidence_speaks_for(
    finished: Path, rebase_here: Callable[..., Any]
) -> None:
    with pytest.raises(UserError, match=r"to begin again, .* --restart \(in the cockpit: R, then b\)"):
        make_plan(finished)
    asked: dict[str, Any] = {"restart": True, "propose": True}
    plan = make_plan(finished, **asked, diagnosed=("learning_rate", "zero_loss"))
    assert (plan.mode, plan.presets) == ("restart", ("gentle-lr",))
    assert plan.measured.startswith("gentle-lr: cured 5 of 5") and plan.asked["lr0"] == 0.002
    assert {move.source for move in plan.moves} == {"weights/last.pt", "weights/best.pt"}
    assert "results.csv moves aside, too" in plan.warnings
    alone = make_plan(finished, **asked)
    assert (
        alone.presets == ()
        and "results.csv moves aside, too; the settings stay as they are" in alone.warnings
    )
    before = fakes.tree(layout := RunLayout(finished))
    roll_back(plan, by="me")
    assert not list(layout.weights.glob("*.pt")) and not layout.results_csv.exists()
    assert read_args(layout.args_yaml)["lr0"] == 0.002
    assert undo(layout, by="me").text == "the rollback to the beginning was taken back"
    assert fakes.tree(layout) == before


@pytest.mark.parametrize(
    ("harm", "presets"), [("skipped", ()), ("observed", ("gentle-lr",))], ids=["undone", "done"]
)
def test_a_run_that_finished_soundly_begins_again_as_it_is_whatever_was_undone(
    finished: Path, harm: str, presets: tuple[str, ...]
) -> None:
    layout, incident = (
        RunLayout(finished),
        {"incident": "nan_gradient", "epoch": 2, "step": 1, "action": harm},
    )
    Journal(layout.journal).append("attempt_started", attempt=1, mode="start")
    Journal(layout.journal).append("incident", text="", **incident)
    layout.attempts.mkdir(parents=True, exist_ok=True)
    layout.attempt(1).write_text("{}")
    event = {"t": 1.0, "kind": "incident", "rank": 0, "text": "", **incident}
    layout.events(1, 0).write_text(json.dumps(event) + "\n")
    plan = make_plan(finished, restart=True, propose=True, diagnosed=("learning_rate", "zero_loss"))
    assert plan.presets == presets
    stays = "results.csv moves aside, too; the settings stay as they are" in plan.warnings
    assert stays is not bool(presets)


@pytest.mark.parametrize("cause", ["exploding_gradient", "unknown", "not_reproduced"])
def test_a_step_that_was_undone_is_no_reason_to_change_what_trains_well(healthy: Path, cause: str) -> None:
    journal, place = Journal(RunLayout(healthy).journal), {"epoch": 2, "step": 1, "action": "skipped"}
    journal.append("autopsy", cause=cause, text="", evidence={})
    journal.append("incident", incident="nan_gradient", text="undone", **place)
    plan = make_plan(healthy, propose=True)
    assert plan.reason is None and set(plan.presets) <= {"unchanged"}
    assert {row.name for row in plan.settings if not row.kept} <= {"guard"}


def test_what_the_guard_warned_of_is_evidence_for_beginning_again(
    finished: Path, rebase_here: Callable[..., Any]
) -> None:
    """Finite numbers, no incident and no diagnosis: the warning alone is in the table of remedies."""
    told = {"warning": "saved_beyond_half", "epoch": 1, "step": 3, "text": "a tensor beyond fp16"}
    journal = Journal(RunLayout(finished).journal)
    journal.append("attempt_started", attempt=1, mode="start")
    journal.append("warning", attempt=1, **told)
    assert make_plan(finished, restart=True, propose=True).presets == ("gentle-lr",)
