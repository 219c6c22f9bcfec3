"""Choosing rows of a list: one thing by its name, some of the presets, the next row that has a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container
from textual.widgets import Input

from nantui.settings.presets import Preset
from nantui.ui.dialogs.base import Dialog
from nantui.ui.format import clean
from nantui.ui.styled_text import Line, column, fit
from nantui.ui.widgets.dialog_controls import Choice, Field
from nantui.ui.widgets.line_widget import Title
from nantui.ui.widgets.list_view import Listing


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
        self.query_one(Listing).show(
            [key for key, _ in self.names], lambda row, width: fit([(self.names[row][1], "text")], width)
        )

    def on_listing_chosen(self, message: Listing.Chosen) -> None:
        self.dismiss(self.names[message.row][0])


class PresetsDialog(Dialog):
    """Named remedies and what each is for. Space marks; answers a tuple of names, None when cancelled."""

    BINDINGS = [Binding("space", "mark", "mark or unmark", show=False)]

    def __init__(self, run: Path, chosen: Sequence[str]) -> None:
        super().__init__()
        self.run_path, self.chosen = run, list(chosen)
        self._presets: list[Preset] = []

    def compose(self) -> ComposeResult:
        with Container(classes="dialog tall"):
            yield Title(
                lambda width: [[("Presets", "title"), ("   Space marks, Tab goes to the buttons", "faint")]]
            )
            yield Listing(id="presets", empty="reading presets..")
            yield Choice((("use", "Use these", "Enter"), ("cancel", "Cancel", "Esc")))

    def on_mount(self) -> None:
        backend = self.cockpit.backend
        self.find_out(lambda: backend.presets(self.run_path), self._take)

    def _take(self, presets: dict[str, Preset] | None, problem: str) -> None:
        if presets is None:
            self.query_one(Listing).empty = problem
        self._presets = list((presets or {}).values())
        self._show()

    def _show(self) -> None:
        self.query_one(Listing).show([preset.name for preset in self._presets], self._row)

    def _row(self, index: int, width: int) -> Line:
        preset = self._presets[index]
        marked = preset.name in self.chosen
        mark = self.cockpit.glyphs.good if marked else " "
        name = (column(clean(preset.name, 40), 20), "strong" if marked else "text")
        return fit([(f"[{mark}] ", "accent"), name, (clean(preset.title, 200), "muted")], width)

    def action_mark(self) -> None:
        name = self.query_one(Listing).key
        if isinstance(name, str):
            others = [one for one in self.chosen if one != name]
            self.chosen = others if name in self.chosen else [*self.chosen, name]
            self._show()

    def action_use(self) -> None:
        self.dismiss(tuple(self.chosen))

    on_listing_chosen = action_use


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
