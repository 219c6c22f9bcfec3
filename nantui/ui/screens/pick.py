"""Pick one of several things by name: which there are is known only when the key is pressed."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Container

from nantui.ui.ink import fit
from nantui.ui.screens.base import Dialog
from nantui.ui.widgets.listing import Listing
from nantui.ui.widgets.title import Title


class PickDialog(Dialog):
    """Answers the key of what was picked, None when cancelled."""

    def __init__(self, question: str, names: Sequence[tuple[str, str]]) -> None:
        super().__init__()
        self.question, self.names = question, names

    def compose(self) -> ComposeResult:
        with Container(classes="dialog tall small"):
            yield Title(lambda width: [[(self.question, "title"), ("   Enter picks, Esc cancels", "faint")]])
            yield Listing(id="picks")

    def on_mount(self) -> None:
        listing = self.query_one(Listing)
        listing.show(
            [key for key, _ in self.names], lambda row, width: fit([(self.names[row][1], "text")], width)
        )
        listing.focus()

    def on_listing_chosen(self, message: Listing.Chosen) -> None:
        self.dismiss(self.names[message.row][0])
