"""What a shell is answered: commands, options, runs, settings with their values, presets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nantui.cli import COMMANDS

RECORDED = Path(__file__).parent / "data"


def answer(line: str, tmp_path: Path) -> list[str]:
    """Return what completes `line`, as a shell asks for it (argcomplete's own variables)."""
    out = tmp_path / "answer"
    asked = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_STDOUT_FILENAME": str(out)}
    where = {
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "COMP_TYPE": "9",
        "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
    }
    command = [sys.executable, "-m", "nantui"]
    done = subprocess.run(command, env={**os.environ, **asked, **where}, cwd=RECORDED, capture_output=True)
    assert done.returncode == 0, done.stderr
    return out.read_text().splitlines()


@pytest.mark.parametrize(
    ("line", "there", "not_there"),
    [
        ("nantui sta", ["status"], ["stop"]),
        ("nantui rec", ["recover", "recorded_run/"], ["status"]),
        ("nantui status --m", ["--metrics"], ["--json"]),
        ("nantui stop --", ["--yes"], ["--trust"]),
        ("nantui resume rec", ["recorded_run/alarm", "recorded_run/recovered"], []),
        ("nantui resume recorded_run/alarm --set lr", ["lr0=", "lrf="], ["imgsz="]),
        ("nantui train optimizer=", ["optimizer=SGD"], ["optimizer="]),
        ("nantui recover recorded_run/alarm --preset na", ["nan-safe"], []),
        ("nantui export recorded_run/alarm --to ", ["csv", "parquet"], []),
        ("nantui train nonsense=", [], ["nonsense="]),
    ],
)
def test_words_are_completed(line, there, not_there, tmp_path):
    found = answer(line, tmp_path)
    assert set(there) <= set(found) and not set(not_there) & set(found)


def test_every_command_is_there(tmp_path):
    assert set(COMMANDS) <= set(answer("nantui ", tmp_path))


def test_bash_reads_what_is_printed(tmp_path):
    """A real bash: the printed code makes a completion for `nantui`, and it answers."""
    nantui = f'#!/bin/sh\nexec "{sys.executable}" -m nantui "$@"\n'
    (tmp_path / "nantui").write_text(nantui)
    (tmp_path / "nantui").chmod(0o755)
    script = """
      eval "$(nantui completion bash)"
      complete -p nantui | grep -o _python_argcomplete
      COMP_LINE='nantui sta' COMP_POINT=10 COMP_TYPE=9 COMP_WORDS=(nantui sta) COMP_CWORD=1
      _python_argcomplete nantui
      echo "${COMPREPLY[@]}"
    """
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["_python_argcomplete", "status"], done.stdout + done.stderr


@pytest.mark.parametrize(("shell", "says"), [("zsh", "compdef"), ("fish", "complete --command nantui")])
def test_other_shells_have_theirs(shell, says):
    done = subprocess.run(
        [sys.executable, "-m", "nantui", "completion", shell], capture_output=True, text=True
    )
    assert says in done.stdout
