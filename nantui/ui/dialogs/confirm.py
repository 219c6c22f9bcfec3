"""A question before something that is hard to take back; Cancel is the default. For what nantui did not start
itself it is answered by typing the run's name.
"""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Container
from textual.widgets import Input

from nantui.ui.dialogs.base import Dialog
from nantui.ui.styled_text import Line, wrap
from nantui.ui.styled_text import width as cells
from nantui.ui.widgets.dialog_controls import Choice, Field
from nantui.ui.widgets.list_view import Document

WIDEST, NARROWEST, BORDER = 76, 50, 7


class ConfirmDialog(Dialog):
    """Answers True when confirmed, else None; `word` says what is confirmed."""

    BINDINGS = [("y", "confirm", "confirm"), ("n", "cancel", "cancel")]

    def __init__(self, question: str, text: list[str], word: str) -> None:
        super().__init__()
        self.question, self.text, self.word = question, text, word

    def compose(self) -> ComposeResult:
        read = Document(write=self._lines)
        read.can_focus = False
        with Container(classes="dialog small"):
            yield read
            yield from self.controls()

    def _lines(self, width: int) -> list[Line]:
        paragraphs = (line for paragraph in self.text for line in wrap(paragraph, width))
        return [*wrap(self.question, width, "title"), [], *paragraphs]

    def controls(self) -> ComposeResult:
        """Yield what the question is answered with."""
        yield Choice((("cancel", "Cancel", "Esc"), ("confirm", self.word.capitalize(), "y")))

    def on_mount(self) -> None:
        """Be no wider than what is said, and leave no scraps of the screen below at the edges."""
        wide = max(NARROWEST, BORDER + max(map(cells, self._lines(WIDEST - BORDER))))
        self.query_one(Container).styles.max_width = wide if wide + BORDER < self.app.size.width else "100%"

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
