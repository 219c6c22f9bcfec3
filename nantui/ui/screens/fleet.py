"""All runs below a directory, live; Enter opens one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from textual.app import ComposeResult
from textual.binding import Binding
from textual.containers import Container
from textual.timer import Timer
from textual.widgets import Input

from nantui.run.results import Metric
from nantui.run.status import ACTIVE, RunStatus
from nantui.supervisor.queue import entries
from nantui.ui.actions import EVERY, bindings
from nantui.ui.dialogs.confirm import ConfirmDialog
from nantui.ui.format import clean, duration, number, short_path
from nantui.ui.glyphs import meter
from nantui.ui.model import checkpoint_rows
from nantui.ui.model.backend import Backend
from nantui.ui.model.run_reader import RunReader
from nantui.ui.model.snapshot import RunSnapshot
from nantui.ui.model.timeline import incident_text
from nantui.ui.screens.base import BaseScreen, Watcher
from nantui.ui.styled_text import Line, Span, column, fit
from nantui.ui.watchers import Pace, Scanned, Scanner
from nantui.ui.widgets.chart_wall import ChartWall
from nantui.ui.widgets.checkpoints import Checkpoints
from nantui.ui.widgets.header import STATE_INKS
from nantui.ui.widgets.keybar import COMMANDS, HELP, JUMP, QUIT
from nantui.ui.widgets.list_view import Document, Listing
from nantui.ui.widgets.timeline import in_lines
from nantui.words import count

ON_ROW = ("start", "stop", "kill", "rollback", "recover", "undo", "config", "diagnosis", "labels")
BAR, INCIDENT = 12, 20
METRIC, METRIC_AND_BEST, WIDE = 8, 28, 120
SORTS, LEAST_FIRST = ("state", "name", "epoch", "time left"), ("name", "time left")
GRAVEST = ("diverged", "failed", "lost", "stalled", "recovering", "running", "starting", "stopping", "queued")
AROUND, ONE_ROW, ROOMY, TALL = 5, 10, 24, 50
"""Lines of title, gaps and key bar; the least for one row of charts, and for what happened below them."""
STALE_AFTER_S, SETTLING_S, FIRST_RUNS_S = 30.0, 0.2, 0.2


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
        Binding("plus,equals_sign", "move_queued(-1)", "this queued run trains sooner", show=False),
        Binding("minus", "move_queued(1)", "this queued run trains later", show=False),
        Binding("delete,backspace", "take_out", "take this queued run out of the queue", show=False),
        Binding("p", "pause_queue", "pause the queue, or let it go on", show=False),
    ]
    KEYS = (HELP, COMMANDS, QUIT, ("Enter", "open", True))
    LAST_KEYS = (JUMP,)
    FIELD = "part of a path, or a state such as running"

    def __init__(self, top: Path) -> None:
        super().__init__()
        self.top, self.fleet = top, FleetList()
        self._whole, self._arrived = False, time.monotonic()
        self.seen: RunSnapshot | None = None
        self._looked_at: RunStatus | None = None
        self._settling: Timer | None = None
        self.scanned: Scanned = {}, frozenset(), None
        self.paused: bool | None = None

    def body(self) -> ComposeResult:
        with Container(id="runs"):
            yield self.fleet
            with Container(id="preview"):
                yield ChartWall()
                yield Document(id="about", write=self._about)
                yield Checkpoints()

    def on_mount(self) -> None:
        self.set_interval(1.0, self.on_top.redraw)
        read = partial(self._read, self.cockpit.backend)
        self.call_after_refresh(self.watch_with, Watcher(self, "runs or queue", 3.0, read, self.show_runs))

    def _read(self, backend: Backend) -> Iterator[tuple[object, ...]]:
        """Read them all, and the queue; at first what is read so far is shown: a slow disk takes long."""
        from nantui.supervisor.queue.devices import look_at_queue  # not before a list is drawn

        statuses: list[RunStatus] = []
        pace = Pace(FIRST_RUNS_S, at_once=1)
        for status in backend.fleet(self.top):
            statuses.append(status)
            if not self._whole and pace.allows():
                yield list(statuses), False
        yield statuses, True
        yield statuses, True, entries.read_queue()  # what they wait for, by the GPUs, takes longer
        now = look_at_queue()
        yield statuses, True, now.queue, now.waits_for

    def heading(self, width: int) -> list[Line]:
        runs, wanted = count(len(self.fleet.statuses), "run"), self.fleet.wanted
        runs = f"{self.fleet.rows} of {runs} with {wanted!r}" if wanted else runs
        told = f"   {runs} {self.fleet.order if self._whole else 'so far, reading on..'}"
        late = int(time.monotonic() - self._arrived)
        stale = f"   stale {late} s" if late > STALE_AFTER_S else ""
        return [[("nantui ", "accent"), (short_path(self.top), "strong"), (told, "muted"), (stale, "warn")]]

    def show_runs(
        self, statuses: list[RunStatus], whole: bool = True, queue: entries.Queue | None = None,
        waits_for: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        """Show where the runs stand; not `whole` while more are being read. None is not known anew."""
        self._whole, self._arrived = whole, time.monotonic()
        self.cockpit.runs = [status.path for status in statuses]
        if queue is not None:
            self.paused = queue.paused
            self.fleet.asks = {entry.run: entry.asks for entry in queue.entries if entry.asks}
        self.fleet.waits_for = self.fleet.waits_for if waits_for is None else waits_for
        self.fleet.show_statuses(statuses, whole)
        self._fit()

    def _fit(self) -> None:
        """Give the list the lines that it fills, at most half of many, and the preview what is left."""
        width, height = self.app.size
        filled = min(max(self.fleet.rows, 1) + 1, height // 2 if height >= TALL else height)
        left = height - AROUND - filled
        told = max(len(self._about(width // 2 - 4)), self.query_one(Checkpoints).rows + 1)
        lower = min(told, left * 2 // 5) if left >= ROOMY else 0
        preview = self.query_one("#preview")
        preview.display = left >= ONE_ROW
        preview.styles.grid_rows = f"1fr {lower + 1}" if lower else "1fr"
        for panel in self.query("#about, #checkpoints"):
            panel.display = lower > 0
        self.fleet.styles.height = filled if left >= ONE_ROW else None
        self.call_after_refresh(self._look_closer)

    def on_listing_moved(self, message: FleetList.Moved) -> None:
        if message.listing is self.fleet:
            if self._settling is not None:
                self._settling.stop()
            self._settling = self.set_timer(SETTLING_S, self._look_closer)

    def on_resize(self) -> None:
        self._fit()

    def _look_closer(self) -> None:
        """Read the run under the cursor, where there is room to show more of it and it has news."""
        status = self.fleet.status
        if status is not None and status != self._looked_at and self.query_one("#preview").region:
            if self._looked_at is None or status.path != self._looked_at.path:
                self._scan(status.path)
            self._looked_at = status
            backend = self.cockpit.backend
            reader = RunReader(status.path, backend.status, backend.now)  # whose first look leaves steps out
            self.find_out(reader.read, self._show_closer)

    def _scan(self, run: Path) -> None:
        """Scan this run's checkpoints; of the run before only the file under way is read to its end."""
        for watcher in self.watchers[1:]:
            watcher.stop()
        del self.watchers[1:]
        scanner = Scanner(run / "weights", self.cockpit.backend)
        self.watch_with(Watcher(self, "the checkpoints", 1.5, scanner.look, self._take_verdicts))

    def _take_verdicts(self, *scanned: Any) -> None:
        self.scanned = scanned
        self._show_checkpoints()

    def _show_checkpoints(self) -> None:
        if self.seen is not None:
            listing = self.query_one(Checkpoints)
            rows = checkpoint_rows.rows(self.seen.checkpoints, *self.scanned)
            listing.show_rows(rows)
            self._fit()

    def _show_closer(self, seen: RunSnapshot | None, _problem: str) -> None:
        if seen is not None and seen.path == self.fleet.key:
            self.seen = seen
            drawn = [one for one in seen.epoch_charts if any(curve.xs for curve in one.curves)]
            self.query_one(ChartWall).show(drawn)
            self.query_one("#about", Document).remake()
            self._show_checkpoints()

    def _about(self, width: int) -> list[Line]:
        told = self.seen.timeline[-6:] if self.seen is not None else ()
        return [[("what happened", "title")], *(line for one in told for line in in_lines(one, width))]

    def on_listing_chosen(self, message: FleetList.Chosen) -> None:
        if self.fleet.status is not None:
            self.cockpit.open_run(self.fleet.status.path)

    on_chart_wall_chosen = on_listing_chosen

    def action_sort(self, by: int) -> None:
        self.fleet.sort_on(by)
        self.say(self.fleet.order)

    def action_on_row(self, name: str) -> None:
        status = self.fleet.status
        if name == "undo" and self.cockpit.undo_own():
            return
        if status is None:
            self.say(f"{EVERY[name].label}: there is no run under the cursor", "warn")
        elif name in ("stop", "kill") and status.place:
            self.action_take_out()
        else:
            self.cockpit.open_run(status.path, name)

    def _waiting(self) -> RunStatus | None:
        """Return the run under the cursor where its place in the queue can be changed; says why not."""
        status = self.fleet.status
        waits = status is not None and status.place
        return status if self.may("" if waits else "the run under the cursor waits in no queue") else None

    def _change_queue(self, told: str, change: Callable[[], object]) -> None:
        def done(answer: object, problem: str) -> None:
            self.say(problem or told or str(answer), "bad" if problem else "info")
            self.watchers[0].hurry()

        self.find_out(change, done)

    def action_move_queued(self, by: int) -> None:
        if status := self._waiting():
            self._change_queue("", partial(entries.move_by, str(status.path), by))

    def action_pause_queue(self) -> None:
        if self.may("the queue is still being read" if self.paused is None else ""):
            told = "the queue goes on" if self.paused else "the queue is paused: what trains goes on"
            self._change_queue(told, partial(entries.pause, not self.paused))

    def action_take_out(self) -> None:
        if status := self._waiting():
            text = ["The directory that was made for it goes, too. What trains is not touched."]
            dialog = ConfirmDialog(f"Take {status.path.name} out of the queue?", text, "take out")
            told = f"{status.path.name} is out of the queue"
            change = partial(entries.take_out, [str(status.path)])
            self.ask(dialog, partial(self._change_queue, told, change))

    def action_mark(self) -> None:
        marked = self.fleet.mark()
        many = f"{count(marked, 'run')} marked: o overlays, v compares"
        self.say(("none is marked", "mark another with Space", many)[min(marked, 2)])

    def action_compare(self) -> None:
        from nantui.ui.screens.compare import CompareScreen

        chosen = self.fleet.chosen()
        if len(chosen) < 2:
            self.say("compare: mark two runs with Space, or one and put the cursor on the other", "warn")
        else:
            self.app.push_screen(CompareScreen(chosen[0], [str(path) for path in chosen]))

    def action_overlay(self) -> None:
        """Overlay the marked runs; where none is marked the key is the run's own: its output."""
        if self.fleet.marked:
            self.action_compare()
        else:
            self.action_on_row("log")

    def on_input_changed(self, message: Input.Changed) -> None:
        self.fleet.wanted = message.value.strip().lower()
        self.fleet.lay_out()
        self._fit()

    def on_input_submitted(self, message: Input.Submitted) -> None:
        message.input.display = bool(message.value)
        self.fleet.focus()

    def close_field(self) -> bool:
        self.query_one(Input).value = ""
        return super().close_field()


class FleetList(Listing):
    """Sorted, gravest first, until another order is asked for."""

    def __init__(self) -> None:
        super().__init__(id="fleet", header=[], empty="looking for runs..")
        self.keeps_first = True
        self.statuses: list[RunStatus] = []
        self._sort, self._turned = 0, False
        self.wanted = ""
        self.marked: list[Path] = []
        self._name_cells = 34
        self.waits_for: Mapping[str, str] = {}
        self.asks: Mapping[str, str] = {}

    def mark(self) -> int:
        if isinstance(self.key, Path):
            kept = [path for path in self.marked if path != self.key]
            self.marked = kept if len(kept) < len(self.marked) else [*kept, self.key]
            self.redraw()
        return len(self.marked)

    def chosen(self) -> list[Path]:
        here = [self.key] if isinstance(self.key, Path) else []
        return list(dict.fromkeys([*self.marked, *(here if len(self.marked) < 2 else [])]))

    def show_statuses(self, statuses: list[RunStatus], whole: bool) -> None:
        """Show these runs; while they are not all there, a cursor that was not moved stays on the gravest."""
        self.statuses = statuses
        self.lay_out()
        self.keeps_first = not whole

    @property
    def status(self) -> RunStatus | None:
        return next((status for status in self.statuses if status.path == self.key), None)

    def sort_on(self, by: int) -> None:
        self._sort, self._turned = (self._sort + by) % len(SORTS), not by and not self._turned
        self.lay_out()

    @property
    def order(self) -> str:
        return f"sorted by {SORTS[self._sort]}{', reversed' if self._turned else ''}"

    def lay_out(self) -> None:
        shown = [
            status
            for status in self.statuses
            if self.wanted in str(status.path).lower() or status.state.startswith(self.wanted)
        ]
        shown.sort(key=self._order, reverse=self._turned)
        names = max((cell_len(short_path(status.path)) for status in shown), default=0)
        self._name_cells = max(16, min(44, names + 2))
        if self.statuses and not shown:
            self.empty = f"no run matches {self.wanted!r}"
        self.show([status.path for status in shown], lambda row, width: self._row(shown[row], width))

    def _order(self, status: RunStatus) -> tuple[object, ...]:
        rank = GRAVEST.index(status.state) if status.state in GRAVEST else len(GRAVEST)
        by = {
            "state": (not ruined(status), rank, status.place or 0),
            "name": 0,
            "epoch": -(status.epoch or 0),
            "time left": status.eta_s if status.eta_s is not None else float("inf"),
        }
        return by[SORTS[self._sort]], str(status.path)

    def heading(self, width: int) -> Line:
        bar, with_loss = self._room(width)
        loss = f"{'loss':>9}" if with_loss else ""
        metric = column(f"{self._metric_name():>{METRIC}}", metric_cells(width))
        line = [
            self._head("name", "  run", -self._name_cells - 2), self._head("state", " state", -12),
            self._head("epoch", "epoch", 10), (f"{metric}  {' ' * bar}{loss}  ", "muted"),
            self._head("time left", "left", 11), ("  last incident", "muted"),
        ]  # fmt: skip
        return fit(line, width)

    def _head(self, by: str, title: str, cells: int) -> Span:
        """Return a column's title, with an arrow up where the least or the first letter is on top."""
        if by != SORTS[self._sort]:
            return column(title, abs(cells), cells > 0), "muted"
        arrow = self.glyphs.above if (by in LEAST_FIRST) != self._turned else self.glyphs.below
        return column(f"{title} {arrow}", abs(cells), cells > 0), "accent"

    def _metric_name(self) -> str:
        names = {status.metric.name for status in self.statuses if status.metric}
        return "metric" if len(names) > 1 else "".join(names).partition("50-")[0]

    def _room(self, width: int) -> tuple[int, bool]:
        """Return the cells for the progress bar and whether the loss fits; incidents go before both."""
        left = width - self._name_cells - 2 - 24 - metric_cells(width) - 13 - INCIDENT
        return (BAR if left >= BAR + 9 else 0), left >= 9

    def _row(self, status: RunStatus, width: int) -> Line:
        begins: Line = [
            (f"{self.glyphs.mark if status.path in self.marked else ' '} ", "accent"),
            (column(short_path(status.path), self._name_cells), "strong"),
            (f" {status.state:<11}", STATE_INKS.get(status.state, "muted")),
        ]
        if status.place:
            waits = self.waits_for.get(str(status.path))
            asks, told = clean(self.asks.get(str(status.path), ""), 200), f"  {status.text}"
            told += f", waits for {clean(waits, 200)}" if waits else ""
            return fit([*begins, (f" {asks}" if asks else "", "text"), (told, "muted")], width)
        epoch = f"{status.epoch or 0}/{status.epochs or '?'}"
        share = (status.epoch or 0) / status.epochs if status.epochs else 0.0
        bar, with_loss = self._room(width)
        loss = sum(status.losses.values()) if status.losses else None
        left = duration(status.eta_s) if status.state in ACTIVE and status.eta_s is not None else ""
        incident = incident_text(status.incident.incident) if status.incident else ""
        if status.state == "starting" and status.hosts and not incident:
            incident = clean(status.text, 60)  # it waits for hosts
        line: Line = [
            *begins, (f" {epoch:>9}", "text"),
            (f"{metric_text(status.metric, metric_cells(width))}  ", "text"),
            *meter(share, bar, self.glyphs),
            (f" {number(loss):>8}" if with_loss else "", "bad" if loss != loss else "text"),
            (f"  {left:>11}", "muted"), (f"  {incident}", "bad" if ruined(status) else "warn"),
        ]  # fmt: skip
        return fit(line, width)


def ruined(status: RunStatus) -> bool:
    """Whether its newest attempt has had an incident that cost more than a step."""
    return status.incident is not None and not status.incident.harmless


def metric_cells(width: int) -> int:
    """Return the cells for what a run is trained for; where there is room, with its best value."""
    return METRIC_AND_BEST if width >= WIDE else METRIC


def metric_text(metric: Metric | None, cells: int) -> str:
    """Return its newest value, and the best with its epoch where they fit."""
    if metric is None:
        return " " * cells
    best = f", best {metric.best:.3f} at {metric.best_epoch}" if cells > METRIC else ""
    return column(f"{metric.last:>{METRIC}.3f}{best}", cells)
