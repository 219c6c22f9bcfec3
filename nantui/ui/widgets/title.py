"""A heading that is made from a function, for screens that have one line to say on top."""

from __future__ import annotations

from collections.abc import Callable

from nantui.ui.ink import Line, fit
from nantui.ui.widgets.lines import LinesWidget


class Title(LinesWidget):
    """Shows what `make(width)` returns."""

    def __init__(self, make: Callable[[int], list[Line]], *, id: str = "title") -> None:
        super().__init__(id=id)
        self._make = make

    def build(self, width: int, height: int) -> list[Line]:
        return [fit(line, width) for line in self._make(width)][:height]
