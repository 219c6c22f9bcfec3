"""A question before something that is hard to take back; Cancel is the default."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container

from nantui.ui.ink import Line, wrap
from nantui.ui.screens.base import Dialog
from nantui.ui.widgets.choice import Choice
from nantui.ui.widgets.document import Document


class ConfirmDialog(Dialog):
    """Answers True when confirmed, else None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "confirm", "confirm", show=False),
        Binding("n", "cancel", "cancel", show=False),
    ]

    def __init__(self, question: str, text: list[str], verb: str) -> None:
        super().__init__()
        self.question, self.text, self.verb = question, text, verb

    def compose(self) -> ComposeResult:
        with Container(classes="dialog small"):
            yield Document(write=self._write)
            yield Choice((("cancel", "Cancel", "Esc"), ("confirm", self.verb.capitalize(), "y")))

    def on_mount(self) -> None:
        self.query_one(Document).can_focus = False
        self.query_one(Choice).focus()

    def _write(self, width: int) -> list[Line]:
        lines: list[Line] = [[(self.question, "title")], []]
        for paragraph in self.text:
            lines += wrap(paragraph, width)
        return lines

    def on_choice_pressed(self, message: Choice.Pressed) -> None:
        self.dismiss(True if message.name == "confirm" else None)

    def action_confirm(self) -> None:
        """Confirm with one key, for those who have read it."""
        self.dismiss(True)
