"""Play the demo without a person: the same keys, a line per stage, and a verdict from the files."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from nantui.demo import evidence
from nantui.demo.terminal import CockpitGone, CockpitTerminal
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


class Failed(Exception):
    """A stage did not happen."""


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
    except (Failed, CockpitGone, evidence.Contradiction) as error:
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
    """Return the bytes in the journal and in what the attempts write."""
    total = 0
    for file in (layout.journal, *layout.attempts.glob("*")):
        with contextlib.suppress(OSError):  # gone, or not there yet
            total += file.stat().st_size
    return total


def _ending(layout: RunLayout) -> str:
    """Return how the newest attempt ended, for whoever has to find out."""
    number = layout.newest_attempt()
    if not number:
        return "No attempt was started"
    endings = "; ".join(f"{ending.outcome}: {ending.text}" for ending in read_exits(layout, number))
    return f"Attempt {number}: {endings or 'has not ended'}"


def _end(layout: RunLayout) -> str:
    """End every process of the run, as `X` does."""
    try:
        return wait(layout.run, submit(layout.run, Command("kill")), timeout_s=END_WITHIN_S).text
    except UserError as error:
        return f"FAILED, {error}; do it with: nantui stop --now {layout.run}"


def _logs(layout: RunLayout) -> str:
    """Return the log of the newest attempt, and the supervisor's."""
    number = layout.newest_attempt()
    logs = [*([layout.attempt_log(number)] if number else []), layout.supervisor_log]
    return " and ".join(str(log) for log in logs)
