"""All runs below a directory, live; Enter opens one."""

from __future__ import annotations

import time
from pathlib import Path
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input

from nantui.run.status import RunStatus
from nantui.ui.format import count, short_path
from nantui.ui.screens.base import BaseScreen
from nantui.ui.styled_text import Line
from nantui.ui.watchers import FleetRead, FleetWatcher
from nantui.ui.widgets.dialog_controls import Field
from nantui.ui.widgets.fleet import FleetList
from nantui.ui.widgets.keybar import COMMANDS, HELP, QUIT, KeyBar, offered
from nantui.ui.widgets.text_view import Title

STALE_AFTER_S = 30.0


class FleetScreen(BaseScreen):
    """One line per run."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(
            "slash", "filter", "filter", tooltip="show only runs with this in their path, or in this state"
        ),
        Binding("S", "sort", "sort", tooltip="sort by state, name, epoch or time left"),
        Binding("space", "mark", "mark", tooltip="mark a run to be compared; two at most"),
        Binding(
            "v", "compare", "compare", tooltip="compare the two that are marked, or the marked one with this"
        ),
    ]

    def __init__(self, top: Path) -> None:
        super().__init__()
        self.top = top
        self._watcher: FleetWatcher | None = None
        self._whole, self._arrived = False, time.monotonic()

    def compose(self) -> ComposeResult:
        yield Title(lambda width: self._title())
        yield FleetList()
        yield Field(placeholder="part of a path, or a state such as running", id="filter")
        yield KeyBar((HELP, COMMANDS, QUIT, ("Enter", "open", True), *offered(self)))

    def on_mount(self) -> None:
        self.query_one(Input).display = False
        self.query_one(FleetList).focus()
        self.set_interval(1.0, self.query_one(Title).redraw)
        self.call_after_refresh(self._begin)

    def _begin(self) -> None:
        self._watcher = FleetWatcher(self.top, self.cockpit.backend, self.post_message)
        self._watcher.start()

    def on_unmount(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()

    def _title(self) -> list[Line]:
        runs = count(len(self.query_one(FleetList).statuses), "run")
        told = f"   {runs}" if self._whole else f"   {runs} so far, reading on.."
        late = int(time.monotonic() - self._arrived)
        stale = f"   stale {late} s" if late > STALE_AFTER_S else ""
        return [[("nantui ", "accent"), (short_path(self.top), "strong"), (told, "muted"), (stale, "warn")]]

    def on_fleet_read(self, message: FleetRead) -> None:
        self._whole, self._arrived = message.whole, time.monotonic()
        self.query_one(FleetList).show_statuses(message.statuses, message.whole)
        self.query_one(Title).redraw()

    def on_listing_chosen(self, message: FleetList.Chosen) -> None:
        status: RunStatus | None = self.query_one(FleetList).status
        if status is not None:
            self.cockpit.open_run(status.path)

    def action_sort(self) -> None:
        """Sort by the next column."""
        self.say(f"sorted by {self.query_one(FleetList).sort_on()}")

    def action_mark(self) -> None:
        """Mark or unmark the run under the cursor."""
        marked = self.query_one(FleetList).mark()
        self.say(
            "v compares the two" if marked == 2 else "mark another with Space" if marked else "none is marked"
        )

    def action_compare(self) -> None:
        """Compare two runs."""
        from nantui.ui.screens.compare import CompareScreen

        pair = self.query_one(FleetList).pair()
        if len(pair) < 2:
            self.say("compare: mark two runs with Space, or one and put the cursor on the other", "warn")
        else:
            self.app.push_screen(CompareScreen(pair[0], [str(path) for path in pair]))

    def action_filter(self) -> None:
        """Open the filter line."""
        field = self.query_one(Input)
        field.display = True
        field.focus()

    def on_input_changed(self, message: Input.Changed) -> None:
        fleet = self.query_one(FleetList)
        fleet.wanted = message.value.strip().lower()
        fleet.lay_out()

    def on_input_submitted(self, message: Input.Submitted) -> None:
        message.input.display = bool(message.value)
        self.query_one(FleetList).focus()

    def action_back(self) -> None:
        """Put the filter away, or go back."""
        field = self.query_one(Input)
        if field.display:
            field.value, field.display = "", False
            self.query_one(FleetList).focus()
        else:
            super().action_back()
