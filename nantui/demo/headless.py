"""Play the demo without a person: the real cockpit in a terminal that nobody sees, the same keys typed into
it, a line per stage, and a verdict from the files.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

from nantui.demo import evidence
from nantui.demo.evidence import Failed
from nantui.errors import FAILED, UserError
from nantui.run.attempts import read_exits
from nantui.run.commands import Command
from nantui.run.layout import RunLayout
from nantui.supervisor.client import submit, wait

Look = Callable[[RunLayout], "str | None"]
PATIENCE_S = 180.0
"""How long nothing may be written: on a slow machine a stage takes as long as it takes."""
END_WITHIN_S = 120.0
LOOK_EVERY_S = 0.2
KEY_EVERY_S = 3.0
RECOVER, CONFIRM = "R", "y"

BEFORE: tuple[tuple[str, Look], ...] = (
    ("training started", evidence.training_started),
    ("act one: alarm in the very step", evidence.alarm_raised),
    ("badges tell clean from ruined", evidence.badges_turned),
)
AFTER: tuple[tuple[str, Look], ...] = (
    ("rolled back", evidence.rolled_back),
    ("resumed, settings in effect", evidence.settings_in_effect),
    ("act two: one NaN pixel, one step", evidence.one_step_lost),
    ("finished", evidence.finished),
)
COLUMNS, LINES = 120, 40
ESCAPE = "\x1b"
ESCAPE_ALONE_S = 1.0  # any key that comes sooner would make a sequence of it
QUIT_WITHIN_S = 60.0


class Stages:
    """Prints one line per stage with the seconds since the start."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def say(self, name: str, text: str) -> None:
        print(f"{time.monotonic() - self._start:6.1f} s  {name:<34} {text}", flush=True)


def play(run: Path, stages: Stages) -> int:
    """Watch the run, press `R` and confirm when the alarm is up, and return the exit status.

    Where a stage fails, or on Ctrl-C or SIGTERM, the training is ended and the logs to read are named.
    """
    layout = RunLayout(run)
    terminal = CockpitTerminal(run)
    done = False
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        _act(layout, terminal, stages)
        done = True
    except Failed as error:
        stages.say("FAILED", str(error))
    finally:
        terminal.close()
        if not done:
            stages.say("training ended", _end(layout))
            stages.say("read", _logs(layout))
    return 0 if done else FAILED


def _act(layout: RunLayout, terminal: CockpitTerminal, stages: Stages) -> None:
    for name, look in BEFORE:
        stages.say(name, wait_for(name, look, layout))
    stages.say("R pressed in the cockpit", _recover(layout, terminal))
    for name, look in AFTER:
        stages.say(name, wait_for(name, look, layout))
    if status := terminal.close():
        raise Failed(f"the cockpit, told to quit, ended with status {status}")
    stages.say("cockpit quit with q", f"{terminal.bytes_drawn} bytes drawn")


def _recover(layout: RunLayout, terminal: CockpitTerminal) -> str:
    """Open the recover dialog, and confirm it until the supervisor has the command."""
    terminal.press(RECOVER)

    def asked(layout: RunLayout) -> str | None:
        if (found := evidence.recovery_asked(layout)) is None:
            terminal.press(CONFIRM)
        return found

    time.sleep(KEY_EVERY_S)
    return wait_for("recover dialog confirmed", asked, layout, KEY_EVERY_S)


def wait_for(name: str, look: Look, layout: RunLayout, every_s: float = LOOK_EVERY_S) -> str:
    """Return what `look` found. Raises Failed where the run has written nothing for PATIENCE_S."""
    written, since = _written(layout), time.monotonic()
    while time.monotonic() - since < PATIENCE_S:
        if (found := look(layout)) is not None:
            return found
        time.sleep(every_s)
        if (now := _written(layout)) != written:
            written, since = now, time.monotonic()
    raise Failed(f"{name}: not seen, and nothing written for {PATIENCE_S:.0f} s. {_ending(layout)}")


def _written(layout: RunLayout) -> int:
    total = 0
    for file in (layout.journal, *layout.attempts.glob("*")):
        with contextlib.suppress(OSError):  # gone, or not there yet
            total += file.stat().st_size
    return total


def _ending(layout: RunLayout) -> str:
    number = layout.newest_attempt()
    if not number:
        return "No attempt was started"
    endings = "; ".join(f"{ending.outcome}: {ending.text}" for ending in read_exits(layout, number))
    return f"Attempt {number}: {endings or 'has not ended'}"


def _end(layout: RunLayout) -> str:
    try:
        return wait(layout.run, submit(layout.run, Command("kill")), timeout_s=END_WITHIN_S).text
    except UserError as error:
        return f"FAILED, {error}; do it with: nantui stop --now {layout.run}"


def _logs(layout: RunLayout) -> str:
    number = layout.newest_attempt()
    logs = [*([layout.attempt_log(number)] if number else []), layout.supervisor_log]
    return " and ".join(str(log) for log in logs)


class CockpitTerminal:
    """Runs `nantui RUN` in a terminal that nobody sees; its output is read and thrown away."""

    def __init__(self, run: Path) -> None:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        self._keyboard = ours
        # COLUMNS and LINES would win over the terminal's own size.
        kept = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nantui", os.path.abspath(run)], cwd="/", stdin=theirs, stdout=theirs,
            stderr=theirs, start_new_session=True, env={**kept, "TERM": "xterm-256color"},
        )  # fmt: skip
        os.close(theirs)
        self.bytes_drawn = 0
        threading.Thread(target=self._drain, daemon=True).start()

    def press(self, key: str) -> None:
        """Type one key. Raises Failed when nobody reads it any more."""
        if self._process.poll() is not None:
            raise Failed(f"the cockpit has ended with status {self._process.returncode}")
        os.write(self._keyboard, key.encode())

    def close(self) -> int:
        """Close what is open with Esc and quit with `q`, as a person does; returns the exit status."""
        try:
            if self._process.poll() is None:
                self.press(ESCAPE)
                time.sleep(ESCAPE_ALONE_S)
                self.press("q")
            return self._process.wait(timeout=QUIT_WITHIN_S)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            return self._process.wait()

    def _drain(self) -> None:
        try:
            while data := os.read(self._keyboard, 1 << 16):
                self.bytes_drawn += len(data)
        except OSError:
            return
