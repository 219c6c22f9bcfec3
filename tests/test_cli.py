"""The command line answers quickly, in one line, and never with a traceback."""

import subprocess
import sys

import pytest

from nantui.cli import COMMANDS, main, runs_first
from nantui.terminal_text import printable_lines

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
