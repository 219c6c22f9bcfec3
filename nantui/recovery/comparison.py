"""Two runs, or two attempts of one run, side by side: settings, curves over the same epochs, cost.

An attempt is written RUN#N. What an attempt trained before a rollback trimmed results.csv is in that
rollback's copy, so nothing is lost for the comparison.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nantui.errors import UserError
from nantui.recovery.manifest import COPIES
from nantui.run.documents import JsonObject
from nantui.run.events import AttemptStarted, PhaseBegun, PhaseDone, RollbackDone
from nantui.run.record import AttemptRecord, RunRecord, read_run
from nantui.run.results import TIMED_EPOCHS, EpochRow, current, median_epoch_s, read_results
from nantui.run.telemetry import Step, read_steps
from nantui.settings.values import compare


@dataclass(frozen=True)
class Side:
    """One of the two: name, settings in effect, epochs, steps that its guard skipped (None: no guard)."""

    name: str
    settings: Mapping[str, object]
    rows: list[EpochRow]
    skipped: int | None

    @property
    def hours_per_epoch(self) -> float:
        """The median, NaN where nothing was timed."""
        return median_epoch_s(self.rows, last=TIMED_EPOCHS, from_the_start=True) / 3600


def read_side(text: str) -> Side:
    """Return the run or attempt that `text` names. Raises UserError when there is none."""
    place, mark, number = text.rpartition("#")
    if not mark or Path(text).exists():
        return run_side(text, read_run(Path(text)))
    record = read_run(Path(place))
    attempt = record.attempt(int(number)) if number.isdigit() else None
    if attempt is None or attempt.asked is None:
        known = ", ".join(f"#{one.number}" for one in record.attempts) or "none"
        raise UserError(f"{text}: no such attempt; this run has {known}")
    steps = read_steps(record.layout.steps(attempt.number))
    epochs = {step.epoch for step in steps}
    rows = [row for row in rows_of(record, attempt.number) if row.epoch in epochs]
    return Side(text, attempt_settings(attempt), rows, skipped_of(steps))


def run_side(name: str, record: RunRecord) -> Side:
    """Return a whole run: settings as asked, ours included, and the steps that all attempts skipped."""
    steps = [read_steps(record.layout.steps(one.number)) for one in record.attempts]
    settings = {**record.args, **(record.spec.ours if record.spec else {})}
    return Side(name, settings, record.epochs, sum(map(skipped_of, steps)) if steps else None)


def attempt_settings(attempt: AttemptRecord) -> dict[str, object]:
    """Return what an attempt was asked, and what its worker reported in effect, which has the last word."""
    asked, reported = attempt.asked, attempt.in_effect
    own = {**asked.train, **asked.ours, **asked.asked} if asked else {}
    return {**own, **(reported.values if reported else {})}


def rows_of(record: RunRecord, number: int) -> list[EpochRow]:
    """Return the rows that may be an attempt's, none where a later beginning has deleted results.csv."""
    path = results_of(record, number)
    later = [one.asked.mode for one in record.attempts if one.number > number and one.asked]
    gone = path == record.layout.results_csv and any(mode != "resume" for mode in later)
    return [] if gone else current(read_results(path))


def results_of(record: RunRecord, number: int) -> Path:
    """Return the results.csv that holds an attempt's epochs: the copy of the rollback right after it, what
    the change to the next phase put aside, or the run's own.
    """
    layout = record.layout
    started = seen = False
    aside: dict[str, str] = {}
    for event in record.journal:
        if isinstance(event, AttemptStarted):
            started = event.attempt == number
            seen = seen or started
        elif isinstance(event, PhaseBegun):
            aside[event.id] = event.aside
        elif isinstance(event, (RollbackDone, PhaseDone)) and (started or seen):
            id = event.id
            rollback = layout.backups / id / COPIES / "results.csv"
            copy = layout.run / aside[id] / "results.csv" if id in aside else rollback
            if (started or id in aside) and copy.is_file():
                return copy
    return layout.results_csv


def skipped_of(steps: Iterable[Step]) -> int:
    """Return how many steps the guard skipped."""
    return sum(step.skipped for step in steps)


def side_by_side(one: Side, other: Side) -> JsonObject:
    """Return the comparison as `nantui compare --json` prints it.

    `curves` holds, for every column both have, the values of both on the epochs both trained.
    """
    rows, others = ({row.epoch: row.values for row in side.rows} for side in (one, other))
    epochs = [epoch for epoch in rows if epoch in others]
    names = [dict.fromkeys(name for values in found.values() for name in values) for found in (rows, others)]
    curves = {
        name: {"a": _column(rows, name, epochs), "b": _column(others, name, epochs)}
        for name in names[0]
        if name in names[1]
    }
    differing = compare(one.settings, other.settings)
    return {
        "a": summary(one), "b": summary(other),
        "epochs": epochs, "curves": curves,
        "settings": [{"name": row.name, "a": row.now, "b": row.then} for row in differing],
    }  # fmt: skip


def _column(rows: Mapping[int, Mapping[str, float]], name: str, epochs: Iterable[int]) -> list[float]:
    return [rows[epoch].get(name, math.nan) for epoch in epochs]


def summary(side: Side) -> JsonObject:
    """Return best metrics, hours per epoch, epochs and skipped steps of one side."""
    metrics = {name for row in side.rows for name in row.values if name.startswith("metrics/")}
    best = {}
    for name in sorted(metrics):
        of = {row.epoch: row.values.get(name, math.nan) for row in side.rows}
        values = {epoch: value for epoch, value in of.items() if math.isfinite(value)}
        if values:
            epoch = max(values, key=lambda epoch: values[epoch])
            best[name] = {"value": values[epoch], "epoch": epoch}
    return {
        "name": side.name, "epochs": [row.epoch for row in side.rows], "best": best,
        "hours_per_epoch": side.hours_per_epoch, "skipped_steps": side.skipped,
    }  # fmt: skip
