"""results.csv as Ultralytics writes it, with what makes it awkward taken care of.

It is appended to, also after a rollback, so the same epoch can stand in it several times; the last
line may be half written; a NaN is a legal value. Read by segment: a new segment begins wherever the
epoch does not rise, and what a later segment repeats is superseded. When a loss is zero for all purposes
stands here, too: one rule for the guard, step by step, and for the epochs.
"""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Iterable, Sequence, Sized
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

from nantui.run.atomic_files import read_text
from nantui.run.growing_files import TAIL, cells_of, first_line, last_lines

RECENT_EPOCHS, TIMED_EPOCHS = 5, 10
"""So many tell what an epoch takes: while it trains, and for what a recovery costs."""
FEW_LINES = 8
"""Enough for the last epochs' times; parsing is what costs over hundreds of runs."""
MOST_EPOCHS = 10**6
"""No training has more: a larger number is nonsense, and whoever lists its epochs fills the memory."""
NOTHING = 1e-9  # zero whatever was usual: a resume knows no earlier level
SHARE, MOST = 1e-6, 1e-3  # of the usual level, and what is never called zero


DECIDING = ("mAP50-95", "accuracy_top1", "mIoU", "delta1")
"""What people train for: of boxes, masks or keypoints, classes, pixels, depth (utils/metrics.py)."""


@dataclass(frozen=True)
class Metric:
    """The metric that people train for: its newest value, the best so far and in which epoch that was."""

    name: str
    last: float
    best: float
    best_epoch: int

    @property
    def words(self) -> str:
        """`mAP50-95 0.392, best 0.410 at 18`."""
        return f"{self.name} {self.last:.3f}, best {self.best:.3f} at {self.best_epoch}"


@dataclass(frozen=True)
class EpochRow:
    """One epoch of one segment: `epoch` from 1, `seconds` since that start of training, all other columns."""

    epoch: int
    seconds: float
    values: dict[str, float]
    segment: int
    superseded: bool = False

    def losses(self, split: str) -> dict[str, float]:
        """Return the losses of `split` ("train" or "val") by bare name, e.g. `{"box_loss": 1.2}`."""
        prefix = f"{split}/"
        named = columns(tuple(self.values), prefix, "loss")
        return {name[len(prefix) :]: self.values[name] for name in named}

    @property
    def finite(self) -> bool:
        """False when any column of the epoch is NaN or infinite."""
        return all(map(math.isfinite, self.values.values()))


@lru_cache(maxsize=64)
def columns(names: tuple[str, ...], prefix: str, suffix: str = "") -> tuple[str, ...]:
    """Return the names that begin and end so: asked of each of up to a million rows, and always the same."""
    return tuple(name for name in names if name.startswith(prefix) and name.endswith(suffix))


class Results:
    """The epochs of a results.csv as it grows: feed it the file's whole lines in their order."""

    def __init__(self) -> None:
        self.rows: list[EpochRow] = []
        self._header: list[str] = []
        self._segment = 0

    def feed(self, lines: Iterable[str]) -> None:
        """Take more lines; one that makes no sense is left out."""
        for cells in cells_of(lines):
            if is_header(cells):
                self._header = columns_of(cells)
            elif (row := _parse_row(self._header, cells, self._segment)) is not None:
                self._add(row)

    def _add(self, row: EpochRow) -> None:
        """A row begins a new segment where its epoch does not rise, which supersedes what it repeats."""
        if self.rows and row.epoch <= self.rows[-1].epoch:
            self._segment += 1
            row = replace(row, segment=self._segment)
            self.rows = [
                replace(old, superseded=True) if old.epoch >= row.epoch else old for old in self.rows
            ]
        self.rows.append(row)


def columns_of(cells: Iterable[str]) -> list[str]:
    """Return the columns' names; Ultralytics pads them, a spreadsheet puts a byte-order mark before them."""
    return [cell.strip("\ufeff \t\r") for cell in cells]


def is_header(cells: Sequence[str]) -> bool:
    """Tell whether a line of results.csv names the columns."""
    return columns_of(cells[:1]) == ["epoch"]


def read_results(path: Path) -> list[EpochRow]:
    """Return the epochs in `path` in file order; a missing or torn file gives what is whole."""
    text = read_text(path) or ""
    results = Results()
    results.feed(text[: text.rfind("\n") + 1].splitlines())
    return results.rows


def last_epochs(path: Path) -> list[EpochRow]:
    """Return the epochs at the end of a results.csv, oldest first, at most those of its last segment."""
    results, header = Results(), first_line(path)
    results.feed([header, *last_lines(path, max(TAIL, FEW_LINES * len(header)))[-FEW_LINES:]])
    return [row for row in results.rows if row.segment == results.rows[-1].segment]


def read_metric(path: Path) -> Metric | None:
    """Return the deciding metric of the epochs in `path` that still count, None without a finite value.

    Only its column is read: of hundreds of runs it is asked after each epoch.
    """
    text = read_text(path) or ""
    name, column, width, values = "", 0, 0, dict[int, float]()
    for line in text[: text.rfind("\n") + 1].splitlines():
        cells = line.split(",")
        if is_header(cells):
            bare = [cell.strip().removeprefix("metrics/").partition("(")[0] for cell in cells]
            name = next((deciding for deciding in DECIDING if deciding in bare), "")
            column, width = bare.index(name) if name else 0, len(cells)
        elif column and len(cells) == width and (epoch := _epoch_of(line)) is not None:
            with contextlib.suppress(ValueError):
                value = float(cells[column])
                while values and next(reversed(values)) >= epoch:  # a rollback: these were trained again
                    values.popitem()
                values[epoch] = value
    known = {epoch: value for epoch, value in values.items() if math.isfinite(value)}
    if not known:
        return None
    best = max(known, key=lambda epoch: known[epoch])
    return Metric(name.removeprefix("accuracy_"), values[next(reversed(values))], known[best], best)


def current(rows: Iterable[EpochRow]) -> list[EpochRow]:
    """Return the rows that still count, one an epoch, in epoch order."""
    return sorted((row for row in rows if not row.superseded), key=lambda row: row.epoch)


def _parse_row(header: list[str], cells: list[str], segment: int) -> EpochRow | None:
    if not header or len(cells) != len(header):
        return None
    try:
        numbers = dict(zip(header, map(float, cells), strict=True))
        epoch, seconds = int(numbers.pop("epoch")), numbers.pop("time", math.nan)
    except (ValueError, KeyError, OverflowError):
        return None
    return EpochRow(epoch, seconds, numbers, segment) if abs(epoch) <= MOST_EPOCHS else None


def epoch_seconds(rows: Iterable[EpochRow]) -> list[float]:
    """Return how long each epoch took, from the differences of `time` inside a segment."""
    spans = (
        row.seconds - before.seconds
        for before, row in pairwise(rows)
        if before.segment == row.segment and row.epoch == before.epoch + 1
    )
    return [span for span in spans if math.isfinite(span) and span > 0]


def median_epoch_s(
    rows: Sequence[EpochRow], *, last: int = RECENT_EPOCHS, from_the_start: bool = False
) -> float:
    """Return what an epoch takes: the median of the `last` ones in s, NaN where none was timed.

    Only the difference between two neighbouring epochs of one segment is a time. `from_the_start` takes,
    where there is none yet, what passed until the run's first epoch was written, set-up included.
    """
    recent = epoch_seconds(rows)[-last:]
    if recent:
        return statistics.median(recent)
    return rows[0].seconds if from_the_start and rows and rows[0].epoch == 1 else math.nan


def practically_zero(loss: float, usual: float) -> bool:
    """Tell whether a sum of losses is zero for all purposes, where `usual` (NaN: not known) was its level.

    A dead network's loss need not be 0.0: a saturated sigmoid leaves 1e-17.
    """
    share = min(usual * SHARE, MOST) if math.isfinite(usual) else 0.0
    return abs(loss) <= max(share, NOTHING)


def can_be_learnt_to_zero(losses: Sized) -> bool:
    """Tell whether zero may mean that there is nothing left to learn; `losses` are all by name.

    A lone loss is a classifier's cross-entropy (`v8ClassificationLoss`, utils/loss.py), 0 for one that is
    right and sure. A detector's losses are several, and those of its boxes do not get there.
    """
    return len(losses) == 1


def trimmed(text: str, work: int) -> str:
    """Return `text` with one line an epoch up to epoch `work` (from 1), byte for byte as they were: what is
    trained again must not stand in it twice.

    Ultralytics appends, so after an earlier rollback an epoch can stand there several times: the last one
    counts, and what it superseded goes. A torn last line goes too.
    """
    lines = text.splitlines(keepends=True)
    head = [line for line in lines[:1] if is_header(line.split(","))]
    kept: list[tuple[int, str]] = []
    for line in lines[len(head) :]:
        epoch = _epoch_of(line)
        if epoch is None or not line.endswith("\n"):
            continue
        while kept and kept[-1][0] >= epoch:
            kept.pop()
        kept.append((epoch, line))
    return "".join([*head, *(line for epoch, line in kept if epoch <= work)])


def _epoch_of(line: str) -> int | None:
    try:
        epoch = int(float(line.split(",", 1)[0]))
    except (ValueError, OverflowError):
        return None
    return epoch if abs(epoch) <= MOST_EPOCHS else None
