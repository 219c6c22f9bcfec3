"""The last lines of the training's output, where the screen is large enough for them."""

from __future__ import annotations

import re

from nantui.ui.format import clean, without_pictures
from nantui.ui.ink import Line, fit
from nantui.ui.widgets.lines import LinesWidget

NAN = re.compile(r"(?<![a-z])(nan|inf)(?![a-z])", re.IGNORECASE)


class Output(LinesWidget):
    """Newest line at the bottom."""

    def __init__(self) -> None:
        super().__init__(id="output", classes="panel")
        self.tail: tuple[str, ...] = ()

    def show(self, tail: tuple[str, ...]) -> None:
        """Draw other lines."""
        if tail != self.tail:
            self.tail = tail
            self.redraw()

    def build(self, width: int, height: int) -> list[Line]:
        lines: list[Line] = [[("output", "title"), ("   o opens it", "faint")]]
        for text in self.tail[-(height - 1) :] if height > 1 else ():
            text = " ".join(without_pictures(clean(text, 600)).split())
            lines.append(fit([(text, "bad" if NAN.search(text) else "muted")], width))
        return lines
