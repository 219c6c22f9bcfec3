"""Attempts or runs overlaid, two or many, beside what differs between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container
from textual.dom import DOMNode

from nantui.recovery.comparison import Side
from nantui.run.layout import RunLayout
from nantui.ui.charts.series import Column, Picture, stroke
from nantui.ui.dialogs.confirm import PickDialog
from nantui.ui.model import comparison
from nantui.ui.model.run_charts import from_newest, over_time
from nantui.ui.screens.charts import ChartsScreen, looking_keys
from nantui.ui.screens.zoom import ZoomScreen
from nantui.ui.styled_text import Line, wrap
from nantui.ui.watchers import Answer, find_out
from nantui.ui.widgets.chart_wall import ChartWall
from nantui.ui.widgets.keybar import BACK, HELP, KeyBar, offered
from nantui.ui.widgets.text_view import Document, Title


class CompareScreen(ChartsScreen):
    """`chosen` are runs or attempts; by default the newest attempt against the one before it."""

    BINDINGS = [
        Binding("a", "choose(0)", "choose A"),
        Binding("b", "choose(1)", "choose B"),
        Binding("x", "exchange", "exchange", tooltip="exchange A and B"),
        *looking_keys(ChartsScreen),
        Binding("z", "zoom", "one chart on the whole screen, with cursor and zoom", show=False),
    ]
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]

    def __init__(self, run: Path, chosen: Sequence[str] = ()) -> None:
        super().__init__()
        self.run_path = run
        self.choices: list[str] = []
        self.chosen: list[str] = list(chosen)
        self.sides: tuple[Side, ...] | None = None
        self._steps: list[dict[str, Column]] | None = None
        self.problem = ""

    def compose(self) -> ComposeResult:
        yield Title(self._title)
        with Container(id="comparison"):
            yield ChartWall()
            yield Document(id="differences", write=self._write)
        yield KeyBar((HELP, BACK, *offered(self)))

    def on_mount(self) -> None:
        self.set_focus(self.wall)
        find_out("choices", self._find_choices, self.post_message)

    def _find_choices(self) -> list[str]:
        cockpit, run = self.cockpit, self.run_path
        others = [status.path for status in cockpit.backend.fleet(cockpit.fleet_top)]
        return comparison.choices(run, RunLayout(run).attempt_numbers(), others)

    def on_answer(self, message: Answer) -> None:
        if message.about == "choices":
            self.choices = message.value or []
            if len(self.chosen) < 2:
                attempts = [choice for choice in self.choices if choice.startswith(f"{self.run_path}#")]
                others = [choice for choice in self.choices if "#" not in choice]
                self.chosen = attempts[-2:] if len(attempts) > 1 else others[:2]
            self._read()
        elif message.about == "sides":
            self.sides, self.problem, self._steps = message.value, message.problem, None
            self._show()
        elif message.about == "steps":
            self._steps = message.value or []
            self.show_charts()

    def _read(self) -> None:
        if len(self.chosen) < 2:
            self.problem = "there is nothing to compare with: one attempt, and no other run beside it"
            self._show()
            return
        names, backend = list(self.chosen), self.cockpit.backend
        find_out("sides", lambda: tuple(map(backend.side, names)), self.post_message)

    def pictures(self, x: str, last: int = 0) -> list[Picture]:
        """Return the charts; those over steps once a thread has read them."""
        if x == "step":
            charts = comparison.step_pictures(self._steps or [])
            return [from_newest(picture, last) for picture in charts] if last else charts
        sides = self.sides or ()
        charts = comparison.pictures(sides, last)
        return over_time(charts, [side.rows for side in sides]) if x == "time" else charts

    def show_charts(self) -> None:
        """Draw the curves over `x`."""
        if self.x == "step" and self._steps is None:
            names = list(self.chosen)
            find_out("steps", lambda: list(map(comparison.steps_of, names)), self.post_message)
        elif pictures := self.pictures(self.x, self.wall.view.last):
            self.wall.show(pictures)
        else:
            self.say("nothing was recorded step by step: these runs had no guard", "warn")

    def follow(self, node: DOMNode, tell: Callable[[], None], *, at_once: bool = False) -> None:
        """Nothing comes later: what is compared was read once."""
        if at_once:
            tell()

    def on_chart_wall_chosen(self) -> None:
        self.action_zoom()

    def action_zoom(self) -> None:
        self.app.push_screen(ZoomScreen(self, self.wall.first + self.wall.chosen, self.view))

    def _show(self) -> None:
        if self.sides is not None:
            self.show_charts()
        self.query_one(Document).remake()
        self.query_one(Title).redraw()

    def _title(self, width: int) -> list[Line]:
        line: Line = [("compare ", "title")]
        for index, name in enumerate(self.chosen):
            line += [(f"  {comparison.letter(index)} ", stroke(index)[0])]
            line += [(comparison.short(name), "strong")]
        return [line]

    def _write(self, width: int) -> list[Line]:
        if self.problem:
            return wrap(self.problem, width, "warn")
        if self.sides is None:
            return [[("reading both..", "muted")]]
        if len(self.sides) > 2:
            return comparison.overview(self.sides, width)
        return comparison.table(self.sides[0], self.sides[1], self.cockpit.glyphs, width)

    def action_choose(self, side: int) -> None:
        if not self.choices:
            return

        def chosen(name: object) -> None:
            if isinstance(name, str):
                self.chosen = [*self.chosen, name, name][:2]
                self.chosen[side] = name
                self._read()

        names = [(choice, comparison.short(choice)) for choice in self.choices]
        self.app.push_screen(PickDialog(f"Compare what as {'AB'[side]}?", names), chosen)

    def action_exchange(self) -> None:
        self.chosen[:2] = reversed(self.chosen[:2])
        self._read()
