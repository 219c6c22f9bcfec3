"""Attempts or runs overlaid, two or many, beside what differs between them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container

from nantui.recovery.comparison import Side, read_side
from nantui.run.layout import RunLayout
from nantui.ui.charts.series import Column, Picture, stroke
from nantui.ui.dialogs.choose import PickDialog
from nantui.ui.model import comparison
from nantui.ui.model.run_charts import from_newest, over_time
from nantui.ui.screens.charts import ChartsScreen, looking_keys
from nantui.ui.styled_text import Line, fit, wrap
from nantui.ui.widgets.list_view import Document


class CompareScreen(ChartsScreen):
    """`chosen` are runs or attempts; by default the newest attempt against the one before it."""

    BINDINGS = [
        Binding("a", "choose(0)", "choose A"),
        Binding("b", "choose(1)", "choose B"),
        Binding("x", "exchange", "exchange", tooltip="exchange A and B"),
        *looking_keys("charts_back", "charts_on", "zoom"),
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

    def body(self) -> ComposeResult:
        with Container(id="comparison"):
            yield self.wall
            yield Document(id="differences", write=self._write)

    def on_mount(self) -> None:
        cockpit, run = self.cockpit, self.run_path

        def choices() -> list[str]:
            others = [status.path for status in cockpit.backend.fleet(cockpit.fleet_top)]
            return comparison.choices(run, RunLayout(run).attempt_numbers(), others)

        self.find_out(choices, self._take_choices)

    def _take_choices(self, choices: list[str] | None, _problem: str) -> None:
        self.choices = choices or []
        if len(self.chosen) < 2:
            attempts = [choice for choice in self.choices if choice.startswith(f"{self.run_path}#")]
            others = [choice for choice in self.choices if "#" not in choice]
            self.chosen = attempts[-2:] if len(attempts) > 1 else others[:2]
        self._read()

    def _read(self) -> None:
        if len(self.chosen) < 2:
            self._show(None, "there is nothing to compare with: one attempt, and no other run beside it")
            return
        names = list(self.chosen)
        self.find_out(lambda: tuple(map(read_side, names)), self._show)

    def _show(self, sides: tuple[Side, ...] | None, problem: str) -> None:
        self.sides, self.problem, self._steps = sides, problem, None
        if sides is not None:
            self.show_charts()
        self.query_one(Document).remake()

    def pictures(self, x: str, last: int = 0) -> list[Picture]:
        if x == "step":
            charts = comparison.step_pictures(self._steps or [])
            return [from_newest(picture, last) for picture in charts] if last else charts
        sides = self.sides or ()
        charts = comparison.pictures(sides, last)
        return over_time(charts, [side.rows for side in sides]) if x == "time" else charts

    def show_charts(self) -> None:
        if self.x == "step" and self._steps is None:
            names = list(self.chosen)
            self.find_out(lambda: list(map(comparison.steps_of, names)), self._take_steps)
        elif pictures := self.pictures(self.x, self.view.last):
            self.wall.show(pictures)
        else:
            self.say("nothing was recorded step by step: these runs had no guard", "warn")

    def _take_steps(self, steps: list[dict[str, Column]] | None, _problem: str) -> None:
        self._steps = steps or []
        self.show_charts()

    def on_chart_wall_chosen(self) -> None:
        self.do_zoom()

    def heading(self, width: int) -> list[Line]:
        line: Line = [("compare ", "title")]
        room = max(8, (width - 8) // max(1, len(self.chosen)) - 4)
        for index, name in enumerate(self.chosen):
            line += [(f"  {comparison.letter(index)} ", stroke(index)[0])]
            line += fit([(comparison.short(name), "strong")], room)
        return [line]

    def _write(self, width: int) -> list[Line]:
        if self.problem:
            return wrap(self.problem, width, "warn")
        if self.sides is None:
            return [[("reading both..", "muted")]]
        one, other, *more = self.sides
        return comparison.overview(self.sides, width) if more else comparison.table((one, other), width)

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
