"""What lies in a run directory may come from an enemy: it commands nothing, and steers no terminal."""

from __future__ import annotations

import json
import os
import re
import stat
import time

import pytest

from nantui.cli import main
from nantui.run import commands
from nantui.run.binding import bind
from nantui.run.commands import Command
from nantui.run.layout import RunLayout
from nantui.run.spec import Spec, read_spec, write_spec
from nantui.supervisor.config import load_config
from nantui.supervisor.outcome import last_message
from nantui.supervisor.status import read_status
from nantui.terminal_text import printable

ESCAPES = (
    "\x1b[31mred\x1b[0m",
    "\x1b]0;title\x07",
    "\x1b]52;c;ZXZpbA==\x1b\\",
    "\x1bPq#0\x1b\\",
    "\x9b2J",
    "a\rb",
    "\x08\x7f",
    "\u202eevil",
    "\x1b",
    "\x1b]0;never ends",
)


@pytest.mark.parametrize("text", ESCAPES)
def test_nothing_steers_the_terminal(text):
    assert not re.search(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", printable(f"before {text} after"))
    assert printable(f"before {text} after").startswith("before ")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_what_another_user_wrote_into_spec_yaml_is_not_run(make_run):
    run = make_run(start=False)
    os.chown(run.layout.spec, 12345, 12345)
    outcome = run.do("start")
    assert not outcome.ok and "belongs to another user" in outcome.text
    assert run.status().state == "failed" and "another user" in run.status().text
    assert not run.do("rollback").ok, "its interpreter would run the rollback"
    assert run.members() == [] and run.layout.attempt_numbers() == []


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_looking_at_another_users_run_starts_none_of_their_programs(tmp_path):
    tripped, evil = tmp_path / "tripped", tmp_path / "evil-python"
    evil.write_text(f"#!/bin/sh\ntouch {tripped}\n")
    evil.chmod(0o755)
    layout = RunLayout(tmp_path / "run")
    write_spec(layout.spec, Spec({"epochs": 3}, python=str(evil), exec={"argv": [str(evil)]}))
    os.chown(layout.spec, 12345, 12345)
    spec = read_spec(layout.spec)
    assert (spec.python, spec.exec, spec.train) == ("", None, {"epochs": 3})
    for command in (["diagnose"], ["recover", "--dry-run"], ["status"], ["presets", "--against"]):
        main([*command, str(layout.run)])
    assert not tripped.exists()


def test_a_hostile_run_prints_clean(tmp_path, capsys):
    run = tmp_path / "exp\x1b]0;owned\x07"
    (run / "nantui" / "attempts").mkdir(parents=True)
    (run / "args.yaml").write_text("epochs: !!python/object/apply:os.system ['touch owned']\n")
    (run / "results.csv").write_text("epoch,time,train/\x1b[2Jbox_loss\n1,1,nan\n")
    (run / "nantui" / "supervisor.json").write_text(
        json.dumps({"pid": 1, "created": 0, "state": "failed", "text": "\x1b[2Jgone", "attempt": "../../x"})
    )
    assert main(["status", str(tmp_path)]) == 0
    assert "\x1b" not in capsys.readouterr().out
    assert not list(tmp_path.rglob("owned"))


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[]",
        "{}",
        '{"pid": "x", "created": 0}',
        '{"pid": 1, "created": 0, "attempt": [], "worker": 3, "heartbeat": "x"}',
    ],
)
def test_broken_state_files_break_nothing(tmp_path, document):
    (tmp_path / "nantui").mkdir()
    (tmp_path / "nantui" / "supervisor.json").write_text(document)
    (tmp_path / "args.yaml").write_text("epochs: 3\n")
    assert read_status(tmp_path).path == tmp_path


def test_last_words_are_the_cause_and_clean(tmp_path):
    log = tmp_path / "001.log"
    log.write_text(
        "Traceback (most recent call last):\n\x1b[1;31mtorch.OutOfMemoryError\x1b[0m: CUDA out of memory.\n"
        "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: \n====\n"
    )
    assert last_message(log) == "torch.OutOfMemoryError: CUDA out of memory."
    assert last_message(tmp_path / "missing") == ""


def test_commands_are_taken_from_private_places_only(tmp_path):
    layout = RunLayout(tmp_path)
    bind(tmp_path)
    path = commands.put(commands.spool_for(layout), Command("stop"))
    assert path.parent == layout.commands and stat.S_IMODE(layout.commands.stat().st_mode) == 0o700
    assert [command.kind for _, command in commands.pending_commands(layout)] == ["stop"]
    outside = tmp_path / "outside.json"
    path.rename(outside)
    path.symlink_to(outside)
    assert commands.pending_commands(layout) == [], "a link is not followed"


def test_where_modes_are_ignored_commands_go_through_a_private_folder(tmp_path, monkeypatch):
    layout = RunLayout(tmp_path / "run")
    layout.commands.mkdir(parents=True, mode=0o777)
    os.chmod(layout.commands, 0o777)
    real = os.chmod
    monkeypatch.setattr("os.chmod", lambda path, mode: None if "run" in str(path) else real(path, mode))
    assert commands.spool_for(layout) == commands.local_spool(layout)
    commands.put(layout.commands, Command("kill"))
    commands.put(commands.spool_for(layout), Command("stop"))
    assert [command.kind for _, command in commands.pending_commands(layout)] == ["stop"]


def test_another_owners_commands_are_not_obeyed(tmp_path, monkeypatch):
    layout = RunLayout(tmp_path)
    commands.put(commands.spool_for(layout), Command("stop"))
    monkeypatch.setattr("os.getuid", lambda: 12345)
    assert commands.pending_commands(layout) == []


def test_a_checkpoint_outside_the_run_is_no_place_to_write(make_run):
    run = make_run(epochs=100000)
    run.await_step()
    run.do("stop")
    outcome = run.do("resume", to="../../../../etc/passwd")
    assert not outcome.ok and "inside" in outcome.text


@pytest.mark.parametrize("text", ["patience: [1]", "other: 1", "patience: {tick_s: soon}", "notify: x", "{"])
def test_a_broken_configuration_is_one_clear_line(tmp_path, text):
    from nantui.errors import UserError

    path = tmp_path / "supervise.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_config(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_nothing_waits_for_a_log_that_is_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "001.log")
    begun = time.monotonic()
    assert last_message(tmp_path / "001.log") == ""
    assert time.monotonic() - begun < 10


def test_a_progress_line_is_no_last_word(tmp_path):
    log = tmp_path / "001.log"
    log.write_text(
        "Starting training\n\r        2/3         0G      4.299      3.1      2.2      9     64: 16% 1/6"
    )
    assert last_message(log) == "Starting training"
