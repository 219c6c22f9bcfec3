"""One chart: redrawn only when its picture has changed."""

from __future__ import annotations

from nantui.ui.ink import Line
from nantui.ui.plot.curves import Picture
from nantui.ui.plot.figure import draw
from nantui.ui.widgets.lines import LinesWidget


class Chart(LinesWidget):
    """Draws one picture."""

    def __init__(self, picture: Picture, *, id: str | None = None) -> None:
        super().__init__(id=id, classes="panel chart")
        self.picture = picture

    def show(self, picture: Picture) -> None:
        """Draw `picture` unless it is what is drawn already."""
        if picture != self.picture:
            self.picture = picture
            self.redraw()

    def build(self, width: int, height: int) -> list[Line]:
        return draw(self.picture, width, height, self.glyphs)
