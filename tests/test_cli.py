"""The command line answers quickly, in one line, and never with a traceback."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nantui.cli import COMMANDS, _parse, main, parser_of, runs_first
from nantui.commands.common import look_at
from nantui.commands.watching import _new_events
from nantui.errors import FAILED, UserError, refused
from nantui.run.layout import RunLayout
from nantui.terminal_text import printable_lines
from tests.ui.synthetic import make_run

pytestmark = pytest.mark.usefixtures("quick_start")


def nantui(*words, cwd=None):
    command = [sys.executable, "-m", "nantui", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, stdin=subprocess.DEVNULL)


def test_help_names_every_command():
    text = nantui("--help").stdout
    assert all(f"  {name} " in text for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name):
    answer = nantui(name, "--help")
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.startswith(f"usage: nantui {name}")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["recovr"], "did you mean `nantui recover`?"),
        (["no-such-place"], "no such directory"),
        (["status", "no-such-place"], "no-such-place"),
        (["check", "no-such-place"], "no-such-place"),
        (["train", "model=yolov8n.yaml", "data=none.yaml", "lr=0.1"], "did you mean lr0?"),
    ],
)
def test_bad_input_is_one_line_with_what_to_do(words, says, tmp_path):
    answer = nantui(*words, cwd=tmp_path)
    assert answer.returncode in (2, 3)
    assert says in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1, answer.stderr
    assert answer.stdout == ""


def test_where_no_run_is_the_folder_is_named_into_which_ultralytics_puts_them(tmp_path, monkeypatch):
    theirs, empty = tmp_path / "git root" / "runs", tmp_path / "project"
    empty.mkdir()
    settings = tmp_path / "config" / "Ultralytics" / "settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text(json.dumps({"runs_dir": str(theirs)}))
    monkeypatch.setenv("YOLO_CONFIG_DIR", str(tmp_path / "config"))
    assert "nantui demo" in nantui(empty).stderr, "nothing is there yet"
    (theirs / "detect" / "first").mkdir(parents=True)
    (theirs / "detect" / "first" / "args.yaml").write_text("model: a.pt\n")
    said = nantui(empty).stderr
    assert said.startswith(f"nantui: {empty}: no training run in or below it") and "runs_dir" in said
    assert said.strip().endswith(f"nantui '{theirs}'")


@pytest.mark.parametrize("early", [False, True], ids=["journal and rank", "rank before its journal"])
def test_what_a_rank_and_the_journal_tell_alike_is_printed_once(tmp_path, early):
    run = make_run(tmp_path / "run")
    layout = RunLayout(run)
    told = next(line for line in layout.journal.read_text().splitlines() if '"incident"' in line)
    own = {name: value for name, value in json.loads(told).items() if name not in ("attempt", "rank", "by")}
    kept = layout.journal.read_text()
    if early:
        layout.journal.write_text(kept.replace(told + "\n", ""))
    with layout.events(1, 0).open("a") as events:
        events.write("5\n" + json.dumps(own) + "\n" + json.dumps({**own, "t": own["t"] + 1}) + "\n")
    followers, marks = {}, (set(), set())
    found = list(_new_events(layout, followers, marks))
    if early:
        with layout.journal.open("a") as journal:
            journal.write(told + "\n")
        found += _new_events(layout, followers, marks)
    incidents = [(one.t, one.attempt, one.rank) for one in found if one.kind == "incident"]
    assert sorted(incidents) == [(own["t"], 1, 0), (own["t"] + 1, 1, 0)]


def test_a_run_is_looked_at_by_the_name_under_which_this_command_is_found(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", [".venv/bin/nantui", "demo"])
    monkeypatch.setenv("PATH", str(tmp_path))
    assert look_at(Path("my runs/demo")) == ".venv/bin/nantui 'my runs/demo'"
    (tmp_path / "nantui").write_text("#!/bin/sh\n")
    (tmp_path / "nantui").chmod(0o755)
    assert look_at(Path("runs/demo")) == "nantui runs/demo"


@pytest.mark.parametrize(
    ("words", "parsed"),
    [
        ("--dry-run --set lr0=0.001 batch=8 RUN", "RUN --dry-run --set lr0=0.001 batch=8"),
        (
            "--preset nan-safe gentle-lr model=a data=b --yes",
            "model=a data=b --preset nan-safe gentle-lr --yes",
        ),
        ("--preset nan-safe . --to x.pt", ". --preset nan-safe --to x.pt"),
        ("RUN --set RUN --yes", "RUN --set RUN --yes"),
        ("--allow a.B --set --yes RUN", "--allow a.B --set --yes RUN"),
    ],
)
def test_a_list_of_values_does_not_swallow_the_run(words, parsed):
    assert runs_first(words.split()) == parsed.split()


@pytest.mark.parametrize(
    ("name", "words", "told"),
    [
        ("train", "model=a data=b", set()),
        ("join", "RUN", set()),
        ("exec", "", set()),
        ("stop", "RUN", {"--yes"}),
        ("undo", "RUN", {"--yes"}),
        ("queue", "remove 1", {"--yes"}),
        ("labels", "DATA", {"--yes"}),
        ("diagnose", "RUN", {"--yes"}),
        ("resume", "RUN", {"--yes", "--trust"}),
        ("recover", "RUN", {"--yes", "--trust"}),
        ("rollback", "RUN", {"--yes", "--trust"}),
    ],
)
def test_an_option_that_would_do_nothing_is_taken_and_not_told_of(name, words, told):
    parser = parser_of(name)
    given = _parse(parser, ["--yes", "--trust", *words.split()])
    assert given.yes and given.trust
    assert {"--yes", "--trust"} & set(re.findall(r"--[a-z]+", parser.format_help())) == told


def test_an_unknown_option_is_wrong_usage():
    with pytest.raises(SystemExit) as stop:
        main(["status", "--jsn"])
    assert stop.value.code == 2


def test_what_is_printed_cannot_steer_the_terminal():
    assert printable_lines("a\x1b[2Jb\x07c\u202ed\ne") == "abcd\ne"


@pytest.mark.parametrize("command", ["status", "resume", "check", "labels"])
def test_a_name_that_no_file_system_takes_is_one_line(command, capsys):
    assert main([command, "a" * 5000]) == 3
    assert capsys.readouterr().err.startswith("nantui: [Errno 36] File name too long")


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("4 of 8 written"), "4 of 8 written"),
    ],
)
def test_what_the_system_refuses_says_why_also_where_a_library_has_only_words(error, why):
    with pytest.raises(UserError) as caught, refused("cannot write x", "choose another"):
        raise error
    assert str(caught.value) == f"cannot write x: {why}; choose another" and caught.value.status == FAILED
