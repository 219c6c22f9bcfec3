"""What screens with a wall of charts share: how it is looked at, its pages, one chart large."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nantui.ui.charts.series import View
from nantui.ui.look_commands import LookCommands
from nantui.ui.screens.base import BaseScreen
from nantui.ui.widgets.chart_wall import ChartWall


class ChartsScreen(LookCommands, BaseScreen):
    """A screen with one wall of charts."""

    axes: tuple[str, ...] = ("epoch", "step", "time")
    x = "epoch"

    @property
    def wall(self) -> ChartWall:
        """The charts."""
        return self.query_one(ChartWall)

    @property
    def view(self) -> View:
        """How the charts are looked at."""
        return self.wall.view

    def look(self, **changes: Any) -> None:
        """Look at all charts another way."""
        self.wall.look(replace(self.wall.view, **changes))

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
