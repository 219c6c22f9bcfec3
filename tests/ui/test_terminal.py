"""The cockpit in a real terminal (a pty read through pyte): first frame, colours, resize, hostile bytes,
dead disks.
"""

import fcntl
import json
import os
import signal
import struct
import termios
import time

import pytest

from nantui.run.layout import RunLayout
from tests.ui.synthetic import make_run


def resize(screen, columns, lines):
    fcntl.ioctl(screen.keyboard, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    with screen._lock:
        screen._screen.resize(lines, columns)
    os.kill(screen.process.pid, signal.SIGWINCH)


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"NO_COLOR": "1"},
        {"TERM": "screen", "COLORTERM": ""},
        {"TERM": "tmux-256color", "COLORTERM": ""},
        {"NANTUI_ASCII": "1"},
    ],
)
def test_every_kind_of_terminal_gets_a_whole_screen_and_is_given_back(terminal, tmp_path, variables):
    run = make_run(tmp_path / "runs" / "demo", nan_from=6)
    screen = terminal(run, **variables)
    text = screen.wait_for("checkpoints", "ALARM", "machine", seconds=60)
    assert "\x1b" not in text
    if "NANTUI_ASCII" in variables:
        assert text.isascii()
    resize(screen, 140, 40)
    screen.wait_for("timeline", "learning rate", seconds=30)
    assert screen.quit() == 0


def test_without_colours_there_are_none(terminal, tmp_path):
    run = make_run(tmp_path / "runs" / "demo")
    screen = terminal(run, NO_COLOR="1")
    screen.wait_for("checkpoints", "ALARM", seconds=60)
    with screen._lock:
        cells = [cell for row in screen._screen.buffer.values() for cell in row.values()]
    assert {cell.fg for cell in cells} == {"default"} and {cell.bg for cell in cells} == {"default"}
    assert any(cell.reverse for cell in cells), "what stands out does so by reversing"


def test_hostile_names_logs_and_tables_break_nothing(terminal, tmp_path):
    poison = "\x1b[2J\x1b]0;owned\x07\u202eevil\r\n\x00\U0001f4a5" * 3
    run = make_run(tmp_path / "runs" / "de\x1b[31mmo", nan_from=6)
    layout = RunLayout(run)
    (layout.weights / "epoch\x1b[5m9\u202e.pt").write_bytes(b"x")
    layout.attempt_log(1).write_text(poison * 50)
    with layout.journal.open("a") as journal:
        journal.write(json.dumps({"t": 1.0, "kind": "note", "text": poison}) + "\n{torn")
    with layout.results_csv.open("a") as table:
        table.write(f"{poison},1,2\n99999999999999999999,nan")
    screen = terminal(run, columns=140, lines=40)
    text = screen.wait_for("checkpoints", "evil", "ALARM", seconds=60)
    assert "\u202e" not in text and "owned" not in screen._screen.title
    screen.press("o")
    screen.wait_for("following", seconds=30)
    screen.press("\x1b")
    screen.wait_for("checkpoints", seconds=30)
    assert screen.quit() == 0


DEAD_MOUNT = """
import builtins, io, os, time

class Hanging:
    # No function: pathlib of Python 3.10 keeps these in a class, which would make methods of them.
    def __init__(self, call):
        self.call = call

    def __call__(self, path, *arguments, **options):
        below = isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(os.environ["DEAD_MOUNT"])
        while below and access(os.environ["DEAD_SINCE"], os.F_OK):
            time.sleep(0.1)
        return self.call(path, *arguments, **options)

access = os.access
for name in ("open", "stat", "lstat", "scandir", "listdir"):
    setattr(os, name, Hanging(getattr(os, name)))
io.open = builtins.open = Hanging(io.open)
"""


def test_a_dead_disk_leaves_keys_and_quit_alive(terminal, tmp_path):
    """Every file call below the run hangs, as on a mount whose server is gone."""
    run = make_run(tmp_path / "runs" / "demo")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(DEAD_MOUNT)
    dead_since = tmp_path / "dead"
    screen = terminal(run, PYTHONPATH=str(tmp_path / "site"), DEAD_MOUNT=str(run), DEAD_SINCE=str(dead_since))
    screen.wait_for("checkpoints", "ALARM", seconds=60)
    dead_since.touch()
    screen.wait_for("stale", seconds=60)
    screen.press("?")
    screen.wait_for("Act on the run", seconds=30)
    began = time.monotonic()
    assert screen.quit() == 0
    assert time.monotonic() - began < 20


def test_a_dead_disk_below_all_runs_holds_up_no_quit(terminal, tmp_path):
    for name in ("a", "b"):
        make_run(tmp_path / "runs" / name, nan_from=None)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(DEAD_MOUNT)
    stuck, dead_since = tmp_path / "runs" / "b" / "nantui" / "supervisor.json", tmp_path / "dead"
    dead_since.touch()
    variables = {"DEAD_MOUNT": str(stuck), "DEAD_SINCE": str(dead_since)}
    screen = terminal(tmp_path / "runs", PYTHONPATH=str(tmp_path / "site"), **variables)
    screen.wait_for("1 run so far", "runs/a", seconds=60)
    assert screen.quit() == 0


def test_too_small_a_terminal_says_what_it_needs(terminal, tmp_path):
    screen = terminal(make_run(tmp_path / "runs" / "demo"), columns=50, lines=12)
    screen.wait_for("nantui needs 70 x 20", seconds=60)
    assert screen.quit() == 0


def test_no_run_is_one_line(terminal, tmp_path):
    (tmp_path / "empty").mkdir()
    screen = terminal(tmp_path / "empty", columns=200)
    screen.wait_for("no training run in or below it", seconds=60)
    assert screen.process.wait(timeout=20) == 2


def test_a_terminal_that_vanishes_without_a_hangup_ends_the_cockpit(terminal, tmp_path):
    """It is not the controlling terminal, so nobody sends SIGHUP: only reading tells that it is gone."""
    screen = terminal(make_run(tmp_path / "runs" / "demo"))
    screen.wait_for("checkpoints", seconds=60)
    screen.hang_up()
    assert screen.process.wait(timeout=20) in (0, 128 + signal.SIGHUP)
