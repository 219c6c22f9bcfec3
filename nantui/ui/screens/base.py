"""What every screen has: a way back, a line to say something in, and keys that explain themselves."""

from __future__ import annotations

from typing import ClassVar, cast

from textual.binding import Binding, BindingType
from textual.screen import ModalScreen, Screen

from nantui.ui.actions import APP_ACTIONS
from nantui.ui.model.command_progress import CommandOutcome
from nantui.ui.widgets.keybar import SECONDS_SHOWN, KeyBar

REFUSAL_S = 60.0


class Speaking:
    """Says things in the key bar of a screen."""

    def say(self, text: str, ink: str = "info", seconds: float = SECONDS_SHOWN) -> None:
        """Show one line for a few seconds."""
        for bar in cast(Screen[None], self).query(KeyBar):
            bar.say(text, ink, seconds)

    def hear(self, outcome: CommandOutcome) -> None:
        """Learn how a command ended. One that was not carried out is said whole, and for long."""
        if not outcome.ok:
            for bar in cast(Screen[None], self).query(KeyBar):
                bar.say(outcome.refusal(), "bad", REFUSAL_S, whole=True)


# A modal screen hides the app's own bindings, and `q` must work everywhere.
EVERYWHERE: list[BindingType] = [
    Binding(action.keys, f"app.everywhere('{action.name}')", action.label, show=False)
    for action in APP_ACTIONS
]


class BaseScreen(Speaking, Screen[None]):
    """A full screen; Esc goes back where there is something to go back to."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "back", show=False),
        Binding("tab", "app.focus_next", "next panel", show=False),
        Binding("shift+tab", "app.focus_previous", "previous panel", show=False),
    ]

    def action_back(self) -> None:
        """Return to the screen before."""
        if len(self.app.screen_stack) > 2:
            self.app.pop_screen()


class Dialog(Speaking, ModalScreen[object]):
    """A dialog over a screen; Esc cancels."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "cancel", show=False),
        Binding("tab", "app.focus_next", "next", show=False),
        Binding("shift+tab", "app.focus_previous", "previous", show=False),
        *EVERYWHERE,
    ]

    def action_cancel(self) -> None:
        """Close the dialog; nothing is done."""
        self.dismiss(None)
