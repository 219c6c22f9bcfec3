"""Two runs, or two attempts of one run, side by side: settings, curves over the same epochs, cost.

An attempt is written RUN#N. What an attempt trained before a rollback trimmed results.csv is in that
rollback's copy, so nothing is lost for the comparison.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nantui.errors import UserError
from nantui.recovery.undo import COPIES
from nantui.run.documents import JsonObject
from nantui.run.events import AttemptStarted, PhaseBegun, PhaseDone, RollbackDone
from nantui.run.record import RunRecord, read_run
from nantui.run.results import TIMED_EPOCHS, EpochRow, current, median_epoch_s, read_results
from nantui.run.telemetry import read_steps
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
        return _run_side(text, read_run(Path(text)))
    record = read_run(Path(place))
    attempt = record.attempt(int(number)) if number.isdigit() else None
    if attempt is None or attempt.asked is None:
        known = ", ".join(f"#{one.number}" for one in record.attempts) or "none"
        raise UserError(f"{text}: no such attempt; this run has {known}")
    steps = read_steps(record.layout.steps(attempt.number))
    epochs, path = {step.epoch for step in steps}, results_of(record, attempt.number)
    later = [one.asked.mode for one in record.attempts if one.number > attempt.number and one.asked]
    gone = path == record.layout.results_csv and any(mode != "resume" for mode in later)  # begun anew since
    rows = [] if gone else [row for row in current(read_results(path)) if row.epoch in epochs]
    asked, reported = attempt.asked, attempt.in_effect
    settings = {**asked.train, **asked.ours, **asked.asked, **(reported.values if reported else {})}
    return Side(text, settings, rows, sum(step.skipped for step in steps))


def _run_side(name: str, record: RunRecord) -> Side:
    steps = [read_steps(record.layout.steps(one.number)) for one in record.attempts]
    settings = {**record.args, **(record.spec.ours if record.spec else {})}
    skipped = sum(step.skipped for its in steps for step in its) if steps else None
    return Side(name, settings, record.epochs, skipped)


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


def side_by_side(one: Side, other: Side) -> JsonObject:
    """Return the comparison as `nantui compare --json` prints it.

    `curves` holds, for every column both have, the values of both on the epochs both trained.
    """
    rows, others = ({row.epoch: row.values for row in side.rows} for side in (one, other))
    epochs = [epoch for epoch in rows if epoch in others]
    names = [dict.fromkeys(name for values in found.values() for name in values) for found in (rows, others)]
    curves = {
        name: {
            key: [found[epoch].get(name, math.nan) for epoch in epochs]
            for key, found in (("a", rows), ("b", others))
        }
        for name in names[0]
        if name in names[1]
    }
    differing = compare(one.settings, other.settings)
    return {
        "a": _summary(one), "b": _summary(other),
        "epochs": epochs, "curves": curves,
        "settings": [{"name": row.name, "a": row.now, "b": row.then} for row in differing],
    }  # fmt: skip


def _summary(side: Side) -> JsonObject:
    best: dict[str, JsonObject] = {}
    for row in side.rows:
        for name, value in row.values.items():
            better = name not in best or value > best[name]["value"]
            if name.startswith("metrics/") and math.isfinite(value) and better:
                best[name] = {"value": value, "epoch": row.epoch}
    return {
        "name": side.name, "epochs": [row.epoch for row in side.rows], "best": dict(sorted(best.items())),
        "hours_per_epoch": side.hours_per_epoch, "skipped_steps": side.skipped,
    }  # fmt: skip
