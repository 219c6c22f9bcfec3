"""A line to type into, whose cursor stands still: blinking costs bytes for ever, and tests their peace."""

from __future__ import annotations

from textual.widgets import Input


class Field(Input):
    """An input without the blinking."""

    def __init__(self, *, placeholder: str = "", id: str | None = None) -> None:
        super().__init__(placeholder=placeholder, id=id)
        self.cursor_blink = False
