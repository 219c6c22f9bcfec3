"""The training's own output: live, searchable, followed or held; lines with NaN stand out."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Input

from nantui.ui.screens.base import BaseScreen
from nantui.ui.styled_text import Line
from nantui.ui.watchers import LogRead, LogWatcher
from nantui.ui.widgets.dialog_controls import Field
from nantui.ui.widgets.keybar import BACK, HELP, QUIT, KeyBar, offered
from nantui.ui.widgets.log import LogList
from nantui.ui.widgets.text_view import Title

if TYPE_CHECKING:
    from nantui.ui.context import RunView


class LogScreen(BaseScreen):
    """One attempt's log."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("slash", "search", "search"),
        Binding("n", "next(1)", "next", tooltip="next match"),
        Binding("N", "next(-1)", "previous", tooltip="match before"),
        Binding("p,space", "follow", "follow/hold", tooltip="follow the end, or hold"),
        Binding("i", "nan", "next NaN", tooltip="next line with NaN"),
    ]

    def __init__(self, over: RunView) -> None:
        super().__init__()
        self.over = over
        self._watcher: LogWatcher | None = None

    def compose(self) -> ComposeResult:
        yield Title(lambda width: self._title())
        yield LogList()
        yield Field(placeholder="search; Enter goes to the next match", id="search")
        yield KeyBar((HELP, BACK, *offered(self), QUIT))

    def on_mount(self) -> None:
        self.query_one(Input).display = False
        self.query_one(LogList).focus()
        snapshot = self.over.snapshot
        if snapshot is not None and snapshot.log_path is not None:
            self._watcher = LogWatcher(snapshot.log_path, self.post_message)
            self._watcher.start()
        else:
            self.query_one(LogList).empty = "no output: this run was not started by nantui"

    def on_unmount(self) -> None:
        if self._watcher is not None:
            self._watcher.stop()

    def _title(self) -> list[Line]:
        path = self.over.snapshot.log_path if self.over.snapshot is not None else None
        return [
            [
                ("output ", "title"),
                (path.name if path else "", "strong"),
                ("   " + self.query_one(LogList).state(), "muted"),
            ]
        ]

    def on_log_read(self, message: LogRead) -> None:
        self.query_one(LogList).add(message.lines, message.restarted)
        self.query_one(Title).redraw()

    def action_search(self) -> None:
        """Open the search line."""
        field = self.query_one(Input)
        field.display = True
        field.focus()

    def on_input_submitted(self, message: Input.Submitted) -> None:
        message.input.display = False
        log = self.query_one(LogList)
        log.focus()
        log.wanted = message.value
        self._find(1)

    def action_next(self, direction: int) -> None:
        """Go to the next match."""
        self._find(direction)

    def _find(self, direction: int) -> None:
        log = self.query_one(LogList)
        if not log.wanted:
            self.say("nothing to search for: press / first", "warn")
            return
        before = log.cursor
        if not log.find(direction):
            self.say(f"no line has {log.wanted!r}", "warn")
        elif log.cursor == before:
            self.say(f"no other line has {log.wanted!r}", "warn")
        self.query_one(Title).redraw()

    def action_follow(self) -> None:
        """Follow the end of the log, or hold."""
        log = self.query_one(LogList)
        log.follow = not log.follow
        if log.follow:
            log.action_edge(1)
        self.query_one(Title).redraw()

    def action_nan(self) -> None:
        """Go to the next line with a NaN."""
        if not self.query_one(LogList).find_nan():
            self.say("no line has a NaN", "good")

    def action_back(self) -> None:
        """Close the search line, or go back to the run."""
        field = self.query_one(Input)
        if field.display:
            field.display = False
            self.query_one(LogList).focus()
        else:
            super().action_back()
