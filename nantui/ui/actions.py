"""Every key of the cockpit, as data: what it is called, what it does, and why it cannot be done right now.

The bindings, the key bar, the help, the command palette and docs/keys.md all come from this list.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nantui.run import status as run_status

if TYPE_CHECKING:
    from nantui.ui.model.snapshot import RunSnapshot

Why = Callable[["RunSnapshot", bool], "str | None"]


@dataclass(frozen=True)
class Action:
    """One thing a key does. `why_not` returns the reason it cannot be done, None when it can."""

    name: str
    keys: str
    label: str
    help: str
    group: str
    why_not: Why | None = None
    bar: int = 0

    @property
    def shown_key(self) -> str:
        """The first key, as printed on it."""
        return KEY_NAMES.get(self.keys.split(",")[0], self.keys.split(",")[0])


KEY_NAMES = {
    "question_mark": "?", "colon": ":", "slash": "/", "plus": "+", "minus": "-", "left_square_bracket": "[",
    "right_square_bracket": "]", "escape": "Esc", "enter": "Enter", "tab": "Tab", "shift+tab": "Shift+Tab",
    "equals_sign": "=", "space": "Space", "comma": ",",
}  # fmt: skip


def _acts(check: Why) -> Why:
    """Wrap a check of something that changes the run: never when watching read-only."""

    def why(snapshot: RunSnapshot, read_only: bool) -> str | None:
        return "read-only: open it without --read-only to act" if read_only else check(snapshot, read_only)

    return why


def _start(snapshot: RunSnapshot, read_only: bool) -> str | None:
    state = snapshot.status.state
    if state in run_status.ACTIVE:
        return f"it is already {state}"
    if state == run_status.FINISHED:
        return "the training is finished; roll back with r to train on from an older epoch"
    return None


def _stop(snapshot: RunSnapshot, read_only: bool) -> str | None:
    state = snapshot.status.state
    if state == run_status.STOPPING:
        return "it is stopping already; X kills it"
    return None if _has_processes(snapshot) else f"nothing is running: it is {state}"


def _kill(snapshot: RunSnapshot, read_only: bool) -> str | None:
    return None if _has_processes(snapshot) else f"nothing is running: it is {snapshot.status.state}"


def _has_processes(snapshot: RunSnapshot) -> bool:
    return snapshot.status.state in run_status.ACTIVE or bool(snapshot.status.pids)


def _rollback(snapshot: RunSnapshot, read_only: bool) -> str | None:
    if snapshot.status.state in run_status.ACTIVE:
        return f"it is {snapshot.status.state}: stop it first with x, or press R to do it all in one"
    return _has_checkpoints(snapshot)


def _recover(snapshot: RunSnapshot, read_only: bool) -> str | None:
    if snapshot.status.state == run_status.RECOVERING:
        return "a recovery is under way"
    return _has_checkpoints(snapshot)


def _has_checkpoints(snapshot: RunSnapshot) -> str | None:
    return None if snapshot.checkpoints else "there is no checkpoint to go back to yet"


def _undo(snapshot: RunSnapshot, read_only: bool) -> str | None:
    from nantui.recovery.history import newest_in_force  # late: the first frame waits for no more

    if snapshot.status.state in run_status.ACTIVE:
        return f"it is {snapshot.status.state}: stop it first with x"
    return None if newest_in_force(snapshot.journal) else "there is no rollback to undo"


def _acknowledge(snapshot: RunSnapshot, read_only: bool) -> str | None:
    from nantui.ui.model.alarms import open_alarm

    return None if open_alarm(snapshot, 0.0) else "there is no alarm"


def _log(snapshot: RunSnapshot, read_only: bool) -> str | None:
    return None if snapshot.log_path else "no output: this run was not started by nantui"


def _charts(snapshot: RunSnapshot, read_only: bool) -> str | None:
    return None if snapshot.rows or snapshot.steps.columns else "there is no curve yet"


RUN, LOOK, GO, APP = "Act on the run", "Look at it", "Go to", "Everywhere"
RUN_ACTIONS = (
    Action("start", "s", "start/resume", "start the run, or resume it from its last checkpoint", RUN,
           _acts(_start), 5),
    Action("stop", "x", "stop", "stop at the next batch boundary; the checkpoint is kept", RUN, _acts(_stop),
           6),
    Action("kill", "X", "kill", "kill every process of the run now", RUN, _acts(_kill), 12),
    Action("rollback", "r", "rollback", "go back to a clean checkpoint, without starting anything", RUN,
           _acts(_rollback), 7),
    Action("recover", "R", "recover", "stop, roll back to a clean checkpoint, change settings, resume", RUN,
           _acts(_recover), 4),
    Action("undo", "u", "undo", "take the last rollback back", RUN, _acts(_undo), 13),
    Action("acknowledge", "a", "acknowledge", "put the alarm away", RUN, _acknowledge, 0),
    Action("config", "c", "config", "the run's settings; edits are saved for the next start or resume", GO,
           None, 8),
    Action("log", "o", "output", "the training's own output, live and searchable", GO, _log, 9),
    Action("diagnosis", "d", "diagnosis", "why it happened: causes, evidence, remedies", GO, None, 10),
    Action("labels", "D", "data labels", "errors in the labels of the data set, by kind", GO, None, 0),
    Action("compare", "v", "compare", "this attempt or run against another", GO, None, 0),
    Action("machine", "M", "machine", "GPUs, their processes, cores, disk and network", GO, None, 0),
    Action("fleet", "f", "all runs", "all runs below the directory", GO, None, 0),
    Action("steps", "e", "epochs/steps", "curves over epochs, single steps or time", LOOK, None, 11),
    Action("window", "t", "last part", "the whole run, or only its newest epochs or steps", LOOK),
    Action("logscale", "L", "log scale", "linear or logarithmic y axis", LOOK),
    Action("smooth", "m", "smooth", "running mean over 1, 5, 20 or 100 points", LOOK),
    Action("outliers", "w", "whole range", "leave outliers outside the y range, or show all of it", LOOK),
    Action("charts_back", "left_square_bracket", "charts back", "the charts before these", LOOK),
    Action("charts_on", "right_square_bracket", "charts on", "the charts after these", LOOK),
    Action("zoom", "z", "zoom", "one chart on the whole screen, with cursor and zoom", LOOK, _charts),
)  # fmt: skip
APP_ACTIONS = (
    Action("help", "question_mark", "help", "keys of this screen", APP, None, 1),
    Action("palette", "colon,ctrl+p", "commands", "find a command by its name", APP, None, 2),
    Action("quit", "q,ctrl+q", "quit", "leave; the training goes on", APP, None, 3),
    Action("suspend", "ctrl+z", "to the shell", "to the shell; fg comes back, the training goes on", APP),
    Action("theme", "T", "theme", "night, day, high contrast, 16 colours", APP),
    Action("ascii", "A", "ascii", "plain ASCII signs for terminals that lack the glyphs, remembered", APP),
)
HELPS_IN_ALARM = ("recover", "diagnosis", "acknowledge")
EVERY = {action.name: action for action in (*RUN_ACTIONS, *APP_ACTIONS)}


def why_not(name: str, snapshot: RunSnapshot | None, read_only: bool) -> str | None:
    """Return why the action `name` cannot be done now, None when it can."""
    check = EVERY[name].why_not
    if check is None:
        return None
    return check(snapshot, read_only) if snapshot is not None else "the run has not been read yet"
