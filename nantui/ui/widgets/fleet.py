"""Runs as a table: name, state, progress, metric, loss, time left, last incident."""

from __future__ import annotations

from pathlib import Path

from rich.cells import cell_len

from nantui.run.results import Metric
from nantui.run.status import ACTIVE, RunStatus
from nantui.ui.format import clean, duration, number
from nantui.ui.glyphs import meter
from nantui.ui.model.timeline import incident_text
from nantui.ui.styled_text import Line, Span, column, fit
from nantui.ui.widgets.header import STATE_INKS
from nantui.ui.widgets.list_view import Listing

BAR, INCIDENT = 12, 20
METRIC, METRIC_AND_BEST, WIDE = 8, 28, 120
SORTS, LEAST_FIRST = ("state", "name", "epoch", "time left"), ("name", "time left")
GRAVEST = ("diverged", "failed", "lost", "stalled", "recovering", "running", "starting", "stopping", "queued")


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

    def mark(self) -> int:
        """Mark or unmark the run under the cursor; returns how many are marked."""
        if isinstance(self.key, Path):
            kept = [path for path in self.marked if path != self.key]
            self.marked = kept if len(kept) < len(self.marked) else [*kept, self.key]
            self.redraw()
        return len(self.marked)

    def chosen(self) -> list[Path]:
        """Return the runs to compare: the marked ones, the one under the cursor where only one is."""
        here = [self.key] if isinstance(self.key, Path) else []
        return list(dict.fromkeys([*self.marked, *(here if len(self.marked) < 2 else [])]))

    def show_statuses(self, statuses: list[RunStatus], whole: bool) -> None:
        """Show these runs; while they are not all there, a cursor that was not moved stays on the gravest."""
        self.statuses = statuses
        self.lay_out()
        self.keeps_first = not whole

    @property
    def status(self) -> RunStatus | None:
        """The run under the cursor."""
        return next((status for status in self.statuses if status.path == self.key), None)

    def sort_on(self, by: int) -> None:
        """Sort by the next column, or with 0 by the same one the other way round."""
        self._sort, self._turned = (self._sort + by) % len(SORTS), not by and not self._turned
        self.lay_out()

    @property
    def order(self) -> str:
        """What the runs are sorted by."""
        return f"sorted by {SORTS[self._sort]}{', reversed' if self._turned else ''}"

    def lay_out(self) -> None:
        """Put the wanted runs in order."""
        shown = [
            status
            for status in self.statuses
            if self.wanted in str(status.path).lower() or status.state.startswith(self.wanted)
        ]
        shown.sort(key=self._order, reverse=self._turned)
        names = max((cell_len(_name(status.path)) for status in shown), default=0)
        self._name_cells = max(16, min(44, names + 2))
        if self.statuses and not shown:
            self.empty = f"no run matches {self.wanted!r}"
        self.show([status.path for status in shown], lambda row, width: self._row(shown[row], width))

    def _order(self, status: RunStatus) -> tuple[object, ...]:
        rank = GRAVEST.index(status.state) if status.state in GRAVEST else len(GRAVEST)
        by = {
            "state": (rank, status.place or 0),
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
            self._head("name", "  run", -self._name_cells - 2),
            self._head("state", " state", -12),
            self._head("epoch", "epoch", 10),
            (f"{metric}  {' ' * bar}{loss}  ", "muted"),
            self._head("time left", "left", 11),
            ("  last incident", "muted"),
        ]
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
        epoch = f"{status.epoch or 0}/{status.epochs or '?'}"
        share = (status.epoch or 0) / status.epochs if status.epochs else 0.0
        bar, with_loss = self._room(width)
        filled, empty = meter(share, bar, self.glyphs)
        loss = sum(status.losses.values()) if status.losses else None
        left = duration(status.eta_s) if status.state in ACTIVE and status.eta_s is not None else ""
        told = status.incident
        incident = incident_text(told.incident) if told else ""
        if (status.place or (status.state == "starting" and status.hosts)) and not incident:
            incident = clean(status.text, 60)  # it waits: in the queue, or for hosts
        return fit(
            [
                (f"{self.glyphs.mark if status.path in self.marked else ' '} ", "accent"),
                (column(_name(status.path), self._name_cells), "strong"),
                (f" {status.state:<11}", STATE_INKS.get(status.state, "muted")),
                (f" {epoch:>9}", "text"),
                (f"{metric_text(status.metric, metric_cells(width))}  ", "text"),
                (filled, "accent"),
                (empty, "faint"),
                (f" {number(loss):>8}" if with_loss else "", "bad" if loss != loss else "text"),
                (f"  {left:>11}", "muted"),
                (f"  {incident}", "warn"),
            ],
            width,
        )


def metric_cells(width: int) -> int:
    """Return the cells for what a run is trained for; where there is room, with its best value."""
    return METRIC_AND_BEST if width >= WIDE else METRIC


def metric_text(metric: Metric | None, cells: int) -> str:
    """Return its newest value, and the best with its epoch where they fit."""
    if metric is None:
        return " " * cells
    best = f", best {metric.best:.3f} at {metric.best_epoch}" if cells > METRIC else ""
    return column(f"{metric.last:>{METRIC}.3f}{best}", cells)


def _name(path: Path) -> str:
    return clean("/".join(path.parts[-2:]), 200)
