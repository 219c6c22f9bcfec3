"""One chart on the whole screen: a cursor that reads values, zoom and pan,
the same keys as on the small ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from textual.app import ComposeResult
from textual.binding import Binding
from textual.dom import DOMNode

from nantui.ui.charts.draw import x_range
from nantui.ui.charts.series import Picture, View, nearest
from nantui.ui.format import number
from nantui.ui.screens.charts import LookingScreen, looking_keys
from nantui.ui.styled_text import Line
from nantui.ui.styled_text import width as cells_of
from nantui.ui.widgets.chart_wall import Chart
from nantui.ui.widgets.keybar import BACK, HELP, KeyBar, offered
from nantui.ui.widgets.text_view import Title

MOST_LINES = 4


class ZoomScreen(LookingScreen):
    """Shows the picture with the number `index`; follows the run like the small charts."""

    BINDINGS = [
        Binding("left,h", "move(-1)", "cursor", tooltip="cursor left", key_display="h l"),
        Binding("right,l", "move(1)", "cursor right", show=False),
        Binding("H,shift+left", "move(-10)", "cursor far left", show=False),
        Binding("shift+right", "move(10)", "cursor far right", show=False),
        Binding("+,=,up,k", "zoom(0.5)", "zoom", tooltip="zoom in around the cursor", key_display="+ -"),
        Binding("minus,down,j", "zoom(2.0)", "zoom out", show=False),
        Binding("0,home", "all", "all", tooltip="the whole x range"),
        Binding("tab,n,right_square_bracket", "turn(1)", "next chart", key_display="Tab", priority=True),
        Binding("shift+tab,N,left_square_bracket", "turn(-1)", "previous chart", show=False, priority=True),
        *looking_keys(LookingScreen),
    ]

    def __init__(self, over: LookingScreen, index: int, view: View) -> None:
        super().__init__()
        self.over, self.index, self.x = over, index, over.x
        self.view = view
        self.axes = over.axes

    def compose(self) -> ComposeResult:
        yield Title(self._readout)
        yield Chart(Picture("", ()), id="zoomed")
        yield KeyBar((HELP, BACK, *offered(self)))

    def on_mount(self) -> None:
        self.over.follow(self, self.show_charts, at_once=True)

    def pictures(self, x: str = "", last: int = 0) -> list[Picture]:
        """Return the charts there are."""
        return self.over.pictures(x or self.x, last or self.view.last) or [Picture("reading..", ())]

    def follow(self, node: DOMNode, tell: Callable[[], None], *, at_once: bool = False) -> None:
        """Call `tell` when there is more to show."""
        self.over.follow(node, tell, at_once=at_once)

    @property
    def picture(self) -> Picture:
        """The chart that is shown, as it is looked at."""
        pictures = self.pictures()
        return replace(pictures[self.index % len(pictures)], view=self.view)

    def show_charts(self) -> None:
        """Draw the chart and the readout again."""
        self.query_one(Chart).show(self.picture)
        title = self.query_one(Title)
        title.styles.height = min(MOST_LINES, len(self._readout(max(40, title.content_size.width))))
        title.redraw()

    def _readout(self, width: int) -> list[Line]:
        picture = self.picture
        line: Line = [
            (f"{picture.title} ", "title"),
            (f"{self.index % len(self.pictures()) + 1}/{len(self.pictures())}   ", "faint"),
        ]
        if self.view.cursor is None:
            return [[*line, ("h and l move a cursor that reads the values", "muted")]]
        line += [(f"{picture.x_name} ", "muted"), (number(self.view.cursor), "strong")]
        lines = [line]
        for curve in picture.curves:
            point = nearest(curve, self.view.cursor)
            if point is not None and (curve.ink != "old" or abs(point[0] - self.view.cursor) <= 0.5):
                ink = "bad" if point[1] != point[1] else "strong"
                value: Line = [(f"   {curve.name} ", curve.ink), (number(point[1]), ink)]
                if cells_of(lines[-1]) + cells_of(value) > width:
                    lines.append([])
                lines[-1] += value
        return lines

    def look(self, **changes: object) -> None:
        """Look another way."""
        self.view = replace(self.view, **changes)  # type: ignore[arg-type]
        self.show_charts()

    def on_unmount(self) -> None:
        """The small charts are looked at in the same way; a cursor stays on them."""
        view, same = self.view, self.x == self.over.x
        self.over.look(
            log=view.log, smooth=view.smooth, whole=view.whole, cursor=view.cursor if same else None
        )

    def action_move(self, by: int) -> None:
        """Move the cursor by points of the longest curve, at least by a hundredth of the range."""
        low, high = x_range(self.picture)
        step = (high - low) / 100 if self.x == "time" else max(1.0, round((high - low) / 100))
        cursor = self.view.cursor if self.view.cursor is not None else (high if by < 0 else low - step)
        cursor = min(high, max(low, cursor + by * step))
        self.look(cursor=cursor)

    def action_zoom(self, factor: float) -> None:
        """Show half or twice the range, around the cursor or the newest values."""
        whole = x_range(replace(self.picture, view=View()))
        low, high = x_range(self.picture)
        span = max(2.0, min((high - low) * factor, whole[1] - whole[0]))
        centre = self.view.cursor if self.view.cursor is not None else high - span / 2
        low = max(whole[0], min(centre - span / 2, whole[1] - span))
        if span >= whole[1] - whole[0]:
            self.look(low=None, high=None)
        else:
            self.look(low=low, high=low + span)

    def action_all(self) -> None:
        self.look(low=None, high=None, cursor=None)

    def action_turn(self, by: int) -> None:
        self.index = (self.index + by) % len(self.pictures())
        self.show_charts()
