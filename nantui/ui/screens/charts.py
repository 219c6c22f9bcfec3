"""Screens with charts, and how these are looked at: the same keys for a run, for two of them, for many
overlaid and for one chart on the whole screen, which has a cursor that reads values, zoom and pan.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.dom import DOMNode

from nantui.ui.actions import EVERY
from nantui.ui.charts.draw import x_range
from nantui.ui.charts.series import Picture, View, nearest
from nantui.ui.format import number
from nantui.ui.screens.base import BaseScreen
from nantui.ui.styled_text import Line
from nantui.ui.styled_text import width as cells_of
from nantui.ui.widgets.chart_wall import ChartWall

Choice = TypeVar("Choice")
OVER = {"epoch": "over epochs", "step": "over single steps", "time": "over the time of training"}
WINDOWS = {"epoch": (0, 100, 20), "step": (0, 2000, 200), "time": (0, 100, 20)}
"""How many of the newest epochs or steps to show; 0 is all."""
SMOOTHINGS = (0, 5, 20, 100)
MOST_LINES = 4
LOOKS = ("steps", "window", "logscale", "smooth", "outliers")


def after(choices: Sequence[Choice], now: Choice) -> Choice:
    """Return the choice after `now`, around the end."""
    return choices[(choices.index(now) + 1) % len(choices)]


class ChartsScreen(BaseScreen):
    """A screen with a wall of charts: a method `do_NAME` for each action that looks at them another way."""

    x = "epoch"
    """What the x axis counts."""

    def __init__(self, wall: ChartWall | None = None) -> None:
        super().__init__()
        self.wall = ChartWall() if wall is None else wall

    @property
    def view(self) -> View:
        return self.wall.view

    @abstractmethod
    def pictures(self, x: str, last: int = 0) -> list[Picture]:
        """Return the charts of everything, or of the `last` epochs or steps."""

    def show_charts(self) -> None:
        """Draw the curves over `x`."""
        self.wall.show(self.pictures(self.x, self.view.last))

    def look(self, **changes: Any) -> None:
        """Look at all charts another way."""
        self.wall.look(replace(self.view, **changes))

    def follow(self, node: DOMNode, tell: Callable[[], None]) -> None:
        """Call `tell` now, and when there is more to show while `node` is there."""
        tell()

    def action_look(self, name: str) -> None:
        getattr(self, f"do_{name}")()

    def do_steps(self) -> None:
        self.x = after(tuple(OVER), self.x)
        self.look(low=None, high=None, last=0, cursor=None)
        self.show_charts()
        self.say(f"curves {OVER[self.x]}")

    def do_window(self) -> None:
        last = after(WINDOWS[self.x], self.view.last)
        self.look(low=None, high=None, last=last, cursor=None)
        self.show_charts()
        counted = "steps" if self.x == "step" else "epochs"
        self.say(f"the last {last:,} {counted}" if last else f"all {counted}")

    def do_logscale(self) -> None:
        log = not self.view.log
        self.look(log=log)
        self.say("logarithmic y axis" if log else "linear y axis")

    def do_smooth(self) -> None:
        points = after(SMOOTHINGS, self.view.smooth)
        self.look(smooth=points)
        self.say(f"running mean over {points} points" if points else "every point as it is")

    def do_outliers(self) -> None:
        whole = not self.view.whole
        self.look(whole=whole)
        self.say(
            "the whole y range" if whole else "y range without far outliers; they are marked at the edge"
        )

    def do_charts_on(self, by: int = 1) -> None:
        wall = self.wall
        wall.turn(by)
        self.say(
            f"charts, page {wall.page + 1} of {wall.pages}" if wall.pages > 1 else "all charts are shown"
        )

    def do_charts_back(self) -> None:
        self.do_charts_on(-1)

    def do_zoom(self) -> None:
        self.app.push_screen(ZoomScreen(self, self.wall.first + self.wall.chosen, self.view))


def looking_keys(*names: str) -> list[BindingType]:
    """Return the run's keys for looking at charts another way, and for `names`."""
    return [
        Binding(one.keys, f"look('{one.name}')", one.label, show=bool(one.bar), tooltip=one.help)
        for one in (EVERY[name] for name in (*LOOKS, *names))
    ]


class ZoomScreen(ChartsScreen):
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
        *looking_keys(),
    ]

    def __init__(self, over: ChartsScreen, index: int, view: View) -> None:
        super().__init__(ChartWall(index, view, alone=True))
        self.over, self.x = over, over.x

    def body(self) -> ComposeResult:
        yield self.wall

    def on_mount(self) -> None:
        self.over.follow(self, self.show_charts)

    def pictures(self, x: str, last: int = 0) -> list[Picture]:
        return self.over.pictures(x, last) or [Picture("reading..", ())]

    @property
    def picture(self) -> Picture:
        wall = self.wall
        return replace(wall.pictures[wall.page % wall.pages], view=wall.view)

    def show_charts(self) -> None:
        super().show_charts()
        self._read_out()

    def look(self, **changes: object) -> None:
        super().look(**changes)
        self._read_out()

    def _read_out(self) -> None:
        title = self.on_top
        title.styles.height = min(MOST_LINES, len(self.heading(max(40, title.content_size.width))))

    def heading(self, width: int) -> list[Line]:
        picture, cursor, wall = self.picture, self.view.cursor, self.wall
        place = f"{wall.page % wall.pages + 1}/{wall.pages}   "
        line: Line = [(f"{picture.title} ", "title"), (place, "faint")]
        if cursor is None:
            return [[*line, ("h and l move a cursor that reads the values", "muted")]]
        lines = [[*line, (f"{picture.x_name} ", "muted"), (number(cursor), "strong")]]
        for curve in picture.curves:
            point = nearest(curve, cursor)
            if point is not None and (curve.ink != "old" or abs(point[0] - cursor) <= 0.5):
                ink = "bad" if point[1] != point[1] else "strong"
                value: Line = [(f"   {curve.name} ", curve.ink), (number(point[1]), ink)]
                if cells_of(lines[-1]) + cells_of(value) > width:
                    lines.append([])
                lines[-1] += value
        return lines

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
        self.look(cursor=min(high, max(low, cursor + by * step)))

    def action_zoom(self, factor: float) -> None:
        """Show half or twice the range, around the cursor or the newest values."""
        first, end = x_range(replace(self.picture, view=View()))
        low, high = x_range(self.picture)
        span = max(2.0, (high - low) * factor)
        if span >= end - first:
            self.look(low=None, high=None)
            return
        centre = self.view.cursor if self.view.cursor is not None else high - span / 2
        low = max(first, min(centre - span / 2, end - span))
        self.look(low=low, high=low + span)

    def action_all(self) -> None:
        self.look(low=None, high=None, cursor=None)

    def action_turn(self, by: int) -> None:
        self.wall.turn(by)
        self._read_out()
