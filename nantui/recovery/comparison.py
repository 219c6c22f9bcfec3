"""Two runs, or two attempts of one run, side by side: settings, curves over the same epochs, cost.

An attempt is written RUN#N. What an attempt trained before a rollback trimmed results.csv is in that
rollback's copy, so nothing is lost for the comparison.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nantui.errors import UserError
from nantui.recovery.trouble import seconds_per_epoch
from nantui.recovery.undo import COPIES
from nantui.run.attempts import read_attempt, read_events
from nantui.run.discovery import require_run
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.results import EpochRow, current, read_results
from nantui.run.spec import read_args, read_spec
from nantui.run.telemetry import read_steps
from nantui.settings.values import compare


@dataclass(frozen=True)
class Side:
    """One of the two: name, settings in effect, epochs, steps that its guard skipped (None: no guard)."""

    name: str
    settings: Mapping[str, Any]
    rows: list[EpochRow]
    skipped: int | None

    @property
    def hours_per_epoch(self) -> float:
        """The median, NaN where nothing was timed."""
        return seconds_per_epoch(self.rows) / 3600


def read_side(text: str) -> Side:
    """Return the run or attempt that `text` names. Raises UserError when there is none."""
    place, mark, number = text.rpartition("#")
    if not mark or Path(text).exists():
        layout = require_run(Path(text))
        skipped = [count_skipped(layout, n) for n in layout.attempt_numbers()]
        return Side(
            text,
            run_settings(layout),
            current(read_results(layout.results_csv)),
            sum(skipped) if skipped else None,
        )
    layout = require_run(Path(place))
    attempt = read_attempt(layout, int(number)) if number.isdigit() else None
    if attempt is None:
        known = ", ".join(f"#{n}" for n in layout.attempt_numbers()) or "none"
        raise UserError(f"{text}: no such attempt; this run has {known}")
    rows = attempt_rows(layout, attempt.attempt)
    return Side(text, attempt_settings(layout, attempt.attempt), rows, count_skipped(layout, attempt.attempt))


def run_settings(layout: RunLayout) -> dict[str, Any]:
    """Return a run's settings, ours included."""
    spec = read_spec(layout.spec)
    return {**read_args(layout.args_yaml), **(spec.ours if spec else {})}


def attempt_settings(layout: RunLayout, number: int) -> dict[str, Any]:
    """Return what an attempt was asked, and what its worker reported in effect, which has the last word."""
    attempt = read_attempt(layout, number)
    asked = {**attempt.train, **attempt.ours, **attempt.asked} if attempt else {}
    reported = [event for event in read_events(layout.events(number, 0)) if event["kind"] == "in_effect"]
    return {**asked, **(reported[-1].get("values") or {} if reported else {})}


def attempt_rows(layout: RunLayout, number: int) -> list[EpochRow]:
    """Return the epochs that attempt `number` completed."""
    epochs = {step.epoch for step in read_steps(layout.steps(number))}
    rows = current(read_results(results_of(layout, number)))
    return [row for row in rows if row.epoch in epochs]


def results_of(layout: RunLayout, number: int) -> Path:
    """Return the results.csv that holds an attempt's epochs: the copy of the rollback right after it, what
    the change to the next phase put aside, or the run's own.
    """
    started = seen = False
    aside: dict[str, str] = {}
    for entry in Journal(layout.journal).entries():
        if entry["kind"] == "attempt_started":
            started = entry.get("attempt") == number
            seen = seen or started
        elif entry["kind"] == "phase_begun":
            aside[str(entry["id"])] = str(entry.get("aside"))
        elif entry["kind"] in ("rollback_done", "phase_done") and (started or seen):
            id = str(entry.get("id"))
            rollback = layout.backups / id / COPIES / "results.csv"
            copy = layout.run / aside[id] / "results.csv" if id in aside else rollback
            if (started or id in aside) and copy.is_file():
                return copy
    return layout.results_csv


def count_skipped(layout: RunLayout, number: int) -> int:
    """Return how many steps the guard skipped in an attempt."""
    return sum(step.skipped for step in read_steps(layout.steps(number)))


def side_by_side(one: Side, other: Side) -> dict[str, Any]:
    """Return the comparison as `nantui compare --json` prints it.

    `curves` holds, for every column both have, the values of both on the epochs both trained.
    """
    frames = [frame(side) for side in (one, other)]
    joined = frames[0].add_suffix("|a").join(frames[1].add_suffix("|b"), how="inner")
    columns = [name for name in frames[0].columns if name in frames[1].columns]
    curves = {name: {"a": list(joined[f"{name}|a"]), "b": list(joined[f"{name}|b"])} for name in columns}
    differing = compare(one.settings, other.settings)
    return {
        "a": summary(one), "b": summary(other),
        "epochs": [int(epoch) for epoch in joined.index], "curves": curves,
        "settings": [{"name": row.name, "a": row.now, "b": row.then} for row in differing],
    }  # fmt: skip


def frame(side: Side) -> Any:
    """Return a side's epochs as a DataFrame: index epoch (from 1), a column per metric."""
    import pandas

    rows = {row.epoch: row.values for row in side.rows}
    return pandas.DataFrame.from_dict(rows, orient="index").rename_axis("epoch")


def summary(side: Side) -> dict[str, Any]:
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
