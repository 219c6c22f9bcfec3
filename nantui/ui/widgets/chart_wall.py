"""The wall of charts: as many as fit, in pages."""

from __future__ import annotations

import math
from dataclasses import replace

from textual.binding import Binding
from textual.containers import Container
from textual.events import Click
from textual.message import Message
from textual.reactive import reactive
from textual.widget import Widget

from nantui.ui.charts.draw import draw
from nantui.ui.charts.series import Picture, View
from nantui.ui.styled_text import Line
from nantui.ui.widgets.line_widget import LinesWidget

NARROWEST, LOWEST = 25, 7


class Chart(LinesWidget):
    """Draws one picture; the title of the chosen one, which Enter opens, is set off."""

    def __init__(self, picture: Picture, chosen: bool) -> None:
        super().__init__(classes="panel chart")
        self.picture, self.chosen = picture, chosen

    def show(self, picture: Picture, chosen: bool) -> None:
        if (picture, chosen) != (self.picture, self.chosen):
            self.picture, self.chosen = picture, chosen
            self.redraw()

    def build(self, width: int, height: int) -> list[Line]:
        first, *others = draw(self.picture, width, height, self.glyphs) or [[]]
        ink_of = {"title": "cursor"} if self.chosen else {}
        return [[(text, ink_of.get(ink, ink)) for text, ink in first], *others]


class ChartWall(Container, can_focus=True):
    """Pictures side by side, in pages that `[` and `]` turn. With the focus, one of them is chosen."""

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

    def __init__(self, page: int = 0, view: View | None = None, *, alone: bool = False) -> None:
        """With `alone` a page is one chart, however many fit, and nothing is chosen."""
        super().__init__(id="charts")
        self.pictures: list[Picture] = []
        self.view, self.page, self.alone = view or View(), page, alone
        self.can_focus = not alone
        self._grid = (0, 0)

    def action_choose(self, across: int, down: int) -> None:
        chosen = self.chosen + across + down * self.grid()[0]
        if 0 <= chosen < self._shown():
            self.chosen = chosen

    def action_open(self) -> None:
        if self.pictures:
            self.post_message(self.Chosen())

    @property
    def shown_charts(self) -> list[Widget]:
        return [chart for chart in self.query(Chart) if chart.display]

    def on_click(self, event: Click) -> None:
        for index, chart in enumerate(self.shown_charts):
            if chart.region.contains(event.screen_x, event.screen_y):
                self.chosen = index
                self.action_open()

    def watch_chosen(self) -> None:
        self.lay_out()

    def watch_has_focus(self, has_focus: bool) -> None:
        super().watch_has_focus(has_focus)
        self.lay_out()

    def _shown(self) -> int:
        return min(len(self.pictures) - self.first, math.prod(self.grid()))

    def show(self, pictures: list[Picture]) -> None:
        self.pictures = pictures
        self.lay_out()

    def on_resize(self) -> None:
        self.lay_out()

    def lay_out(self) -> None:
        """Choose how many charts fit, and give each its picture."""
        if not self.is_attached or not self.size.width:
            return
        if not self.pictures:
            self.query(Chart).set(display=False)
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
            chosen = self.has_focus and index == self.chosen
            if index < len(charts):
                if not charts[index].display:
                    charts[index].display = True
                charts[index].show(picture, chosen)
            else:
                self.mount(Chart(picture, chosen))

    def grid(self) -> tuple[int, int]:
        most = min(len(self.pictures), 1) if self.alone else len(self.pictures)
        widest = max(1, min(most, (self.size.width + 1) // (NARROWEST + 1), 4))
        rows = max(1, min(-(-most // widest), (self.size.height + 1) // (LOWEST + 1)))
        return min(widest, -(-most // rows)), rows

    @property
    def first(self) -> int:
        return self.page * math.prod(self.grid())

    @property
    def pages(self) -> int:
        return max(1, -(-len(self.pictures) // math.prod(self.grid())))

    def turn(self, by: int) -> None:
        self.page = (self.page + by) % self.pages
        self.chosen = min(self.chosen, self._shown() - 1)
        self.lay_out()

    def look(self, view: View) -> None:
        self.view = view
        self.lay_out()
