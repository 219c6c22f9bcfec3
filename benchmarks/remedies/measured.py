"""What the records say of each cause and remedy: how many were cured, what of the mAP50 is left, the time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from statistics import fmean, median

from benchmarks.healthy.records import Record
from benchmarks.remedies.causes import CAUSES, GPU, Cause
from benchmarks.remedies.training import BACK, BF16, BREAK, CONTROL, FP32, LEAVE_OUT, REWIND, SKIP

LAST = 3
"""Epochs at the end whose mean counts: one validation of 32 images is noisy."""
ALIVE = 0.5
"""A share of the control's mAP50 below which a training that ended without an incident is not cured."""
STEPS = {
    SKIP: "", REWIND: "", BACK: "unchanged", "re-warm-up": "", "clip": "clip", "rate x0.5": "",
    "gentle-lr": "gentle-lr", BF16: "bf16", FP32: "fp32", "calmer augmentation": "calm-augmentation",
    LEAVE_OUT: "quarantine", "SGD": "", "rate x0.1": "", "plan A": "recover", "nan-safe": "nan-safe",
    "plan B": "restart",
}  # fmt: skip
"""The remedies in the order of what they change, least first, each as a step of the ladder ("": not one)."""


Trial = tuple[bool, float, float]
"""Whether it was cured, its share of the control's mAP50, and of the control's time from the break on."""


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
        for remedy in STEPS:
            tried = [one for one in (trial(found, seed, cause, remedy) for seed in seeds_of(found)) if one]
            if tried:
                table[cause.name, remedy] = summed(tried)
    return table


def summed(tried: Sequence[Trial]) -> Cell:
    """Return several trials as one cell."""
    cured = [one for one in tried if one[0]]
    times = [time for _, _, time in cured or tried if isfinite(time)]
    kept = median(kept for _, kept, _ in cured or tried)
    return Cell(len(tried), len(cured), kept, median(times) if times else nan)


def seeds_of(found: Mapping[str, Record]) -> list[int]:
    """Return the seeds that something is recorded of."""
    return sorted({int(one["seed"]) for one in found.values()})


def trial(found: Mapping[str, Record], seed: int, cause: Cause, remedy: str) -> Trial | None:
    """Return what came of a remedy with a seed, None where it does not apply or is not recorded."""
    control = found.get(f"{seed}/{cause.base}/{CONTROL}")
    broke, record = (found.get(f"{seed}/{cause.name}/{name}") for name in (BREAK, remedy))
    if control is None or broke is None or record is None:
        return None
    if not broke["signs"] or not record.get("applies", True):
        return None
    kept = final(record) / final(control)
    clock = "wall_s" if cause.part == GPU else "cpu_s"
    time = (record[clock] + record.get("rollback_s", 0.0)) / control[clock]
    if any(record["where"][name] != control["where"][name] for name in ("torch", "python", "device")):
        time = nan  # measured on another machine
    ended = record["outcome"] == "finished"
    return ended and not further(record) and kept >= ALIVE, kept, time


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
