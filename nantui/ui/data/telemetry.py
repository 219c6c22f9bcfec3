"""Per-step telemetry kept small: whatever a run's length, at most a few thousand points a column.

A point is kept for every `every` steps, the one farthest from the one before it, so that peaks survive;
when the store is full every second point goes. A very long file is opened by samples spread over it: the
curve is there at once, and it is said that it was sampled. Incidents come from the journal, which is whole.
"""

from __future__ import annotations

import math
import os
from collections import deque
from pathlib import Path

from nantui.run.files import open_regular
from nantui.run.lines import LineFollower
from nantui.run.steps import AFTER_LOSSES, BEFORE_LOSSES
from nantui.ui.data.snapshot import StepCurves

MOST_POINTS = 4096
WHOLE_BYTES = 4 << 20
SAMPLES = 256
SAMPLE_BYTES = 4096
TAIL_BYTES = 1 << 18
KEPT = ("grad_norm", "lr", "loss_scale", "step_s", "images_s", "mem_gb", "mem_peak_gb")


class StepStore:
    """Collects the steps of all attempts of a run."""

    def __init__(self) -> None:
        self.every = 1
        self.losses: tuple[str, ...] = ()
        self.last: dict[str, float] = {}
        self._xs: list[float] = []
        self._columns: dict[str, list[float]] = {}
        self._skipped: list[float] = []
        self._boundaries: list[float] = []
        self._pending: dict[str, float] = {}
        self._waiting = 0
        self._times: deque[tuple[float, float]] = deque(maxlen=64)

    def begin_attempt(self, header: list[str]) -> None:
        """Note that another attempt's steps follow; `header` names the columns."""
        self.losses = tuple(header[len(BEFORE_LOSSES) : len(header) - len(AFTER_LOSSES)])
        self._times.clear()
        if self._xs:
            self._boundaries.append(self._xs[-1])

    def add(self, cells: dict[str, str]) -> None:
        """Take one row. Rows that do not parse are left out."""
        try:
            epoch, step, steps = int(cells["epoch"]), int(cells["step"]), int(cells["steps"])
            t = float(cells["t"])
            row = {name: float(cells[name] or "nan") for name in (*self.losses, *KEPT) if name in cells}
        except (KeyError, ValueError):
            return
        x = float((epoch - 1) * steps + step)
        if cells.get("skipped") == "1":
            self._skipped.append(x)
        self._times.append((t, x))
        self.last = {**row, "epoch": epoch, "step": step, "steps": steps, "t": t}
        self._keep(x, row)

    def _keep(self, x: float, row: dict[str, float]) -> None:
        for name, value in row.items():
            waiting = self._pending.get(name, math.nan)
            if name not in self._pending or self._tells_more(name, value, waiting):
                self._pending[name] = value
        self._waiting += 1
        if self._waiting < self.every:
            return
        for name in row.keys() - self._columns.keys():
            self._columns[name] = [math.nan] * len(self._xs)
        self._xs.append(x)
        for name, column in self._columns.items():
            column.append(self._pending.get(name, math.nan))
        self._pending, self._waiting = {}, 0
        if len(self._xs) > MOST_POINTS:
            self._halve()

    def _tells_more(self, name: str, value: float, waiting: float) -> bool:
        """A non-finite value outlives others, then the one farther from the last kept point."""
        if not math.isfinite(waiting):
            return name == "grad_norm" and math.isnan(waiting)
        column = self._columns.get(name)
        before = column[-1] if column else waiting
        return not math.isfinite(value) or abs(value - before) > abs(waiting - before)

    def _halve(self) -> None:
        self._xs = self._xs[1::2]
        self._columns = {name: column[1::2] for name, column in self._columns.items()}
        self.every *= 2

    def curves(self) -> StepCurves:
        """Return what was collected, frozen."""
        order = _rising(self._xs)
        xs = tuple(self._xs[index] for index in order)
        columns = {
            name: (xs, tuple(column[index] for index in order)) for name, column in self._columns.items()
        }
        return StepCurves(
            columns,
            self.losses,
            tuple(self._skipped[-512:]),
            tuple(self._boundaries),
            self.every,
            dict(self.last),
            self._speed(),
        )

    def _speed(self) -> float | None:
        """Steps a second over the last rows of one epoch or more; None while it cannot be told."""
        if len(self._times) < 2:
            return None
        (t0, x0), (t1, x1) = self._times[0], self._times[-1]
        return (x1 - x0) / (t1 - t0) if t1 > t0 and x1 > x0 else None


def _rising(xs: list[float]) -> list[int]:
    """Return the indices of the points that still count, x rising:
    a repeated stretch replaces the older one.
    """
    kept: list[int] = []
    for index, x in enumerate(xs):
        while kept and xs[kept[-1]] >= x:
            kept.pop()
        kept.append(index)
    return kept


class StepReader:
    """Feeds the steps of one attempt into a store, a bounded amount a call."""

    def __init__(self, path: Path, store: StepStore) -> None:
        self.path = path
        self._store = store
        self._header: list[str] = []
        self._lines: LineFollower | None = None
        self.sampled = False

    @property
    def opened(self) -> bool:
        """Whether the file was there and its header whole."""
        return self._lines is not None

    def read(self, limit: int = 1 << 20) -> bool:
        """Read on; returns whether there was anything new."""
        if self._lines is None and not self._open():
            return False
        assert self._lines is not None
        new = self._lines.read(limit)
        return self._take(new.lines)

    def _open(self) -> bool:
        file = open_regular(self.path)
        if file is None:
            return False
        try:
            with file:
                size = os.fstat(file.fileno()).st_size
                first = file.readline(1 << 14)
                if not first.endswith(b"\n"):
                    return False
                self._header = first.decode("utf-8", "replace").strip().split(",")
                self._store.begin_attempt(self._header)
                if size > WHOLE_BYTES:
                    self._sample(file.fileno(), len(first), size)
        except OSError:
            return False
        self._lines = LineFollower(self.path, tail_bytes=TAIL_BYTES if size > WHOLE_BYTES else None)
        return True

    def _sample(self, descriptor: int, start: int, size: int) -> None:
        """Read whole lines at evenly spread places, in file order, up to where the tail begins."""
        self.sampled = True
        span = size - TAIL_BYTES - start
        for index in range(SAMPLES):
            data = os.pread(descriptor, SAMPLE_BYTES, start + span * index // SAMPLES)
            self._take(data.decode("utf-8", "replace").split("\n")[1:-1])

    def _take(self, lines: list[str]) -> bool:
        for line in lines:
            cells = line.split(",")
            if len(cells) == len(self._header) and cells[0] != "t":
                self._store.add(dict(zip(self._header, cells, strict=True)))
        return bool(lines)
