"""Every key of the cockpit, as data: what it is called and what it does.

The bindings, the key bar, the help, the command palette and docs/keys.md all come from this list.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from textual.binding import Binding, BindingType


@dataclass(frozen=True)
class Action:
    """One thing a key does; `bar` is its place in the key bar, 0 for none."""

    name: str
    keys: str
    label: str
    help: str
    group: str
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


RUN, LOOK, GO, APP = "Act on the run", "Look at it", "Go to", "Everywhere"
RUN_ACTIONS = (
    Action("start", "s", "start/resume", "start the run, or resume it from its last checkpoint", RUN, 5),
    Action("stop", "x", "stop", "stop at the next batch boundary; the checkpoint is kept", RUN, 6),
    Action("kill", "X", "kill", "kill every process of the run now", RUN, 13),
    Action("rollback", "r", "rollback", "go back to a clean checkpoint, without starting anything", RUN, 7),
    Action("recover", "R", "recover", "stop, roll back to a clean checkpoint, change settings, resume", RUN,
           4),
    Action("undo", "u", "undo", "take back the newest of: theme, alarm put away, rollback", RUN, 14),
    Action("acknowledge", "a", "acknowledge", "put the alarm away", RUN),
    Action("config", "c", "config", "the run's settings; edits are saved for the next start or resume", GO,
           9),
    Action("log", "o", "output", "the training's own output, live and searchable", GO, 10),
    Action("diagnosis", "d", "diagnosis", "why it happened: causes, evidence, remedies", GO, 11),
    Action("labels", "D", "data labels", "errors in the labels of the data set, by kind", GO),
    Action("compare", "v", "compare", "this attempt or run against another", GO),
    Action("machine", "M", "machine", "GPUs, their processes, cores, disk and network", GO),
    Action("fleet", "f", "all runs", "all runs below the directory", GO),
    Action("steps", "e", "epochs/steps", "curves over epochs, single steps or time", LOOK, 12),
    Action("window", "t", "last part", "the whole run, or only its newest epochs or steps", LOOK),
    Action("logscale", "L", "log scale", "linear or logarithmic y axis", LOOK),
    Action("smooth", "m", "smooth", "running mean over 1, 5, 20 or 100 points", LOOK),
    Action("outliers", "w", "whole range", "leave outliers outside the y range, or show all of it", LOOK),
    Action("charts_back", "left_square_bracket", "charts back", "the charts before these", LOOK),
    Action("charts_on", "right_square_bracket", "charts on", "the charts after these", LOOK),
    Action("zoom", "z", "zoom", "one chart on the whole screen, with cursor and zoom", LOOK),
)  # fmt: skip
APP_ACTIONS = (
    Action("help", "question_mark", "help", "keys of this screen", APP, 1),
    Action("palette", "colon,ctrl+p", "commands", "find a command by its name", APP, 2),
    Action("jump", "J,ctrl+o", "jump", "a letter on each panel, chart and field: it goes there", APP, 8),
    Action("quit", "q,ctrl+q", "quit", "leave; the training goes on", APP, 3),
    Action("suspend", "ctrl+z", "to the shell", "to the shell; fg comes back, the training goes on", APP),
    Action("theme", "T", "theme", "night, day, high contrast, 16 colours", APP),
    Action("ascii", "A", "ascii", "plain ASCII signs for terminals that lack the glyphs, remembered", APP),
)
HELPS_IN_ALARM = ("recover", "diagnosis", "acknowledge")
EVERY = {action.name: action for action in (*RUN_ACTIONS, *APP_ACTIONS)}


def bindings(actions: Iterable[Action], runs: str) -> list[BindingType]:
    """Return bindings that call `runs`, an action of Textual, with an action's name."""
    return [Binding(one.keys, f"{runs}('{one.name}')", one.label, show=False) for one in actions]
