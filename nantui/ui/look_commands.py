"""How charts are looked at: the same keys for a run, for two of them and for many overlaid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from textual.app import App
from textual.binding import Binding, BindingType

from nantui.ui.actions import RUN_ACTIONS
from nantui.ui.context import Curves
from nantui.ui.widgets.chart_wall import SMOOTHINGS, ChartWall, next_window

if TYPE_CHECKING:
    from nantui.ui.charts.series import View

OVER = {"epoch": "over epochs", "step": "over single steps", "time": "over the time of training"}


class Looked(Curves, Protocol):
    """A screen with charts."""

    @property
    def view(self) -> View:
        """How they are looked at."""

    def say(self, text: str, ink: str = "info") -> None:
        """Show one line for a few seconds."""

    def show_charts(self) -> None:
        """Draw the curves over `x`."""


class ChartScreen(Looked, Protocol):
    """A screen with a wall of charts."""

    @property
    def app(self) -> App[object]:
        """Where other screens are opened."""

    @property
    def wall(self) -> ChartWall:
        """The charts."""


class LookCommands:
    """A method `do_NAME` for each action that looks at charts another way."""

    def __init__(self, screen: Looked) -> None:
        self._charts = screen

    def do_steps(self) -> None:
        screen = self._charts
        screen.x = screen.axes[(screen.axes.index(screen.x) + 1) % len(screen.axes)]
        screen.look(low=None, high=None, last=0, cursor=None)
        screen.show_charts()
        screen.say(f"curves {OVER[screen.x]}")

    def do_window(self) -> None:
        screen = self._charts
        last = next_window(screen.x == "step", screen.view.last)
        screen.look(low=None, high=None, last=last, cursor=None)
        screen.show_charts()
        counted = "steps" if screen.x == "step" else "epochs"
        screen.say(f"the last {last:,} {counted}" if last else f"all {counted}")

    def do_logscale(self) -> None:
        log = not self._charts.view.log
        self._charts.look(log=log)
        self._charts.say("logarithmic y axis" if log else "linear y axis")

    def do_smooth(self) -> None:
        now = SMOOTHINGS.index(self._charts.view.smooth)
        points = SMOOTHINGS[(now + 1) % len(SMOOTHINGS)]
        self._charts.look(smooth=points)
        self._charts.say(f"running mean over {points} points" if points else "every point as it is")

    def do_outliers(self) -> None:
        whole = not self._charts.view.whole
        self._charts.look(whole=whole)
        self._charts.say(
            "the whole y range" if whole else "y range without far outliers; they are marked at the edge"
        )


class WallCommands(LookCommands):
    """Also those for many charts."""

    def __init__(self, screen: ChartScreen) -> None:
        super().__init__(screen)
        self._wall_of = screen

    def do_charts_on(self) -> None:
        self._turn(1)

    def do_charts_back(self) -> None:
        self._turn(-1)

    def _turn(self, by: int) -> None:
        wall = self._wall_of.wall
        wall.turn(by)
        self._wall_of.say(
            f"charts, page {wall.page + 1} of {wall.pages}" if wall.pages > 1 else "all charts are shown"
        )


def bindings(commands: type[LookCommands]) -> list[BindingType]:
    """Return the run's keys for what `commands` can do."""
    return [
        Binding(one.keys, f"look('{one.name}')", one.label, show=bool(one.bar), tooltip=one.help)
        for one in RUN_ACTIONS
        if hasattr(commands, f"do_{one.name}")
    ]
