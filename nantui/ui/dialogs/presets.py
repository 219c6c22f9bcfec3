"""Choose presets: named remedies, each with what it is for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container

from nantui.settings.presets import Preset
from nantui.ui.dialogs.base import Dialog
from nantui.ui.format import clean
from nantui.ui.styled_text import Line, column, fit
from nantui.ui.watchers import Answer, find_out
from nantui.ui.widgets.dialog_controls import Choice
from nantui.ui.widgets.list_view import Listing
from nantui.ui.widgets.text_view import Title


class PresetsDialog(Dialog):
    """Space marks and unmarks; answers a tuple of names, None when cancelled."""

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
        self.query_one(Listing).focus()
        backend = self.cockpit.backend
        find_out("presets", lambda: backend.presets(self.run_path), self.post_message)

    def on_answer(self, message: Answer) -> None:
        if message.problem:
            self.query_one(Listing).empty = message.problem
        self._presets = list((message.value or {}).values())
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

    def on_listing_chosen(self) -> None:
        self.dismiss(tuple(self.chosen))

    def on_choice_pressed(self, message: Choice.Pressed) -> None:
        self.dismiss(tuple(self.chosen) if message.name == "use" else None)
