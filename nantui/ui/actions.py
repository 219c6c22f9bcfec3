"""Every key of the cockpit, as data in configs/tables/keys.json: what it is called and what it does.

The bindings, the key bar, the help, the command palette and docs/keys.md all come from it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from textual.binding import Binding, BindingType

from nantui.run.documents import table


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


ACTIONS = [
    Action(name, group=group, **told) for group, rows in table("keys").items() for name, told in rows.items()
]
RUN, GO, APP = "Act on the run", "Go to", "Everywhere"
RUN_ACTIONS = tuple(one for one in ACTIONS if one.group != APP)
APP_ACTIONS = tuple(one for one in ACTIONS if one.group == APP)
HELPS_IN_ALARM = ("recover", "diagnosis", "acknowledge")
EVERY = {action.name: action for action in ACTIONS}


def bindings(actions: Iterable[Action], runs: str) -> list[BindingType]:
    """Return bindings that call `runs`, an action of Textual, with an action's name."""
    return [Binding(one.keys, f"{runs}('{one.name}')", one.label, show=False) for one in actions]
