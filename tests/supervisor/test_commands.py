"""The commands as a person calls them: exit status, stdout for results, stderr for words."""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace

import pytest

from nantui.cli import main
from nantui.commands.starting import remarks
from nantui.errors import UserError
from nantui.machine.process_identity import ref_of
from nantui.paths import user_config_dir
from nantui.run.attempts import read_attempt
from nantui.run.commands import pending_commands
from nantui.run.spec import read_spec
from nantui.settings.schema import Schema
from nantui.supervisor.state import read_state, write_state
from tests.supervisor.stub_run import StubRun
from tests.waiting import eventually


def test_train_refuses_a_misspelt_setting_before_anything_is_created(tmp_path, capsys):
    assert main(["train", "model=yolov8n.yaml", "data=a.yaml", "lr=0.1", f"project={tmp_path}/runs"]) == 2
    assert "did you mean lr0" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_train_remarks_on_what_was_asked_and_not_on_defaults():
    schema = Schema.load()
    assert remarks(schema, {"model": "m.pt", "data": "nowhere.yaml"}) == []
    said = remarks(schema, {"lr0": 0.02, "batch": 10, "device": "0,1,2,3"})
    assert any("optimizer=auto ignores lr0=0.02" in line for line in said)
    assert any("no multiple of 4 GPUs" in line for line in said) and len(said) == 2
    assert remarks(schema, {"amp": "bf16", "device": "cpu"})[0].startswith("warning: amp=bf16 does not work")


def test_train_says_what_is_missing(capsys):
    assert main(["train", "model=yolov8n.yaml"]) == 2
    assert "data=" in capsys.readouterr().err


def test_train_never_overwrites(make_run, tmp_path, capsys, stub_python, monkeypatch):
    make_run("taken", start=False)
    from nantui.errors import UserError
    from nantui.supervisor.client import create_run

    with pytest.raises(UserError, match="exists already"):
        create_run({"project": str(tmp_path / "runs"), "name": "taken"}, python=stub_python)


def test_a_python_that_is_none_is_said_in_one_line(tmp_path, capsys):
    words = ["train", "model=yolov8n.yaml", "data=a.yaml", "--python", str(tmp_path / "nowhere")]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert "--python" in error and len(error.strip().splitlines()) == 1


def test_status_as_json_and_for_people(make_run, capsys, tmp_path):
    run = make_run()
    run.await_state("running")
    assert main(["status", str(tmp_path / "runs"), "--json"]) == 0
    row = json.loads(capsys.readouterr().out)["runs"][0]
    assert row["state"] == "running" and row["path"] == str(run.path)
    assert set(row["losses"]) == {"box_loss", "cls_loss", "dfl_loss"}
    assert row["pids"] and row["epochs"] == 500 and row["eta_s"] > 0
    assert main(["status", str(run.path)]) == 0
    assert "epoch" in capsys.readouterr().out


def test_the_losses_of_a_finished_run_are_those_of_its_last_epoch(make_run, capsys):
    """The last batch may have been a bad one that was skipped: the epoch's mean leaves it out."""
    run = make_run(epochs=2)
    run.await_state("finished")
    losses = "train/box_loss,train/cls_loss,train/dfl_loss"
    run.layout.results_csv.write_text(f"epoch,time,{losses}\n1,1,1,1,1\n2,2,0.25,0.5,0.75\n")
    with run.layout.steps(1).open("a") as steps:
        steps.write(f"{time.time()},2,5,5,1,nan_loss,nan,nan,nan,3.0,0.01,1,0,9,0.1,0.1,,4,64,0.001\n")
    assert main(["status", str(run.path)]) == 0
    said = capsys.readouterr().out
    assert "box_loss 0.25 cls_loss 0.5 dfl_loss 0.75" in said and "nan" not in said


def test_status_of_nothing(tmp_path, capsys):
    assert main(["status", str(tmp_path / "nowhere")]) == 2
    (tmp_path / "empty").mkdir()
    assert main(["status", str(tmp_path / "empty"), "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == {"runs": []}


def test_stop_needs_a_yes_and_a_dry_run_does_nothing(make_run, capsys):
    run = make_run(epochs=100000)
    run.await_state("running")
    assert main(["stop", str(run.path)]) == 2
    assert main(["stop", str(run.path), "--dry-run"]) == 0
    assert main(["stop", str(run.path), "--yes", "--read-only"]) == 2
    assert run.status().state == "running"
    assert main(["stop", str(run.path), "--yes"]) == 0
    assert "no process is left" in capsys.readouterr().err
    assert run.status().state == "stopped"


def test_a_directory_that_is_no_run(tmp_path, capsys):
    for command in ("stop", "resume", "recover"):
        assert main([command, str(tmp_path), "--yes"]) == 2
    assert "not a run" in capsys.readouterr().err


def test_edits_are_kept_and_used_by_the_next_start(make_run):
    run = make_run(epochs=100000)
    run.await_step()
    gone = run.do("set", set={"data": "/nowhere/data.yaml"})
    assert not gone.ok and "data=/nowhere/data.yaml: no such file" in gone.text
    assert run.do("set", set={"lr0": 0.002, "guard": "observe"}).ok
    spec = read_spec(run.layout.spec)
    assert spec.train["lr0"] == 0.002 and spec.ours == {"guard": "observe"}
    run.do("stop")
    assert run.do("resume").ok
    run.await_step()
    attempt = json.loads(run.layout.attempt(2).read_text())
    assert attempt["asked"] == {"lr0": 0.002, "guard": "observe"}
    assert second_in_effect(run)["differences"] == []


def test_what_is_not_in_effect_is_said(make_run):
    run = make_run(epochs=100000, lie={"lr0": 0.5})
    run.await_step()
    run.do("stop")
    assert run.do("resume", set={"lr0": 0.002, "mixup": 0.0}).ok
    run.await_step()
    effect = second_in_effect(run)
    assert effect["differences"] == [{"name": "lr0", "asked": 0.002, "in_effect": 0.5}]
    assert effect["unreported"] == ["mixup"]


def second_in_effect(run):
    """Return what the second attempt's worker reports in effect, once the supervisor has read it."""
    eventually(lambda: run.kinds().count("in_effect") == 2)
    return [entry for entry in run.journal() if entry["kind"] == "in_effect"][1]


def test_doctor_reads_and_leaves_nothing(tmp_path, capsys):
    before = sorted(tmp_path.iterdir())
    status = main(["doctor", str(tmp_path), "--json"])
    checks = json.loads(capsys.readouterr().out)["checks"]
    assert status == (1 if any(check["verdict"] == "bad" for check in checks) else 0)
    assert {"nantui", "hook", "logout", "lock", "permissions"} <= {check["name"] for check in checks}
    assert sorted(tmp_path.iterdir()) == before


def test_a_foreign_run_is_resumed_where_it_lies_by_the_interpreter_that_was_named(
    make_run, stub_python, tmp_path
):
    run = StubRun(tmp_path / "runs" / "foreign")
    make_run.__self__.made.append(run)
    run.layout.weights.mkdir(parents=True)
    run.layout.last.write_bytes(b"saved")
    run.layout.args_yaml.write_text("epochs: 3\nstub: {}\ndevice: '0'\n")
    outcome = run.do("resume", python=stub_python)
    assert outcome.ok, outcome.text
    run.await_state("finished")
    assert read_attempt(run.layout, 1).python == read_spec(run.layout.spec).python == stub_python


def refuse_every_supervisor():
    (user_config_dir() / "supervise.yaml").write_text("patience: {grace_s: 1}\n")


def test_where_no_supervisor_would_start_nothing_is_made(tmp_path, capsys, monkeypatch):
    refuse_every_supervisor()
    monkeypatch.chdir(tmp_path)
    words = ["model=a.pt", "data=b.yaml", f"project={tmp_path / 'new'}"]
    for command in (["train", *words], ["queue", "add", *words], ["exec", "--", "true"]):
        assert main(command) == 2
        assert "too short to save" in capsys.readouterr().err
    assert not (tmp_path / "new").exists() and not (tmp_path / "runs").exists()


def test_where_no_run_can_be_recorded_none_is_made(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    monkeypatch.chdir(tmp_path)
    words = ["model=yolov8n.yaml", "data=a.yaml", f"project={tmp_path}/runs"]
    queue = ["queue", "add", *words, "--each", "lr0=0.1,0.2"]
    for command in (["exec", "--", "true"], ["train", *words], queue):
        assert main(command) == 3
        assert "set XDG_STATE_HOME" in capsys.readouterr().err
        assert not (tmp_path / "runs").exists()


def test_a_command_that_was_refused_is_not_carried_out_one_day(make_run):
    run = make_run(start=False)
    refuse_every_supervisor()
    with pytest.raises(UserError, match="too short to save"):
        run.do("start")
    assert not pending_commands(run.layout)


def test_a_run_whose_first_attempt_is_just_recorded_is_starting(make_run):
    run = make_run(epochs=100000)
    run.await_step()
    state = read_state(run.layout.supervisor)
    run.kill_supervisor()
    mine = ref_of(os.getpid())
    write_state(run.layout.supervisor, replace(state, process=mine, heartbeat=time.time(), state=""))
    assert run.status().state == "starting"
