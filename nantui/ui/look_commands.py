"""How charts are looked at: the same keys for a run, for two of them and for many overlaid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from textual.binding import Binding, BindingType

from nantui.ui.actions import RUN_ACTIONS
from nantui.ui.context import Curves
from nantui.ui.widgets.chart_wall import SMOOTHINGS, next_window

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


class LookCommands:
    """Of a screen with charts: a method `do_NAME` for each action that looks at them another way."""

    def action_look(self, name: str) -> None:
        """Do what the key does on the run's screen."""
        getattr(self, f"do_{name}")()

    def do_steps(self: Looked) -> None:
        self.x = self.axes[(self.axes.index(self.x) + 1) % len(self.axes)]
        self.look(low=None, high=None, last=0, cursor=None)
        self.show_charts()
        self.say(f"curves {OVER[self.x]}")

    def do_window(self: Looked) -> None:
        last = next_window(self.x == "step", self.view.last)
        self.look(low=None, high=None, last=last, cursor=None)
        self.show_charts()
        counted = "steps" if self.x == "step" else "epochs"
        self.say(f"the last {last:,} {counted}" if last else f"all {counted}")

    def do_logscale(self: Looked) -> None:
        log = not self.view.log
        self.look(log=log)
        self.say("logarithmic y axis" if log else "linear y axis")

    def do_smooth(self: Looked) -> None:
        now = SMOOTHINGS.index(self.view.smooth)
        points = SMOOTHINGS[(now + 1) % len(SMOOTHINGS)]
        self.look(smooth=points)
        self.say(f"running mean over {points} points" if points else "every point as it is")

    def do_outliers(self: Looked) -> None:
        whole = not self.view.whole
        self.look(whole=whole)
        self.say(
            "the whole y range" if whole else "y range without far outliers; they are marked at the edge"
        )


def bindings(commands: type[LookCommands]) -> list[BindingType]:
    """Return the run's keys for what `commands` can do."""
    return [
        Binding(one.keys, f"look('{one.name}')", one.label, show=bool(one.bar), tooltip=one.help)
        for one in RUN_ACTIONS
        if hasattr(commands, f"do_{one.name}")
    ]
