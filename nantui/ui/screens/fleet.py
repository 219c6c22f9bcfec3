"""All runs below a directory, live; Enter opens one."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container
from textual.timer import Timer
from textual.widgets import Input

from nantui.checkpoint.verdict import Verdict
from nantui.run.status import RunStatus
from nantui.ui.actions import EVERY, bindings
from nantui.ui.format import short_path
from nantui.ui.model import checkpoint_rows
from nantui.ui.model.run_reader import one_look
from nantui.ui.model.snapshot import Checkpoint, RunSnapshot
from nantui.ui.screens.base import BaseScreen
from nantui.ui.styled_text import Line
from nantui.ui.watchers import Answer, FleetRead, FleetWatcher, Scanner, VerdictsFound, find_out
from nantui.ui.widgets.chart_wall import ChartWall
from nantui.ui.widgets.checkpoints import Checkpoints
from nantui.ui.widgets.dialog_controls import Field
from nantui.ui.widgets.fleet import FleetList
from nantui.ui.widgets.keybar import COMMANDS, HELP, QUIT, KeyBar, offered
from nantui.ui.widgets.text_view import Document, Title
from nantui.ui.widgets.timeline import in_lines
from nantui.words import count

ON_ROW = ("start", "stop", "kill", "rollback", "recover", "undo", "config", "diagnosis", "labels")
STALE_AFTER_S, SETTLING_S = 30.0, 0.2


class FleetScreen(BaseScreen):
    """One line per run."""

    BINDINGS = [
        Binding("slash", "open_field", "filter", tooltip="only runs with this in their path or state"),
        Binding("S", "sort(1)", "sort", tooltip="sort by state, name, epoch or time left"),
        Binding("I", "sort(0)", "reverse", tooltip="the other way round"),
        Binding("space", "mark", "mark", tooltip="mark runs to be compared or overlaid"),
        Binding("v", "compare", "compare", tooltip="compare the marked ones, or the marked one with this"),
        Binding("o", "overlay", "overlay", tooltip="the curves of all marked runs; unmarked: its output"),
        *bindings((EVERY[name] for name in ON_ROW), "on_row"),
    ]
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (170, "-huge")]

    def __init__(self, top: Path) -> None:
        super().__init__()
        self.top = top
        self._whole, self._arrived = False, time.monotonic()
        self.seen: RunSnapshot | None = None
        self._looked_at: RunStatus | None = None
        self._settling: Timer | None = None
        self._verdicts: dict[Checkpoint, Verdict] = {}

    def compose(self) -> ComposeResult:
        yield Title(lambda width: self._title())
        with Container(id="runs"):
            yield FleetList()
            with Container(id="preview"):
                yield ChartWall()
                yield Document(id="about", write=self._about)
                yield Checkpoints()
        yield Field(placeholder="part of a path, or a state such as running", id="filter")
        yield KeyBar((HELP, COMMANDS, QUIT, ("Enter", "open", True), *offered(self)))

    def on_mount(self) -> None:
        self.query_one(FleetList).focus()
        for widget in self.query("#preview > *"):
            widget.can_focus = False
        self.set_interval(1.0, self.query_one(Title).redraw)
        watcher = FleetWatcher(self.top, self.cockpit.backend, self.post_message)
        self.call_after_refresh(self.watch_with, watcher)

    def _title(self) -> list[Line]:
        runs = count(len(self.query_one(FleetList).statuses), "run")
        told = f"   {runs} {self.query_one(FleetList).order if self._whole else 'so far, reading on..'}"
        late = int(time.monotonic() - self._arrived)
        stale = f"   stale {late} s" if late > STALE_AFTER_S else ""
        return [[("nantui ", "accent"), (short_path(self.top), "strong"), (told, "muted"), (stale, "warn")]]

    def on_fleet_read(self, message: FleetRead) -> None:
        self._whole, self._arrived = message.whole, time.monotonic()
        self.cockpit.runs = [status.path for status in message.statuses]
        self.query_one(FleetList).show_statuses(message.statuses, message.whole)
        self.query_one(Title).redraw()
        self._look_closer()

    def on_listing_moved(self, message: FleetList.Moved) -> None:
        if message.listing.id == "fleet":
            if self._settling is not None:
                self._settling.stop()
            self._settling = self.set_timer(SETTLING_S, self._look_closer)

    def on_resize(self) -> None:
        """There may be room for the preview now."""
        self.call_after_refresh(self._look_closer)

    def _look_closer(self) -> None:
        """Read the run under the cursor, where there is room to show more of it and it has news."""
        status = self.query_one(FleetList).status
        if status is not None and status != self._looked_at and self.query_one("#preview").region:
            if self._looked_at is None or status.path != self._looked_at.path:
                self._scan(status.path)
            self._looked_at = status
            read = partial(one_look, status.path, self.cockpit.backend)
            find_out("preview", read, self.post_message)

    def _scan(self, run: Path) -> None:
        """Scan this run's checkpoints; of the run before only the file under way is read to its end."""
        for scanner in self.watchers[1:]:
            scanner.stop()
        del self.watchers[1:]
        self.watch_with(Scanner(run / "weights", self.cockpit.backend, self.post_message))

    def on_verdicts_found(self, message: VerdictsFound) -> None:
        self._verdicts |= message.verdicts
        self._show_checkpoints()

    def _show_checkpoints(self) -> None:
        if self.seen is not None:
            listing = self.query_one(Checkpoints)
            listing.show_rows(checkpoint_rows.rows(self.seen.checkpoints, self._verdicts))
            listing.grow_older(self.cockpit.backend.now())

    def on_answer(self, message: Answer) -> None:
        if isinstance(message.value, RunSnapshot) and message.value.path == self.query_one(FleetList).key:
            self.seen = message.value
            drawn = [one for one in self.seen.epoch_charts if any(curve.xs for curve in one.curves)]
            self.query_one(ChartWall).show(drawn)
            self.query_one(Document).remake()
            self._show_checkpoints()

    def _about(self, width: int) -> list[Line]:
        """What happened to the run under the cursor last."""
        told = self.seen.timeline[-6:] if self.seen is not None else ()
        return [[("what happened", "title")], *(line for one in told for line in in_lines(one, width))]

    def on_listing_chosen(self, message: FleetList.Chosen) -> None:
        status: RunStatus | None = self.query_one(FleetList).status
        if status is not None:
            self.cockpit.open_run(status.path)

    def action_sort(self, by: int) -> None:
        fleet = self.query_one(FleetList)
        fleet.sort_on(by)
        self.say(fleet.order)
        self.query_one(Title).redraw()

    def action_on_row(self, name: str) -> None:
        """Do to the run under the cursor what its own screen has this key for."""
        status = self.query_one(FleetList).status
        if name == "undo" and self.cockpit.undo_own():
            return
        if status is None:
            self.say(f"{EVERY[name].label}: there is no run under the cursor", "warn")
        else:
            self.cockpit.open_run(status.path, name)

    def action_mark(self) -> None:
        marked = self.query_one(FleetList).mark()
        many = f"{count(marked, 'run')} marked: o overlays, v compares"
        self.say(("none is marked", "mark another with Space", many)[min(marked, 2)])

    def action_compare(self) -> None:
        from nantui.ui.screens.compare import CompareScreen

        chosen = self.query_one(FleetList).chosen()
        if len(chosen) < 2:
            self.say("compare: mark two runs with Space, or one and put the cursor on the other", "warn")
        else:
            self.app.push_screen(CompareScreen(chosen[0], [str(path) for path in chosen]))

    def action_overlay(self) -> None:
        """Overlay the marked runs; where none is marked the key is the run's own: its output."""
        if self.query_one(FleetList).marked:
            self.action_compare()
        else:
            self.action_on_row("log")

    def on_input_changed(self, message: Input.Changed) -> None:
        fleet = self.query_one(FleetList)
        fleet.wanted = message.value.strip().lower()
        fleet.lay_out()

    def on_input_submitted(self, message: Input.Submitted) -> None:
        message.input.display = bool(message.value)
        self.query_one(FleetList).focus()

    def close_field(self) -> bool:
        """Put the filter away, too."""
        self.query_one(Input).value = ""
        return super().close_field()
