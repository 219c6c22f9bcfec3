"""The wall of charts: as many as fit, in pages.

One chart: redrawn only when its picture has changed.
"""

from __future__ import annotations

import math
from dataclasses import replace

from textual.binding import Binding
from textual.containers import Container
from textual.events import Click
from textual.message import Message
from textual.reactive import reactive

from nantui.ui.charts.draw import draw
from nantui.ui.charts.series import Picture, View
from nantui.ui.styled_text import Line
from nantui.ui.widgets.line_widget import LinesWidget

NARROWEST, LOWEST = 25, 7
SMOOTHINGS = (0, 5, 20, 100)
EPOCH_WINDOWS, STEP_WINDOWS = (0, 100, 20), (0, 2000, 200)


class Chart(LinesWidget):
    """Draws one picture."""

    def __init__(self, picture: Picture, *, id: str | None = None) -> None:
        super().__init__(id=id, classes="panel chart")
        self.picture = picture
        self.chosen = False
        self._asked: tuple[object, ...] = (None,) * 4
        self._drawn: list[Line] = []

    def show(self, picture: Picture) -> None:
        """Draw `picture` unless it is what is drawn already."""
        if picture != self.picture:
            self.picture = picture
            self.redraw()

    def build(self, width: int, height: int) -> list[Line]:
        asked = (self.picture, width, height, self.glyphs)
        if any(one is not other for one, other in zip(asked, self._asked, strict=True)):
            self._asked, self._drawn = asked, draw(self.picture, width, height, self.glyphs)
        lines = list(self._drawn)
        if self.chosen and lines:
            lines[0] = [(text, "cursor" if ink == "title" else ink) for text, ink in lines[0]]
        return lines

    def choose(self, chosen: bool) -> None:
        """Set the title off while this is the chart that Enter opens."""
        if chosen != self.chosen:
            self.chosen = chosen
            self.redraw()


def next_window(over_steps: bool, last: int) -> int:
    """Return how many of the newest epochs or steps to show after `last`; 0 is all."""
    windows = STEP_WINDOWS if over_steps else EPOCH_WINDOWS
    return windows[(windows.index(last) + 1) % len(windows)]


class ChartWall(Container, can_focus=True):
    """Shows pictures side by side; `[` and `]` turn the page where not all of them fit. With the focus, one
    of them is chosen.
    """

    BINDINGS = [
        Binding("left,h", "choose(-1, 0)", "chart to the left", show=False),
        Binding("right,l", "choose(1, 0)", "chart to the right", show=False),
        Binding("up,k", "choose(0, -1)", "chart above", show=False),
        Binding("down,j", "choose(0, 1)", "chart below", show=False),
        Binding("enter", "open", "this chart on the whole screen", show=False),
    ]
    chosen: reactive[int] = reactive(0, repaint=False)

    class Chosen(Message):
        """A chart is to be shown on the whole screen: `chosen` of this page."""

    def __init__(self) -> None:
        super().__init__(id="charts")
        self.pictures: list[Picture] = []
        self.view = View()
        self.page = 0
        self._grid = (0, 0)

    def action_choose(self, across: int, down: int) -> None:
        """Choose the chart beside, above or below."""
        chosen = self.chosen + across + down * self.grid()[0]
        if 0 <= chosen < self._shown():
            self.chosen = chosen

    def action_open(self) -> None:
        """Ask for the chosen chart to be shown on the whole screen."""
        if self.pictures:
            self.post_message(self.Chosen())

    def on_click(self, event: Click) -> None:
        """Choose the chart under the mouse and open it."""
        for index, chart in enumerate(self.query(Chart)):
            if chart.display and chart.region.contains(event.screen_x, event.screen_y):
                self.chosen = index
                self.action_open()

    def watch_chosen(self) -> None:
        for index, chart in enumerate(self.query(Chart)):
            chart.choose(self.has_focus and index == self.chosen)

    def watch_has_focus(self, has_focus: bool) -> None:
        super().watch_has_focus(has_focus)
        self.watch_chosen()

    def _shown(self) -> int:
        """Return how many charts are on this page."""
        return min(len(self.pictures) - self.first, math.prod(self.grid()))

    def show(self, pictures: list[Picture]) -> None:
        """Show these pictures."""
        self.pictures = pictures
        self.lay_out()

    def on_resize(self) -> None:
        self.lay_out()

    def lay_out(self) -> None:
        """Choose how many charts fit, and give each its picture."""
        if not self.is_attached or not self.size.width or not self.pictures:
            return
        columns, rows = self.grid()
        self.page %= self.pages
        shown = self.pictures[self.first :][: columns * rows]
        if (columns, rows) != self._grid:
            self._grid = (columns, rows)
            self.styles.grid_size_columns, self.styles.grid_size_rows = columns, rows
        charts = list(self.query(Chart))
        for chart in charts[len(shown) :]:
            chart.display = False
        for index, picture in enumerate(replace(one, view=self.view) for one in shown):
            if index < len(charts):
                if not charts[index].display:
                    charts[index].display = True
                charts[index].show(picture)
            else:
                self.mount(Chart(picture))

    def grid(self) -> tuple[int, int]:
        """Return how many charts stand side by side and how many above each other."""
        most = len(self.pictures)
        widest = max(1, min(most, (self.size.width + 1) // (NARROWEST + 1), 4))
        rows = max(1, min(-(-most // widest), (self.size.height + 1) // (LOWEST + 1)))
        return min(widest, -(-most // rows)), rows

    @property
    def first(self) -> int:
        """The number of the first chart that is shown."""
        return self.page * math.prod(self.grid())

    @property
    def pages(self) -> int:
        """How many pages there are."""
        return max(1, -(-len(self.pictures) // math.prod(self.grid())))

    def turn(self, by: int) -> None:
        """Turn the page."""
        self.page = (self.page + by) % self.pages
        self.chosen = min(self.chosen, self._shown() - 1)
        self.lay_out()

    def look(self, view: View) -> None:
        """Look at all charts another way."""
        self.view = view
        self.lay_out()
