"""The training's own output: live, searchable, followed or held; lines with NaN stand out."""

from __future__ import annotations

from pathlib import Path

from textual.app import ComposeResult
from textual.binding import Binding
from textual.widgets import Input

from nantui.run.events import AttemptStarted, of_kind
from nantui.run.layout import RunLayout
from nantui.ui.context import RunView
from nantui.ui.dialogs.detail import DetailDialog
from nantui.ui.screens.base import BaseScreen
from nantui.ui.styled_text import Line, wrap
from nantui.ui.watchers import LogRead, LogWatcher
from nantui.ui.widgets.dialog_controls import Field
from nantui.ui.widgets.keybar import BACK, HELP, QUIT, KeyBar, offered
from nantui.ui.widgets.list_view import Listing
from nantui.ui.widgets.log import LogList
from nantui.ui.widgets.text_view import Title


class LogScreen(BaseScreen):
    """One attempt's log; `[` and `]` go to those of other attempts."""

    BINDINGS = [
        Binding("slash", "open_field", "search"),
        Binding("n", "next(1)", "next", tooltip="next match"),
        Binding("N", "next(-1)", "previous", tooltip="match before"),
        Binding("p,space", "follow", "follow/hold", tooltip="follow the end, or hold"),
        Binding("i", "nan", "next NaN", tooltip="next line with NaN"),
        Binding("w", "wrap", "wrap", tooltip="break long lines, or cut them"),
        Binding("left,h", "sideways(-1)", "sideways", tooltip="move long lines sideways", key_display="h l"),
        Binding("right,l", "sideways(1)", "sideways", show=False),
        Binding("[", "attempt(-1)", "attempts", key_display="[ ]", tooltip="the attempt before, or after"),
        Binding("]", "attempt(1)", "attempt after", show=False),
    ]

    def __init__(self, over: RunView) -> None:
        super().__init__()
        self.over = over
        self.path = over.snapshot.log_path

    def compose(self) -> ComposeResult:
        yield Title(lambda width: self._title())
        yield LogList()
        yield Field(placeholder="search; Enter goes to the next match", id="search")
        yield KeyBar((HELP, BACK, *offered(self), QUIT))

    def on_mount(self) -> None:
        self.query_one(LogList).focus()
        if self.path is None:
            self.query_one(LogList).empty = "no output: this run was not started by nantui"
        else:
            self._open(self.path)

    def _open(self, path: Path) -> None:
        """Follow this log and no other."""
        self.on_unmount()
        self.path = path
        self.watch_with(LogWatcher(path, self.post_message))

    def _title(self) -> list[Line]:
        logs, name = self._logs(), self.path.name if self.path else ""
        place = f"attempt {logs.index(self.path) + 1} of {len(logs)}" if self.path in logs else name
        state = "   " + self.query_one(LogList).state()
        return [[("output ", "title"), (place, "strong"), (state, "muted")]]

    def _logs(self) -> list[Path]:
        """Return the logs of the attempts that the journal knows, oldest first: the disk is not asked."""
        layout, begun = RunLayout(self.over.run_path), of_kind(self.over.snapshot.journal, AttemptStarted)
        return [layout.attempt_log(one.attempt) for one in begun if one.attempt]

    def action_attempt(self, by: int) -> None:
        logs = self._logs()
        at = logs.index(self.path) + by if self.path in logs else len(logs) - 1
        if not 0 <= at < len(logs):
            self.say("there is no earlier attempt" if by < 0 else "this is the newest attempt")
            return
        self.query_one(LogList).clear()
        self._open(logs[at])

    def action_wrap(self) -> None:
        self.query_one(LogList).wrap()
        self.query_one(Title).redraw()

    def action_sideways(self, by: int) -> None:
        """Move long lines sideways; wrapped ones are whole already."""
        self.query_one(LogList).sideways(by)
        self.query_one(Title).redraw()

    def on_listing_chosen(self, message: Listing.Chosen) -> None:
        """Show the line under the cursor, whole."""
        log = self.query_one(LogList)
        text, title = log.line(log.number), f"line {log.number + 1:,}"
        self.app.push_screen(DetailDialog(title, lambda width: wrap(text, width)))

    def on_listing_moved(self, message: Listing.Moved) -> None:
        self.query_one(Title).redraw()

    def on_log_read(self, message: LogRead) -> None:
        if message.path == self.path:
            self.query_one(LogList).add(message.lines, message.restarted)
            self.query_one(Title).redraw()

    def on_input_submitted(self, message: Input.Submitted) -> None:
        self.close_field()
        self.query_one(LogList).search(message.value)
        self.action_next(1)

    def action_next(self, direction: int) -> None:
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
        log = self.query_one(LogList)
        log.follow = not log.follow
        if log.follow:
            log.action_edge(1)
        self.query_one(Title).redraw()

    def action_nan(self) -> None:
        if not self.query_one(LogList).find_nan():
            self.say("no line has a NaN", "good")
