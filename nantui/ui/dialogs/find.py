"""`/` in a list or a text: go to the next row that has what is typed."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.binding import Binding
from textual.widgets import Input

from nantui.ui.dialogs.base import Dialog
from nantui.ui.widgets.dialog_controls import Field
from nantui.ui.widgets.list_view import Listing


class FindDialog(Dialog):
    """One line at the bottom; Enter stays at what was found, Esc goes back to where the cursor was."""

    BINDINGS = [
        Binding("down", "next(1)", "next match", show=False, priority=True),
        Binding("up", "next(-1)", "match before", show=False, priority=True),
    ]

    def __init__(self, listing: Listing) -> None:
        super().__init__()
        self.listing, self._from = listing, listing.cursor

    def compose(self) -> ComposeResult:
        yield Field(placeholder="find: arrows go to the next match, Enter stays there, Esc goes back")

    def on_mount(self) -> None:
        self.query_one(Input).focus()

    def on_input_changed(self, message: Input.Changed) -> None:
        self.listing.go(self._from - 1)
        self.action_next(1)

    def action_next(self, by: int) -> None:
        """Go to the next row that has the text, around the ends."""
        wanted, listing = self.query_one(Input).value.lower(), self.listing
        found = [row for row in range(listing.rows) if wanted in listing.text_of(row).lower()]
        beyond = [row for row in found if (row - listing.cursor) * by > 0] or found
        if beyond:
            listing.go(beyond[0 if by > 0 else -1])
        else:
            self.say(f"no row has {wanted!r}", "warn")

    def on_input_submitted(self) -> None:
        self.dismiss(None)

    def action_cancel(self) -> None:
        """Go back to the row from before."""
        self.listing.go(self._from)
        super().action_cancel()
