"""A question that is answered by typing the run's name: for what nantui did not start itself."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Container
from textual.widgets import Input

from nantui.ui.ink import Line, wrap
from nantui.ui.screens.base import Dialog
from nantui.ui.widgets.document import Document
from nantui.ui.widgets.field import Field


class NameDialog(Dialog):
    """Answers True once the name has been typed and Enter pressed, None when cancelled."""

    def __init__(self, question: str, text: list[str], name: str) -> None:
        super().__init__()
        self.question, self.text, self.wanted = question, text, name

    def compose(self) -> ComposeResult:
        with Container(classes="dialog small"):
            yield Document(write=self._write)
            yield Field(placeholder=f"type {self.wanted} and press Enter; Esc cancels")

    def on_mount(self) -> None:
        self.query_one(Document).can_focus = False
        self.query_one(Input).focus()

    def _write(self, width: int) -> list[Line]:
        lines: list[Line] = [[(self.question, "title")], []]
        for paragraph in self.text:
            lines += wrap(paragraph, width)
        return lines

    def on_input_submitted(self, message: Input.Submitted) -> None:
        """Answer only to the very name; anything else is typed again."""
        if message.value.strip() == self.wanted:
            self.dismiss(True)
        else:
            message.input.value = ""
