"""What every dialog has: a way out that does nothing, and the keys that work everywhere."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

from nantui.ui.actions import APP_ACTIONS
from nantui.ui.context import InCockpit
from nantui.ui.widgets.keybar import Speaking

# A modal screen hides the app's own bindings, and `q` must work everywhere.
EVERYWHERE: list[BindingType] = [
    Binding(action.keys, f"app.everywhere('{action.name}')", action.label, show=False)
    for action in APP_ACTIONS
]


class Dialog(InCockpit, Speaking, ModalScreen[object]):
    """A dialog over a screen; Esc cancels."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "cancel", "cancel", show=False),
        Binding("slash", "app.find", "find a row of the list by its text", show=False),
        Binding("tab", "app.focus_next", "next", show=False),
        Binding("shift+tab", "app.focus_previous", "previous", show=False),
        *EVERYWHERE,
    ]

    def action_cancel(self) -> None:
        """Close the dialog; nothing is done."""
        self.dismiss(None)
