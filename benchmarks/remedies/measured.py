"""What the records say of each cause and remedy: how many were cured, what of the mAP50 is left, the time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import fmean, median

from benchmarks.healthy.records import Record
from benchmarks.remedies.causes import CAUSES, GPU, Cause
from benchmarks.remedies.training import BREAK, CONTROL, REMEDIES, REWIND, SKIP

LAST = 3
"""Epochs at the end whose mean counts: one validation of 32 images is noisy."""
ALIVE = 0.5
"""A share of the control's mAP50 below which a training that ended without an incident is not cured."""
ORDER = (SKIP, REWIND, *REMEDIES)


@dataclass(frozen=True)
class Cell:
    """One cause and remedy: of `trials` so many `cured`; `kept` is the median share of the control's mAP50,
    `time` that of its time from the break to the end, both of the cured ones, or of all where none is.
    """

    trials: int
    cured: int
    kept: float
    time: float


def cells(found: Mapping[str, Record]) -> dict[tuple[str, str], Cell]:
    """Return the cell of each cause and remedy that was tried."""
    table = {}
    for cause in CAUSES:
        for remedy in ORDER:
            tried = [one for one in _trials(found, cause, remedy) if one is not None]
            if tried:
                cured = [one for one in tried if one[0]]
                of = cured or tried
                kept, time = (median(one[place] for one in of) for place in (1, 2))
                table[cause.name, remedy] = Cell(len(tried), len(cured), kept, time)
    return table


def _trials(found: Mapping[str, Record], cause: Cause, remedy: str) -> list[tuple[bool, float, float] | None]:
    """Return (cured, share of mAP50, share of time) of each seed, None where it did not apply."""
    trials: list[tuple[bool, float, float] | None] = []
    for record in found.values():
        if record["cause"] != cause.name or record["remedy"] != remedy or not record.get("applies", True):
            continue
        control = found.get(f"{record['seed']}/{cause.base}/{CONTROL}")
        broke = found.get(f"{record['seed']}/{cause.name}/{BREAK}")
        if control is None or broke is None or not broke["signs"]:
            continue
        kept = final(record) / final(control)
        clock = "wall_s" if cause.part == GPU else "cpu_s"
        time = (record[clock] + record.get("rollback_s", 0.0)) / control[clock]
        ended = record["outcome"] == "finished"
        trials.append((ended and not further(record) and kept >= ALIVE, kept, time))
    return trials


def final(record: Record) -> float:
    """Return the mAP50 of the last epochs, 0 where none was done."""
    values = [float(one) for one in record.get("map50", [])[-LAST:]]
    return fmean(values) if values else 0.0


def further(record: Record) -> list[Record]:
    """Return the incidents that a cure would have kept away: after a recovery all, else those after the first
    batch that was bad.
    """
    incidents = record["incidents"]
    if record["remedy"] in (SKIP, REWIND) and incidents:
        return [one for one in incidents if one[1:3] != incidents[0][1:3]]
    return list(incidents)
