"""The training's own output: live, searchable, followed or held; lines with NaN stand out."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from pathlib import Path

from rich.cells import chop_cells
from textual.app import ComposeResult
from textual.binding import Binding
from textual.widgets import Input

from nantui.run.events import AttemptStarted, of_kind
from nantui.run.growing_files import LineFollower
from nantui.run.layout import RunLayout
from nantui.ui.context import RunView
from nantui.ui.dialogs.detail import DetailDialog
from nantui.ui.format import clean, without_pictures
from nantui.ui.screens.base import RunPage, Watcher
from nantui.ui.styled_text import Line, fit, wrap
from nantui.ui.widgets.keybar import QUIT
from nantui.ui.widgets.list_view import Listing
from nantui.ui.widgets.timeline import NAN
from nantui.words import count

MOST_LINES, LONGEST, SIDEWAYS = 100_000, 4000, 20
TAIL_BYTES = 4 << 20
"""Read of a log at first: one of gigabytes opens as fast as a short one."""


class LogScreen(RunPage):
    """One attempt's log; `[` and `]` go to those of other attempts."""

    BINDINGS = [
        Binding("slash", "open_field", "search"), Binding("n", "next(1)", "next", tooltip="next match"),
        Binding("N", "next(-1)", "previous", tooltip="match before"),
        Binding("p,space", "follow", "follow/hold", tooltip="follow the end, or hold"),
        Binding("i", "nan", "next NaN", tooltip="next line with NaN"),
        Binding("w", "wrap", "wrap", tooltip="break long lines, or cut them"),
        Binding("left,h", "sideways(-1)", "sideways", tooltip="move long lines sideways", key_display="h l"),
        Binding("right,l", "sideways(1)", "sideways", show=False),
        Binding("[", "attempt(-1)", "attempts", key_display="[ ]", tooltip="the attempt before, or after"),
        Binding("]", "attempt(1)", "attempt after", show=False),
    ]  # fmt: skip
    LAST_KEYS = (QUIT,)
    FIELD = "search; Enter goes to the next match"

    def __init__(self, over: RunView) -> None:
        super().__init__(over)
        self.path, self.lines = over.snapshot.log_path, LogList()

    def body(self) -> ComposeResult:
        yield self.lines

    def on_mount(self) -> None:
        if self.path is None:
            self.lines.empty = "no output: this run was not started by nantui"
        else:
            self._open(self.path)

    def _open(self, path: Path) -> None:
        self.on_unmount()
        self.path = path
        follower = LineFollower(path, tail_bytes=TAIL_BYTES)

        def look() -> Iterator[tuple[Path, list[str], bool]]:
            new = follower.read()
            if new.lines or new.restarted:
                yield path, new.lines, new.restarted

        self.watch_with(Watcher(self, "the output", 0.5, look, self._add, latest=False))

    def heading(self, width: int) -> list[Line]:
        logs, name = self._logs(), self.path.name if self.path else ""
        place = f"attempt {logs.index(self.path) + 1} of {len(logs)}" if self.path in logs else name
        state = "   " + self.lines.state()
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
        self.lines.clear()
        self._open(logs[at])

    def action_wrap(self) -> None:
        self.lines.wrap()

    def action_sideways(self, by: int) -> None:
        self.lines.sideways(by)

    def on_listing_chosen(self, message: Listing.Chosen) -> None:
        text, title = self.lines.line(self.lines.number), f"line {self.lines.number + 1:,}"
        self.app.push_screen(DetailDialog(title, lambda width: wrap(text, width)))

    def _add(self, path: Path, lines: list[str], restarted: bool) -> None:
        if path == self.path:
            self.lines.add(lines, restarted)

    def on_input_submitted(self, message: Input.Submitted) -> None:
        self.close_field()
        self.lines.search(message.value)
        self.action_next(1)

    def action_next(self, direction: int) -> None:
        if not self.lines.wanted:
            self.say("nothing to search for: press / first", "warn")
            return
        before = self.lines.cursor
        if not self.lines.find(direction):
            self.say(f"no line has {self.lines.wanted!r}", "warn")
        elif self.lines.cursor == before:
            self.say(f"no other line has {self.lines.wanted!r}", "warn")

    def action_follow(self) -> None:
        self.lines.follow = not self.lines.follow
        if self.lines.follow:
            self.lines.action_edge(1)

    def action_nan(self) -> None:
        if not self.lines.find_nan():
            self.say(*(("no line has a NaN", "good") if self.lines.rows else (self.lines.empty, "warn")))


class LogList(Listing):
    """Follows the end until the cursor is moved up. Lines are cut at the edge, moved sideways or wrapped."""

    follows = True

    def __init__(self) -> None:
        super().__init__(id="log", empty="nothing was written yet")
        self._text: list[str] = []
        self._dropped = 0
        self._parts: list[tuple[int, int]] = []
        self._wrapped_for = 0
        self._matches: list[int] = []
        self.wanted = ""
        self.wraps, self.left = False, 0

    def clear(self) -> None:
        self._text, self._parts, self._matches, self._dropped = [], [], [], 0
        self.follow, self.cursor = True, 0
        self.lay_out()

    def add(self, lines: list[str], restarted: bool) -> None:
        """Take new lines; a progress bar rewrites its line with carriage returns, the last counts."""
        if restarted:
            self.clear()
        first = self._dropped + len(self._text)
        self._text += [line.rstrip("\r").rpartition("\r")[2] for line in lines]
        if len(self._text) > MOST_LINES:
            self._dropped += len(self._text) - MOST_LINES
            del self._text[: len(self._text) - MOST_LINES]
        self._count(first)
        self.lay_out(first)

    def search(self, wanted: str) -> None:
        self.wanted = wanted
        self._count(0)
        self.recolour()

    def _count(self, first: int) -> None:
        """Note the lines from number `first` on that have the wanted text."""
        wanted, first = self.wanted.lower(), max(first, self._dropped)
        self._matches = [number for number in self._matches if self._dropped <= number < first]
        fresh = enumerate(self._text[first - self._dropped :], first)
        self._matches += [number for number, text in fresh if wanted and wanted in text.lower()]

    @property
    def _end(self) -> int:
        return self._dropped + len(self._text)

    def lay_out(self, first: int = 0) -> None:
        """Lay out the lines from number `first` on; all of them where the width has changed."""
        if not self.wraps:
            self.show(range(self._dropped, self._end), self._row)
            return
        width = self.scrollable_content_region.width - 1  # beside a scroll bar
        if width != self._wrapped_for or (self._parts and self._parts[0][0] < self._dropped):
            self._parts, self._wrapped_for, first = [], width, 0
        numbers = range(max(first, self._dropped), self._end) if width > 0 else ()
        self._parts += [(number, part) for number in numbers for part in range(len(self._in_parts(number)))]
        self.show(self._parts, self._row)

    def on_resize(self) -> None:
        super().on_resize()
        if self.wraps and self.scrollable_content_region.width - 1 != self._wrapped_for:
            self.lay_out()

    def _in_parts(self, number: int) -> list[str]:
        return chop_cells(self.line(number), max(8, self._wrapped_for)) or [""]

    def line(self, number: int) -> str:
        return without_pictures(clean(self._text[number - self._dropped], LONGEST))

    @property
    def number(self) -> int:
        return self._number_at(self.cursor)

    def _number_at(self, row: int) -> int:
        return self._parts[row][0] if self.wraps and row < len(self._parts) else self._dropped + row

    def _row_of(self, number: int) -> int:
        return bisect_left(self._parts, (number, 0)) if self.wraps else number - self._dropped

    def wrap(self) -> None:
        number, follow = self.number, self.follow
        self.wraps, self.left, self._parts = not self.wraps, 0, []
        self.lay_out()
        self.go(self._row_of(number))
        self.follow = follow
        self.recolour()

    def sideways(self, by: int) -> None:
        self.left = 0 if self.wraps else max(0, self.left + by * SIDEWAYS)
        self.recolour()

    def state(self) -> str:
        told = [count(len(self._text), "line"), "following" if self.follow else "held"]
        told += ["wrapped"] if self.wraps else [f"from column {self.left + 1}"] if self.left else []
        if self.wanted:
            at = bisect_left(self._matches, self.number)
            here = at < len(self._matches) and self._matches[at] == self.number
            place = f"match {at + 1} of {len(self._matches)}" if here else count(len(self._matches), "line")
            told.append(f"{place} with {self.wanted!r}")
        return ", ".join(told)

    def _row(self, row: int, width: int) -> Line:
        number = self._number_at(row)
        line = self._in_parts(number)[self._parts[row][1]] if self.wraps else self.line(number)
        text = line[self.left :]
        ink = "bad" if NAN.search(text) else "text"
        if self.wanted and (start := text.lower().find(self.wanted.lower())) >= 0:
            end = start + len(self.wanted)
            return fit([(text[:start], ink), (text[start:end], "pill-warn"), (text[end:], ink)], width)
        return fit([(text, ink)], width)

    def find(self, direction: int) -> bool:
        """Go to the next line that has the wanted text, around the ends; False when no other has it."""
        if not self._matches:
            return False
        at = (bisect_right if direction > 0 else bisect_left)(self._matches, self.number)
        self._go_to(self._matches[(at if direction > 0 else at - 1) % len(self._matches)])
        return True

    def find_nan(self) -> bool:
        here = self.number + 1
        for number in (*range(here, self._end), *range(self._dropped, min(here, self._end))):
            if NAN.search(self._text[number - self._dropped]):
                self._go_to(number)
                return True
        return False

    def _go_to(self, number: int) -> None:
        self.go(self._row_of(number))
        self.follow = False
