"""The first sign of trouble since the last rollback.

A sign is something that is not finite and did harm: an incident of the guard's, a loss in the telemetry of
the steps or in `results.csv` (all that a foreign run has), a checkpoint that is corrupt. What was only warned
of, undone, or judged from finite numbers is none (`nantui.recovery.judgement`), nor is anything that a later
attempt has left behind by beginning at or before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from nantui.recovery.history import last_rollback
from nantui.recovery.judgement import quality, resumed
from nantui.run.events import Incident, Kept, UndoDone, of_kind
from nantui.run.incidents import ENDED, OBSERVED, SUSPICIONS
from nantui.run.record import RunRecord
from nantui.run.results import EpochRow

HARMED = frozenset({OBSERVED, ENDED})
"""What an incident ends with where the weights may be harmed; a skipped step is undone."""
NAN_VALIDATION = "nan_validation"
RESULTS = "results.csv"


@dataclass(frozen=True)
class Trouble:
    """The first sign: `epoch` and `step` from 1 (or None), `kind` as an incident's, `source` where seen."""

    epoch: int
    step: int | None
    kind: str
    text: str
    source: str

    @property
    def named(self) -> str:
        """Kind and epoch."""
        return f"{self.kind} in epoch {self.epoch}"


def first_trouble(record: RunRecord, corrupt_epochs: Iterable[int] = ()) -> Trouble | None:
    """Return the earliest sign of trouble since the last rollback, None when there is none.

    `corrupt_epochs` are the epochs, from 1, whose work corrupt checkpoints hold.
    """
    rollback, rows = last_rollback(record), record.epochs
    since = rollback.t if rollback else 0.0
    numbers = [one.number for one in record.attempts if one.asked is not None and one.asked.created >= since]
    left = left_behind(record, numbers)
    acquitted = {row.epoch for row, sound in zip(rows, vouched_for(rows), strict=True) if sound}
    signs = [*_incidents(record, since, numbers, left, acquitted), *_telemetry(record, left)]
    signs += _results(rows, acquitted)
    signs += [
        Trouble(epoch, None, "corrupt", f"a checkpoint of epoch {epoch} is corrupt", "weights/")
        for epoch in corrupt_epochs
    ]
    return min(signs, key=lambda sign: (sign.epoch, sign.step or math.inf), default=None)


def left_behind(record: RunRecord, numbers: Sequence[int]) -> dict[int, float]:
    """Return for each attempt the epoch, from 1, from which on its work was left behind, else infinity.

    A later attempt that began at or before an epoch went on from a checkpoint that holds none of it; only an
    undo of a rollback brings such work back.
    """
    kept = {one.id for one in of_kind(record.journal, Kept)}
    undone = any(one.of not in kept for one in of_kind(record.journal, UndoDone))
    left, limit = {}, math.inf
    for number in sorted(numbers, reverse=True):
        left[number] = math.inf if undone else limit
        begun = record.attempt(number).steps.first
        limit = min(limit, begun.epoch if begun else math.inf)
    return left


def _incidents(
    record: RunRecord, since: float, numbers: Sequence[int], left: dict[int, float], acquitted: set[int]
) -> Iterator[Trouble]:
    incidents = [event for event in of_kind(record.journal, Incident) if event.t >= since]
    for number in numbers:
        its = record.attempt(number)
        seen = (event for rank in its.ranks for event in of_kind(its.events(rank), Incident))
        incidents += [replace(event, attempt=number) for event in seen]
    newest = record.newest.number
    for event in incidents:
        attempt = newest if event.attempt is None else event.attempt
        if event.epoch is None or not _harmed(event, attempt == newest):
            continue
        sound = event.incident == NAN_VALIDATION and event.epoch in acquitted
        if event.epoch < left.get(attempt, math.inf) and not sound:
            yield Trouble(event.epoch, event.step, event.incident, event.text, "guard")


def _harmed(event: Incident, newest: bool) -> bool:
    """Tell whether an incident did harm; what ended an earlier attempt was not saved, and is dealt with.

    One that is judged from finite numbers is a sign only where it ended the training.
    """
    ended = event.action == ENDED and newest
    return event.action in HARMED and (event.incident not in SUSPICIONS or ended)


def _telemetry(record: RunRecord, left: dict[int, float]) -> Iterator[Trouble]:
    for number, limit in left.items():
        broken = record.attempt(number).steps.broken
        if broken is not None and broken.epoch < limit:
            names = ", ".join(name for name, loss in broken.losses.items() if not math.isfinite(loss))
            text = f"{names} not finite at step {broken.step}"
            yield Trouble(broken.epoch, broken.step, "nan_loss", text, f"attempt {number}")


def _results(rows: Sequence[EpochRow], acquitted: set[int]) -> Iterator[Trouble]:
    for row in rows:
        bad = [name for name, value in row.values.items() if not math.isfinite(value)]
        if bad and row.epoch not in acquitted:
            kind = "nan_loss" if any(name.startswith("train/") for name in bad) else NAN_VALIDATION
            yield Trouble(row.epoch, None, kind, f"{', '.join(bad)} not finite", RESULTS)
            return


def vouched_for(rows: Sequence[EpochRow]) -> list[bool]:
    """Tell of each epoch whether a validation that is not finite says nothing against its network.

    NaN in weights or BatchNorm's statistics leaves metrics of 0 and never goes away by itself. So metrics
    above 0 in the same epoch, or a finite validation later without a resume between, acquit it: what was not
    finite was the validation's own arithmetic (half precision, as a rule). One pass, from the end: a run may
    have a hundred thousand epochs.
    """
    found, heals, later = [], False, None
    for row in reversed(rows):
        heals = later is not None and not resumed(row, later) and (later.finite or heals)
        sound = all(math.isfinite(value) for name, value in row.values.items() if not name.startswith("val/"))
        found.append(sound and (quality(row) > 0 or heals))
        later = row
    return found[::-1]


def overflowed(rows: Sequence[EpochRow]) -> tuple[int, ...]:
    """Return the epochs whose validation was not finite though the network was sound."""
    return tuple(
        row.epoch for row, sound in zip(rows, vouched_for(rows), strict=True) if sound and not row.finite
    )


def overflow_words(epochs: Sequence[int]) -> str:
    """Return which epochs those are as a person says it."""
    many = len(epochs) > 1
    which = f"epochs {epochs[0]} to {epochs[-1]}" if many else f"epoch {epochs[0]}"
    return f"the validation losses of {which} are not finite{f' ({len(epochs)} of them)' if many else ''}"
