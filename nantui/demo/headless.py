"""Play the demo without a person: the same keys, a line per stage, and a verdict from the files."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from nantui.demo import evidence
from nantui.demo.terminal import CockpitGone, CockpitTerminal
from nantui.errors import FAILED
from nantui.run.attempts import read_exits
from nantui.run.layout import RunLayout

Look = Callable[[RunLayout], "str | None"]
PATIENCE_S = 180.0
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
    """Watch the run, press `R` and confirm when the alarm is up, and return the exit status."""
    layout = RunLayout(run)
    terminal = CockpitTerminal(run)
    try:
        for name, look in BEFORE:
            stages.say(name, _await(name, look, layout))
        stages.say("R pressed in the cockpit", _recover(layout, terminal))
        for name, look in AFTER:
            stages.say(name, _await(name, look, layout))
        status = terminal.close()
        stages.say("cockpit quit with q", f"exit status {status}, {terminal.bytes_drawn} bytes drawn")
        return 0 if status == 0 else FAILED
    except (Failed, CockpitGone, evidence.Contradiction) as error:
        stages.say("FAILED", str(error))
        return FAILED
    finally:
        terminal.close()


def _recover(layout: RunLayout, terminal: CockpitTerminal) -> str:
    """Open the recover dialog, confirm it, and wait until the supervisor has begun."""
    terminal.press(RECOVER)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        time.sleep(KEY_EVERY_S)
        if (asked := evidence.recovery_asked(layout)) is not None:
            return asked
        terminal.press(CONFIRM)
    raise Failed("the recover dialog was not confirmed")


def _await(name: str, look: Look, layout: RunLayout) -> str:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        found = look(layout)
        if found is not None:
            return found
        time.sleep(LOOK_EVERY_S)
    raise Failed(f"{name}: not seen within {PATIENCE_S:.0f} s. {_what_is_there(layout)}")


def _what_is_there(layout: RunLayout) -> str:
    """The last words of the worker, for whoever has to find out."""
    numbers = layout.attempt_numbers()
    if not numbers:
        return f"No attempt was started; see {layout.supervisor_log}"
    endings = [f"{ending.outcome}: {ending.text}" for ending in read_exits(layout, numbers[-1])]
    return f"Attempt {numbers[-1]} {endings or 'has not ended'}; see {layout.attempt_log(numbers[-1])}"
