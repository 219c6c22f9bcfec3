"""The commands of this room from the command line: what they print, refuse and return."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from nantui import cli
from nantui.commands import acting
from nantui.errors import FAILED
from nantui.recovery import __main__ as act
from nantui.recovery.comparison import read_side, side_by_side
from nantui.recovery.rollback import living_writers
from nantui.run.atomic_files import to_json
from nantui.run.attempts import Attempt, write_attempt
from nantui.run.commands import Command
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.telemetry import AFTER_LOSSES, BEFORE_LOSSES
from nantui.supervisor import client
from tests.recovery import fakes
from tests.waiting import eventually


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, rebase_here: object) -> list[Command]:
    """Carry commands out here instead of in a supervisor; returns those that were sent."""
    sent: list[Command] = []

    def carry_out(run: Path, command: Command, **how: Any) -> client.CommandResult:
        sent.append(command)
        request = tmp_path / "command.json"
        request.write_text(
            json.dumps({"action": command.kind, "run": str(run), "id": command.id, **command.options})
        )
        with contextlib.redirect_stdout(io.StringIO()) as out:
            act.main([str(request)])
        answer = json.loads(out.getvalue().splitlines()[-1])
        return client.CommandResult(answer["ok"], answer.get("text") or answer.get("error"))

    monkeypatch.setattr(acting, "carry_out", carry_out)
    return sent


def test_a_dry_run_shows_the_plan_and_does_nothing(
    poisoned: Path, at_once: list[Command], capsys: pytest.CaptureFixture[str]
) -> None:
    before = fakes.tree(RunLayout(poisoned))
    assert cli.main(["rollback", str(poisoned), "--dry-run", "--preset", "nan-safe", "--set", "batch=4"]) == 0
    shown = capsys.readouterr().err
    for words in ("go back to epoch3.pt (epoch 4; lost: epochs 5, 6 and 7)", "3 epochs to train again",
                  "explosion", "weights/corrupted_backup/last_epoch5_corrupted.pt", "stabler"):  # fmt: skip
        assert words in shown
    assert cli.main(["rollback", str(poisoned), "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["restore_point"]["name"] == "epoch3.pt" and plan["settings"] == []
    assert fakes.tree(RunLayout(poisoned)) == before and at_once == []


def test_a_dry_run_says_that_it_trains_now(
    poisoned: Path,
    at_once: list[Command],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert cli.main(["recover", str(poisoned), "--dry-run"]) == 0
    assert "it trains now" not in capsys.readouterr().err
    monkeypatch.setattr(acting, "trains", lambda run: True)
    assert cli.main(["recover", str(poisoned), "--dry-run"]) == 0
    assert "it trains now; what is done is planned again" in capsys.readouterr().err
    assert cli.main(["resume", str(poisoned), "--dry-run"]) == FAILED
    assert "poisoned is training: nothing to resume; `nantui stop" in capsys.readouterr().err
    assert at_once == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "recover the run instead"),
        (["--preset", "nope"], "no preset 'nope'"),
        (["--set", "data=/nowhere/data.yaml"], "data=/nowhere/data.yaml: no such file"),
        (["--set", "data=nowhere.yaml"], "data=nowhere.yaml is found nowhere"),
        (["--set", "model=other.pt"], "`recover --restart` takes another model"),
        (["--set", "name=other"], "settled when the run was made"),
    ],
)
def test_the_dry_run_of_a_resume_refuses_what_the_resume_would(
    poisoned: Path, at_once: list[Command], capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    before = fakes.tree(RunLayout(poisoned))
    assert cli.main(["resume", str(poisoned), "--dry-run", *words]) != 0
    err = capsys.readouterr().err
    assert said in err and "would resume" not in err
    assert fakes.tree(RunLayout(poisoned)) == before and at_once == []


def test_without_a_terminal_and_without_yes_nothing_is_done(
    poisoned: Path, at_once: list[Command], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["rollback", str(poisoned)]) == 2
    assert "add --yes" in capsys.readouterr().err and at_once == []


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (["--to", "last.pt"], 1, "last.pt cannot be the restore point: corrupt"),
        (["--to", "nix.pt"], 1, "no such checkpoint; usable: epoch3.pt"),
        (["--set", "lr=1"], 2, "did you mean lr0?"),
        (["--set", "lr0=fast"], 2, "expects a number"),
        (["--preset", "magic"], 2, "no preset 'magic'"),
    ],
)
def test_bad_input_is_one_line_with_its_status(
    poisoned: Path, capsys: pytest.CaptureFixture[str], words: list[str], status: int, says: str
) -> None:
    assert cli.main(["rollback", str(poisoned), "--yes", *words]) == status
    shown = capsys.readouterr().err
    assert says in shown and len(shown.splitlines()) == 1 and "Traceback" not in shown


def test_rollback_and_undo_through_the_commands(
    poisoned: Path, at_once: list[Command], capsys: pytest.CaptureFixture[str]
) -> None:
    layout = RunLayout(poisoned)
    before = fakes.tree(layout)
    assert cli.main(["undo", str(poisoned), "--yes"]) == 1
    assert "no rollback, resume or change of phase to take back" in capsys.readouterr().err
    assert cli.main(["rollback", str(poisoned), "--yes", "--to", "epoch2.pt", "--set", "lr0=0.001"]) == 0
    assert "restored epoch2.pt" in capsys.readouterr().err
    shown = {"set": {"lr0": 0.001}, "presets": [], "images": [], "propose": False, "attempt": 0}
    assert at_once[-1].options == {**shown, "to": "epoch2.pt"}
    assert cli.main(["undo", str(poisoned), "--yes"]) == 0
    assert at_once[-1].options == {"of": at_once[-2].id}, "that one and no other, whoever else asks"
    assert fakes.tree(layout) == before


def test_presets_are_listed_shown_and_compared_with_a_run(
    poisoned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["presets"]) == 0
    assert "nan-safe" in capsys.readouterr().out
    assert cli.main(["presets", "level3", "--json"]) == 0
    (preset,) = json.loads(capsys.readouterr().out)["presets"]
    assert preset["settings"] == {"batch": {"at_most": "half", "why": "memory"}}
    assert cli.main(["presets", "nan-safe", "--against", str(poisoned), "--json"]) == 0
    changes = json.loads(capsys.readouterr().out)
    assert changes["set"]["optimizer"] == "SGD" and changes["set"]["mixup"] == 0
    assert {row["name"] for row in changes["changes"] if row["kept"]} >= {"batch", "imgsz"}
    assert cli.main(["presets", "nan-safe", "--against", str(poisoned), "--dict"]) == 0
    assert "lr0=0.003,  # was 0.01" in capsys.readouterr().out
    assert cli.main(["presets", "--against", str(poisoned)]) == 2
    assert "which preset?" in capsys.readouterr().err


def test_what_is_asked_before_a_recovery_is_a_sentence(
    poisoned: Path,
    at_once: list[Command],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    back = "go back to epoch3.pt (epoch 4; lost: epochs 5, 6 and 7)"
    asked = f"{poisoned}: {back} and go on from there? There is no terminal to ask on"
    assert cli.main(["recover", str(poisoned), "--our-runner"]) == 2 and asked in capsys.readouterr().err
    monkeypatch.setattr(acting, "trains", lambda run: True)
    assert cli.main(["recover", str(poisoned), "--our-runner", "--restart"]) == 2
    asked = "stop the training, move everything aside (a restart was asked for) and begin again?"
    assert f"{poisoned}: {asked}" in capsys.readouterr().err
    assert cli.main(["rollback", str(poisoned)]) == 2
    assert f"{poisoned}: {back}? There" in capsys.readouterr().err and at_once == []


def test_two_attempts_are_compared_on_the_epochs_both_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = fakes.make_run(tmp_path / "run")
    head = "epoch,time,train/box_loss,metrics/mAP50-95(B)\n"
    header, rest = ",".join((*BEFORE_LOSSES, "box_loss", *AFTER_LOSSES)), ",".join(["1"] * len(AFTER_LOSSES))
    journal = Journal(layout.journal)
    for number, epochs, lr0 in ((1, (1, 2, 3, 4), 0.01), (2, (3, 4, 5), 0.001)):
        write_attempt(
            layout, Attempt(number, "u", 0.0, "start", None, {"lr0": lr0}, {"guard": "protect"}, "python")
        )
        rows = "".join(f"1.0,{epoch},1,1,{int(epoch == 4)},,1.0,{rest}\n" for epoch in epochs)
        layout.steps(number).write_text(f"{header}\n{rows}")
        journal.append("attempt_started", attempt=number)
        if number == 1:
            copy = layout.backups / "r1" / "copies" / "results.csv"
            copy.parent.mkdir(parents=True)
            copy.write_text(head + "1,10,4.0,0.1\n2,20,3.0,0.2\n3,30,2.0,0.3\n4,40,nan,0.0\n")
            journal.append("rollback_done", id="r1")
    layout.results_csv.write_text(
        head + "1,10,4.0,0.1\n2,20,3.0,0.2\n3,12,1.9,0.35\n4,24,1.8,0.4\n5,36,1.7,0.5\n"
    )
    a, b = f"{layout.run}#1", f"{layout.run}#2"
    assert cli.main(["compare", a, b, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["epochs"] == [3, 4]
    assert found["curves"]["train/box_loss"] == {"a": [2.0, "nan"], "b": [1.9, 1.8]}
    assert found["a"]["best"]["metrics/mAP50-95(B)"] == {"value": 0.3, "epoch": 3}
    assert found["b"]["hours_per_epoch"] == pytest.approx(12 / 3600)
    assert (found["a"]["skipped_steps"], found["b"]["skipped_steps"]) == (1, 1)
    assert {"name": "lr0", "a": 0.01, "b": 0.001} in found["settings"]
    assert cli.main(["compare", a, b]) == 0
    table = capsys.readouterr().out
    assert "0.3000 (epoch 3)" in table and "lr0" in table and "A epoch 3" in table
    assert cli.main(["compare", f"{layout.run}#7", b]) == 2
    assert "no such attempt; this run has #1, #2" in capsys.readouterr().err
    reported = {"lr0": 0.001, "stride": 32, "world_size": 1}
    event = to_json({"t": 1.0, "kind": "in_effect", "rank": 0, "values": reported})
    layout.events(2, 0).write_text(f"{event}\n")
    assert cli.main(["compare", a, b]) == 0
    assert "stride" not in capsys.readouterr().out, "no setting, and only one side has told it"
    whole = side_by_side(read_side(str(layout.run)), read_side(str(layout.run)))
    assert whole["settings"] == [] and whole["epochs"] == [1, 2, 3, 4, 5]


def test_a_process_that_carries_the_attempts_mark_is_a_living_writer(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    write_attempt(layout, Attempt(1, "uuid-of-this-test", 0.0, "start", None, {}, {}, "python"))
    assert living_writers(layout) == []
    environment = {**os.environ, "NANTUI_ATTEMPT": "uuid-of-this-test"}
    with subprocess.Popen(["sleep", "60"], env=environment) as process:
        try:
            eventually(lambda: living_writers(layout))  # it is started before its environment can be read
            assert living_writers(layout) == [f"pid {process.pid}"]
        finally:
            process.kill()
    assert living_writers(layout) == []


def test_the_helper_and_the_commands_import_no_torch() -> None:
    script = (
        "import sys; import nantui.recovery, nantui.commands.acting, nantui.commands.presets, "
        "nantui.commands.curves, nantui.recovery.comparison, nantui.recovery.rollback; "
        "print([m for m in ('torch', 'ultralytics', 'pandas', 'textual') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert set(act.ACTIONS) == {"plan", "next", "rollback", "undo", "keep", "phase", "repair"}
    assert callable(acting.act)
