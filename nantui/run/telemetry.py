"""Per-step telemetry as rank 0 wrote it: steps.csv, read a bounded chunk at a time or whole."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from nantui.run.atomic_files import open_regular
from nantui.run.growing_files import LineFollower, cells_of, first_line, last_lines

BEFORE_LOSSES = ("t", "epoch", "step", "steps", "skipped", "reason")
AFTER_LOSSES = (
    "grad_norm", "lr", "loss_scale", "step_s", "images_s", "mem_gb", "mem_peak_gb", "alloc_peak_gb",
    "instances", "imgsz", "data_s",
)  # fmt: skip
LONGEST_HEADER, LONGEST_COUNT = 1 << 14, 9
SAMPLES, SAMPLE_BYTES, TAIL_BYTES = 512, 768, 1 << 18
FEW_LINES = 8
"""Enough for the newest step; parsing is what costs over hundreds of runs."""
HEADER_BEGINS = b"t,"
"""Of a header line; one comes again where the losses have changed."""


@dataclass(frozen=True)
class Step:
    """One batch: `epoch` and `step` from 1, `losses` by Ultralytics' names, times in s, memory in GB.

    `values` has no entry for what was not measured: a batch without an optimizer step has no norm.
    """

    t: float
    epoch: int
    step: int
    steps: int
    skipped: bool
    reason: str
    losses: dict[str, float]
    values: dict[str, float] = field(default_factory=dict)

    def value(self, name: str) -> float:
        """Return one of the columns after the losses, NaN where it was not measured."""
        return self.values.get(name, math.nan)

    def memory_peak(self) -> tuple[float, bool]:
        """Return the peak of GPU memory so far in GiB, NaN where there is none, and whether it is what
        tensors filled: attempts of older versions have only what PyTorch reserved.
        """
        filled = self.value("alloc_peak_gb")
        return (self.value("mem_peak_gb"), False) if math.isnan(filled) else (filled, True)


def header(loss_names: tuple[str, ...]) -> list[str]:
    """Return the columns of steps.csv for a task with these losses."""
    return [*BEFORE_LOSSES, *loss_names, *AFTER_LOSSES]


class StepFollower:
    """Reads the steps appended to one attempt's steps.csv since the last call.

    A file that has more than `whole_bytes` when it is opened is read in places: samples spread over it, in
    file order, then its end, from which on no step is left out; `sampled` tells so.
    """

    def __init__(self, path: Path, *, whole_bytes: int | None = None) -> None:
        self.path, self.sampled = path, False
        self._whole_bytes = whole_bytes
        self._lines = LineFollower(path)
        self._columns: list[str] = []

    @property
    def opened(self) -> bool:
        """Whether the file was there and its header whole."""
        return bool(self._columns)

    def read(self, limit: int = 1 << 20) -> tuple[list[Step], bool]:
        """Return the new steps among `limit` bytes, and whether more is waiting."""
        samples = self._samples() if self._whole_bytes is not None and not self.opened else []
        new = self._lines.read(limit)
        steps, self._columns = parse_steps(new.lines, self._columns)
        return [*samples, *steps], new.more

    def read_all(self) -> list[Step]:
        """Return all whole steps that are new."""
        found, more = list[Step](), True
        while more:
            steps, more = self.read()
            found += steps
        return found

    def _samples(self) -> list[Step]:
        """Open a long file: take its samples and go on at its end; none of one that is short."""
        found: list[Step] = []
        file = open_regular(self.path)
        if file is None:
            return found
        with suppress(OSError), file:
            if (size := os.fstat(file.fileno()).st_size) <= (self._whole_bytes or 0):
                return found
            first = file.readline(LONGEST_HEADER)
            _, self._columns = parse_steps(_lines_of(first)[:-1], [])
            if not self.opened:
                return found
            self.sampled, self._lines = True, LineFollower(self.path, tail_bytes=TAIL_BYTES)
            for index in range(SAMPLES):
                place = len(first) + (size - TAIL_BYTES - len(first)) * index // SAMPLES
                lines = _lines_of(os.pread(file.fileno(), SAMPLE_BYTES, place))
                steps, self._columns = parse_steps(lines[1:-1], self._columns)
                found += steps
        return found


def read_steps(path: Path) -> list[Step]:
    """Return every whole step of a steps.csv, oldest first; of a long attempt these are a million."""
    return StepFollower(path).read_all()


def parse_steps(lines: list[str], columns: list[str]) -> tuple[list[Step], list[str]]:
    """Return the steps among `lines` of a steps.csv, and the columns in force after them.

    The one parser of its rows: a line with too few or too many cells, or with nonsense in one, is left out; a
    loss that was not written is NaN.
    """
    steps = []
    for cells in cells_of(lines):
        if cells and cells[0] == "t":
            columns = cells
        elif columns and len(cells) == len(columns):
            step = _step(dict(zip(columns, cells, strict=True)))
            if step is not None:
                steps.append(step)
    return steps, columns


def last_step(path: Path) -> Step | None:
    """Return the newest step of a steps.csv, None where there is none yet."""
    _, columns = parse_steps([first_line(path)], [])
    for line in reversed(last_lines(path)[-FEW_LINES:]):
        steps, _ = parse_steps([line], columns)
        if steps:
            return steps[-1]
    return None


@dataclass(frozen=True)
class StepsInBrief:
    """The first step of an attempt, the first with a non-finite loss that was not skipped, and the newest."""

    first: Step | None = None
    broken: Step | None = None
    newest: Step | None = None


def steps_in_brief(path: Path, undone: bool) -> StepsInBrief:
    """Return the telling steps of a steps.csv; `undone`: whether the guard took back what has a reason.

    A bad batch within an accumulation has no step to skip: its row has a reason, the step to come is skipped.
    A long attempt has a million rows; only those that name a non-finite number are taken apart.
    """
    file = open_regular(path)
    if file is None:
        return StepsInBrief()
    header, newest = b"", (b"", b"")
    first: Step | None = None
    broken: Step | None = None
    with file:
        for line in file:
            if not line.endswith(b"\n"):
                break
            if line.startswith(HEADER_BEGINS):
                header = line
                continue
            newest = (header, line)
            first = first or _one_step(header, line)
            if broken is None and (b"nan" in line or b"inf" in line):
                step = _one_step(header, line)
                harmed = step and not step.skipped and not (undone and step.reason)
                if step and harmed and not all(map(math.isfinite, step.losses.values())):
                    broken = step
    return StepsInBrief(first, broken, _one_step(*newest))


def _one_step(header: bytes, line: bytes) -> Step | None:
    steps, _ = parse_steps([part.decode("utf-8", "replace").strip() for part in (header, line)], [])
    return steps[0] if steps else None


def _step(cells: dict[str, str]) -> Step | None:
    try:
        t, epoch, step, steps, skipped, reason = (cells.pop(name) for name in BEFORE_LOSSES)
        if max(map(len, (epoch, step, steps))) > LONGEST_COUNT:
            return None
        values = {name: float(cell) for name in AFTER_LOSSES if (cell := cells.pop(name, ""))}
        losses = {name: float(cell) if cell else math.nan for name, cell in cells.items()}
        return Step(float(t), int(epoch), int(step), int(steps), skipped == "1", reason, losses, values)
    except (KeyError, ValueError):
        return None


def _lines_of(data: bytes) -> list[str]:
    return data.decode("utf-8", "replace").split("\n")
