"""Two attempts, or two runs, overlaid on the epoch axis beside what differs between them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container

from nantui.run.layout import RunLayout
from nantui.ui.dialogs.confirm import PickDialog
from nantui.ui.model import comparison
from nantui.ui.screens.base import BaseScreen
from nantui.ui.styled_text import Line, wrap
from nantui.ui.watchers import Answer, find_out
from nantui.ui.widgets.chart_wall import ChartWall
from nantui.ui.widgets.keybar import BACK, HELP, KeyBar, offered
from nantui.ui.widgets.text_view import Document, Title

if TYPE_CHECKING:
    from nantui.recovery.comparison import Side


class CompareScreen(BaseScreen):
    """`chosen` are two runs or attempts; by default the newest attempt against the one before it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "choose(0)", "choose A"),
        Binding("b", "choose(1)", "choose B"),
        Binding("x", "exchange", "exchange", tooltip="exchange A and B"),
        Binding("left_square_bracket", "turn(-1)", "more charts", tooltip="charts back", key_display="[ ]"),
        Binding("right_square_bracket", "turn(1)", "charts on", show=False),
    ]
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (110, "-wide")]

    def __init__(self, run: Path, chosen: Sequence[str] = ()) -> None:
        super().__init__()
        self.run_path = run
        self.choices: list[str] = []
        self.chosen: list[str] = list(chosen)
        self.sides: tuple[Side, Side] | None = None
        self.problem = ""

    def compose(self) -> ComposeResult:
        yield Title(self._title)
        with Container(id="comparison"):
            yield ChartWall()
            yield Document(id="differences", write=self._write)
        yield KeyBar((HELP, BACK, *offered(self)))

    def on_mount(self) -> None:
        self.query_one(Document).focus()
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
            self.sides, self.problem = message.value, message.problem
            self._show()

    def _read(self) -> None:
        if len(self.chosen) < 2:
            self.problem = "there is nothing to compare with: one attempt, and no other run beside it"
            self._show()
            return
        one, other = self.chosen
        backend = self.cockpit.backend
        find_out("sides", lambda: (backend.side(one), backend.side(other)), self.post_message)

    def _show(self) -> None:
        if self.sides is not None:
            self.query_one(ChartWall).show(comparison.pictures(*self.sides))
        self.query_one(Document).remake()
        self.query_one(Title).redraw()

    def _title(self, width: int) -> list[Line]:
        line: Line = [("compare ", "title")]
        for label, ink, name in zip("AB", ("train", "val"), self.chosen, strict=False):
            line += [(f"  {label} ", ink), (comparison.short(name), "strong")]
        return [line]

    def _write(self, width: int) -> list[Line]:
        if self.problem:
            return wrap(self.problem, width, "warn")
        if self.sides is None:
            return [[("reading both..", "muted")]]
        return comparison.table(*self.sides, self.cockpit.glyphs, width)

    def action_choose(self, side: int) -> None:
        """Choose one side."""
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
        """Exchange the sides."""
        self.chosen.reverse()
        self._read()

    def action_turn(self, by: int) -> None:
        """Turn the page of charts."""
        self.query_one(ChartWall).turn(by)
