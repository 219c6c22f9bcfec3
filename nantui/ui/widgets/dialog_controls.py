"""The buttons of a dialog: words between angle brackets, one of them under the cursor.

A line to type into, whose cursor stands still: blinking costs bytes for ever, and tests their peace.
"""

from __future__ import annotations

from dataclasses import dataclass

from textual.binding import Binding
from textual.events import Click
from textual.message import Message
from textual.reactive import reactive
from textual.widgets import Input

from nantui.ui.styled_text import Line
from nantui.ui.widgets.line_widget import LinesWidget


class Choice(LinesWidget, can_focus=True):
    """Buttons side by side; the first one is the default, so it had better be the harmless one."""

    BINDINGS = [
        Binding("left,h", "move(-1)", "left", show=False),
        Binding("right,l", "move(1)", "right", show=False),
        Binding("enter", "press", "press", show=False),
    ]
    cursor: reactive[int] = reactive(0, repaint=False)

    @dataclass
    class Pressed(Message):
        """A button was pressed."""

        name: str

    def __init__(self, buttons: tuple[tuple[str, str, str], ...], *, id: str | None = None) -> None:
        """`buttons` are (name, label, key); the label says what happens."""
        super().__init__(id=id, classes="buttons")
        self.buttons = buttons
        self._spare = 8
        """Columns that a button takes beside its words: fewer where the line would be too short."""

    def offer(self, buttons: tuple[tuple[str, str, str], ...]) -> None:
        self.buttons = buttons
        self.cursor = 0
        self.redraw()

    def build(self, width: int, height: int) -> list[Line]:
        line: Line = []
        self._spare = 8 if sum(len(label) + len(key) + 8 for _, label, key in self.buttons) <= width else 4
        pad, gap = (" ", "   ") if self._spare == 8 else ("", " ")
        for index, (_, label, key) in enumerate(self.buttons):
            here = index == self.cursor
            ink = "cursor" if here and self.has_focus else "chosen" if here else "text"
            begin, end = "[]" if here else "  "
            line += [(f"{begin}{pad}{label}{pad}{end}", ink), (f" {key}{gap}", "key")]
        return [line]

    def watch_cursor(self) -> None:
        self.redraw()

    def on_click(self, event: Click) -> None:
        start = 0
        for index, (_, label, key) in enumerate(self.buttons):
            end = start + len(label) + len(key) + self._spare
            if start <= event.x < end:
                self.cursor = index
                self.action_press()
                return
            start = end

    def action_move(self, by: int) -> None:
        self.cursor = (self.cursor + by) % len(self.buttons)

    def action_press(self) -> None:
        self.post_message(self.Pressed(self.buttons[self.cursor][0]))


class Field(Input):
    """An input without the blinking."""

    cursor_blink: reactive[bool] = reactive(False, init=False)
