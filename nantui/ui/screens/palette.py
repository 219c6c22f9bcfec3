"""Find a command by its name: those that can be done now first, the others with the reason why not."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container
from textual.screen import Screen
from textual.widgets import Input

from nantui.ui.actions import APP_ACTIONS, RUN_ACTIONS, Action, why_not
from nantui.ui.ink import Line, column, fit
from nantui.ui.screens.base import Dialog
from nantui.ui.widgets.listing import Listing


class PaletteDialog(Dialog):
    """Type to narrow down, arrows to choose, Enter to do it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "move(1)", "down", show=False, priority=True),
        Binding("up", "move(-1)", "up", show=False, priority=True),
    ]

    def __init__(self, over: Screen[object]) -> None:
        super().__init__()
        self.over = over
        self._shown: list[tuple[Action, str | None]] = []

    def compose(self) -> ComposeResult:
        with Container(classes="dialog tall"):
            yield Input(placeholder="what do you want to do?")
            yield Listing(id="palette", empty="no command has these letters")

    def on_mount(self) -> None:
        self.query_one(Input).focus()
        self._narrow("")

    def on_input_changed(self, message: Input.Changed) -> None:
        self._narrow(message.value)

    def _narrow(self, typed: str) -> None:
        on_run = hasattr(self.over, "action_act")
        actions = [*(RUN_ACTIONS if on_run else ()), *APP_ACTIONS]
        snapshot = getattr(self.over, "snapshot", None)
        read_only = getattr(self.app, "read_only", False)
        found = [action for action in actions if matches(typed, f"{action.label} {action.help}")]
        reasons = [
            (action, why_not(action.name, snapshot, read_only) if action in RUN_ACTIONS else None)
            for action in found
        ]
        self._shown = sorted(
            reasons, key=lambda pair: (pair[1] is not None, not matches(typed, pair[0].label))
        )
        listing = self.query_one(Listing)
        listing.show([action.name for action, _ in self._shown], self._row)
        listing.go(0)

    def _row(self, index: int, width: int) -> Line:
        action, reason = self._shown[index]
        key: Line = [(column(action.shown_key, 4), "key" if reason is None else "faint")]
        label = (column(action.label, 15), "strong" if reason is None else "faint")
        return fit([*key, label, (f"not now: {reason}" if reason else action.help, "muted")], width)

    def action_move(self, by: int) -> None:
        """Move the cursor while the typing goes on above."""
        self.query_one(Listing).action_move(by)

    def on_input_submitted(self) -> None:
        self._do(self.query_one(Listing).cursor)

    def on_listing_chosen(self, message: Listing.Chosen) -> None:
        self._do(message.row)

    def _do(self, row: int) -> None:
        if not 0 <= row < len(self._shown):
            return
        action = self._shown[row][0]
        self.dismiss(None)
        if action in RUN_ACTIONS:
            self.app.call_later(self.over.action_act, action.name)  # type: ignore[attr-defined]
        else:
            self.app.call_later(self.app.action_everywhere, action.name)  # type: ignore[attr-defined]


def matches(typed: str, text: str) -> bool:
    """Tell whether every typed word stands in `text`, or its letters do in this order."""
    lowered = text.lower()
    words = typed.lower().split()
    return all(word in lowered for word in words) or _in_order("".join(words), lowered.split("  ")[0][:24])


def _in_order(letters: str, text: str) -> bool:
    rest = iter(text)
    return all(letter in rest for letter in letters)
