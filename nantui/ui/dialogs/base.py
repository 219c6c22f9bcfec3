"""What every dialog has: a way out that does nothing, and the keys that work everywhere."""

from __future__ import annotations

from textual.await_complete import AwaitComplete
from textual.binding import Binding
from textual.screen import ModalScreen

from nantui.ui.actions import APP_ACTIONS, bindings
from nantui.ui.context import InCockpit
from nantui.ui.widgets.dialog_controls import Choice
from nantui.ui.widgets.keybar import MOVING, Speaking


class Dialog(InCockpit, Speaking, ModalScreen[object]):
    """A dialog over a screen; Esc cancels."""

    AUTO_FOCUS = "*"
    BINDINGS = [
        Binding("escape", "cancel", "cancel", show=False),
        *MOVING,
        # A modal screen hides the app's own bindings, and `q` must work everywhere.
        *bindings(APP_ACTIONS, "app.everywhere"),
    ]

    def dismiss(self, result: object = None) -> AwaitComplete:
        """Close. Keys that came in one burst must not close the screen below, too."""
        on_top = self.app.screen_stack[1:][-1:] == [self]
        return super().dismiss(result) if on_top else AwaitComplete.nothing()

    def on_choice_pressed(self, message: Choice.Pressed) -> None:
        """The buttons are called as the actions of their keys."""
        getattr(self, f"action_{message.name}")()

    def action_cancel(self) -> None:
        """Close the dialog; nothing is done."""
        self.dismiss(None)
