"""A question before something that is hard to take back; Cancel is the default.

A question that is answered by typing the run's name: for what nantui did not start itself.

Pick one of several things by name: which there are is known only when the key is pressed.
"""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.containers import Container
from textual.widgets import Input

from nantui.ui.dialogs.base import Dialog
from nantui.ui.styled_text import Line, fit, wrap
from nantui.ui.styled_text import width as cells
from nantui.ui.widgets.dialog_controls import Choice, Field
from nantui.ui.widgets.list_view import Listing
from nantui.ui.widgets.text_view import Document, Title

WIDEST, NARROWEST, BORDER = 76, 50, 7


class Question(Document, can_focus=False):
    """A question with what it means, to be read."""

    def __init__(self, question: str, text: list[str]) -> None:
        super().__init__(write=self._lines)
        self.question, self.text = question, text

    def on_mount(self) -> None:
        """Make the dialog no wider than what it says."""
        longest = max(map(cells, self._lines(WIDEST - BORDER)))
        if isinstance(self.parent, Container):
            self.parent.styles.max_width = max(NARROWEST, longest + BORDER)

    def _lines(self, width: int) -> list[Line]:
        return [
            [(self.question, "title")],
            [],
            *(line for paragraph in self.text for line in wrap(paragraph, width)),
        ]


class ConfirmDialog(Dialog):
    """Answers True when confirmed, else None; `word` says what is confirmed."""

    BINDINGS = [("y", "confirm", "confirm"), ("n", "cancel", "cancel")]

    def __init__(self, question: str, text: list[str], word: str) -> None:
        super().__init__()
        self.question, self.text, self.word = question, text, word

    def compose(self) -> ComposeResult:
        with Container(classes="dialog small"):
            yield Question(self.question, self.text)
            yield from self.controls()

    def controls(self) -> ComposeResult:
        """Yield what the question is answered with."""
        yield Choice((("cancel", "Cancel", "Esc"), ("confirm", self.word.capitalize(), "y")))

    def on_mount(self) -> None:
        self.query("Choice, Field").first().focus()

    def on_choice_pressed(self, message: Choice.Pressed) -> None:
        self.dismiss(True if message.name == "confirm" else None)

    def action_confirm(self) -> None:
        """Confirm with one key, for those who have read it."""
        self.dismiss(True)


class NameDialog(ConfirmDialog):
    """Confirmed by typing `word`, a name, and Enter."""

    def controls(self) -> ComposeResult:
        yield Field(placeholder=f"type {self.word} and press Enter; Esc cancels")

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool:
        """No single key confirms."""
        return action != "confirm"

    def on_input_submitted(self, message: Input.Submitted) -> None:
        """Answer only to the very name; anything else is typed again."""
        if message.value.strip() == self.word:
            self.dismiss(True)
        else:
            message.input.value = ""


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
