"""What every screen has: a way back, a line to say something in, and threads that end with it."""

from __future__ import annotations

from textual.binding import Binding
from textual.screen import Screen

from nantui.ui.context import InCockpit
from nantui.ui.watchers import Watcher
from nantui.ui.widgets.keybar import MOVING, Speaking
from nantui.ui.widgets.list_view import Listing


class BaseScreen(InCockpit, Speaking, Screen[None]):
    """A full screen; Esc goes back where there is something to go back to."""

    BINDINGS = [
        Binding("escape", "back", "back", show=False),
        *MOVING,
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

    def action_open_field(self) -> None:
        """Show the screen's input line, to type into."""
        for field in self.query("Field"):
            field.display = True
            field.focus()

    def close_field(self) -> bool:
        """Put the input line away and go back to the list; False where none is open."""
        open_ones = [field for field in self.query("Field") if field.display]
        for field in open_ones:
            field.display = False
            self.query(Listing).first().focus()
        return bool(open_ones)

    def action_back(self) -> None:
        """Put the input line away, or return to the screen before."""
        if self.close_field():
            return
        if len(self.app.screen_stack) > 2:
            self.app.pop_screen()
        else:
            self.say("this is the first screen; q leaves, f shows all runs")
