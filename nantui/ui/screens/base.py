"""What every screen has: a way back, a line to say something in, and threads that end with it."""

from __future__ import annotations

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.screen import Screen

from nantui.ui.context import InCockpit
from nantui.ui.watchers import Watcher
from nantui.ui.widgets.keybar import Speaking


class BaseScreen(InCockpit, Speaking, Screen[None]):
    """A full screen; Esc goes back where there is something to go back to."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "back", show=False),
        Binding("slash", "app.find", "find a row of the list by its text", show=False),
        Binding("tab", "app.focus_next", "next panel", show=False),
        Binding("shift+tab", "app.focus_previous", "previous panel", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.watchers: list[Watcher] = []

    def watch_with(self, *watchers: Watcher) -> None:
        """Start threads that end with the screen."""
        for watcher in watchers:
            self.watchers.append(watcher)
            watcher.start()

    def on_unmount(self) -> None:
        for watcher in self.watchers:
            watcher.stop()

    def open_field(self) -> None:
        """Show the screen's input line, to type into."""
        from textual.widgets import Input  # late: the run's screen has none

        field = self.query_one(Input)
        field.display = True
        field.focus()

    def action_back(self) -> None:
        """Return to the screen before."""
        if len(self.app.screen_stack) > 2:
            self.app.pop_screen()
        else:
            self.say("this is the first screen; q leaves, f shows all runs")
