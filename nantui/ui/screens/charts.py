"""Screens with charts, and how these are looked at: the same keys for a run, for two of them, for many
overlaid and for one chart large.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from textual.binding import Binding, BindingType
from textual.dom import DOMNode

from nantui.ui.actions import RUN_ACTIONS
from nantui.ui.charts.series import Picture, View
from nantui.ui.screens.base import BaseScreen
from nantui.ui.widgets.chart_wall import SMOOTHINGS, ChartWall, next_window

OVER = {"epoch": "over epochs", "step": "over single steps", "time": "over the time of training"}


class LookingScreen(BaseScreen):
    """A screen with charts: a method `do_NAME` for each action that looks at them another way."""

    axes = tuple(OVER)
    x = "epoch"
    """What the x axis counts, and what it can count."""
    view: View

    @abstractmethod
    def pictures(self, x: str, last: int = 0) -> list[Picture]:
        """Return the charts of everything, or of the `last` epochs or steps."""

    @abstractmethod
    def show_charts(self) -> None:
        """Draw the curves over `x`."""

    @abstractmethod
    def look(self, **changes: Any) -> None:
        """Look at all charts another way."""

    @abstractmethod
    def follow(self, node: DOMNode, tell: Callable[[], None], *, at_once: bool = False) -> None:
        """Call `tell` when there is more to show while `node` is there, with `at_once` also now."""

    def action_look(self, name: str) -> None:
        """Do what the key does on the run's screen."""
        getattr(self, f"do_{name}")()

    def do_steps(self) -> None:
        self.x = self.axes[(self.axes.index(self.x) + 1) % len(self.axes)]
        self.look(low=None, high=None, last=0, cursor=None)
        self.show_charts()
        self.say(f"curves {OVER[self.x]}")

    def do_window(self) -> None:
        last = next_window(self.x == "step", self.view.last)
        self.look(low=None, high=None, last=last, cursor=None)
        self.show_charts()
        counted = "steps" if self.x == "step" else "epochs"
        self.say(f"the last {last:,} {counted}" if last else f"all {counted}")

    def do_logscale(self) -> None:
        log = not self.view.log
        self.look(log=log)
        self.say("logarithmic y axis" if log else "linear y axis")

    def do_smooth(self) -> None:
        points = SMOOTHINGS[(SMOOTHINGS.index(self.view.smooth) + 1) % len(SMOOTHINGS)]
        self.look(smooth=points)
        self.say(f"running mean over {points} points" if points else "every point as it is")

    def do_outliers(self) -> None:
        whole = not self.view.whole
        self.look(whole=whole)
        self.say(
            "the whole y range" if whole else "y range without far outliers; they are marked at the edge"
        )


class ChartsScreen(LookingScreen):
    """A screen with one wall of charts, which has pages."""

    @property
    def wall(self) -> ChartWall:
        """The charts."""
        return self.query_one(ChartWall)

    @property
    def view(self) -> View:  # type: ignore[override]
        """How the charts are looked at."""
        return self.wall.view

    def look(self, **changes: Any) -> None:
        """Look at all charts another way."""
        self.wall.look(replace(self.view, **changes))

    def do_charts_on(self) -> None:
        self._turn(1)

    def do_charts_back(self) -> None:
        self._turn(-1)

    def _turn(self, by: int) -> None:
        wall = self.wall
        wall.turn(by)
        self.say(
            f"charts, page {wall.page + 1} of {wall.pages}" if wall.pages > 1 else "all charts are shown"
        )


def looking_keys(screen: type) -> list[BindingType]:
    """Return the run's keys for what a screen can do of them."""
    return [
        Binding(one.keys, f"look('{one.name}')", one.label, show=bool(one.bar), tooltip=one.help)
        for one in RUN_ACTIONS
        if hasattr(screen, f"do_{one.name}")
    ]
