"""The first sign of trouble since the last rollback, and how far the training had come.

A sign is something that is not finite and did harm: an incident of the guard's, a loss in the telemetry of
the steps or in `results.csv` (all that a foreign run has), a checkpoint that is corrupt. What was only warned
of, undone, or judged from finite numbers is none (`nantui.recovery.collapse`), nor is anything that a later
attempt has left behind by beginning at or before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from nantui.recovery.collapse import quality, resumed
from nantui.recovery.undo import last_rollback
from nantui.run.attempts import read_attempt, read_events
from nantui.run.files import open_regular
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.results import EpochRow, current, epoch_seconds, read_results
from nantui.run.steps import AFTER_LOSSES, BEFORE_LOSSES, Step

HARMED = frozenset({"observed", "ended"})
"""What an incident ends with where the weights may be harmed; a skipped step is undone."""
FINITE = frozenset({"zero_loss", "loss_exploded", "scale_collapsed"})
"""Incidents that are judged from finite numbers: a sign only where they ended the training."""
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


@dataclass(frozen=True)
class Reached:
    """How far the training came: `completed` epochs and `part` of the next; `seconds` an epoch, or NaN."""

    completed: int
    part: float
    seconds: float

    @property
    def epoch(self) -> int:
        """The epoch, from 1, in which it stands or stood."""
        return self.completed + (1 if self.part > 0 else 0)


def first_sign(layout: RunLayout, corrupt_epochs: Iterable[int] = ()) -> Trouble | None:
    """Return the earliest sign of trouble since the last rollback, None when there is none.

    `corrupt_epochs` are the epochs, from 1, whose work corrupt checkpoints hold.
    """
    rollback = last_rollback(layout)
    since = float(rollback["t"]) if rollback else 0.0
    rows = current(read_results(layout.results_csv))
    numbers = attempts_since(layout, since)
    left = left_behind(layout, numbers)
    acquitted = {row.epoch for index, row in enumerate(rows) if vouched_for(rows, index)}
    signs = [*_incidents(layout, since, numbers, left, acquitted), *_telemetry(layout, left)]
    signs += _results(rows, acquitted)
    signs += [
        Trouble(epoch, None, "corrupt", f"a checkpoint of epoch {epoch} is corrupt", "weights/")
        for epoch in corrupt_epochs
    ]
    return min(signs, key=lambda sign: (sign.epoch, sign.step or math.inf), default=None)


def vouched_for(rows: Sequence[EpochRow], index: int) -> bool:
    """Tell whether a validation that is not finite says nothing against the network of that epoch.

    NaN in weights or BatchNorm's statistics leaves metrics of 0 and never goes away by itself. So metrics
    above 0 in the same epoch, or a finite validation later without a resume between, acquit it: what was not
    finite was the validation's own arithmetic (half precision, as a rule).
    """
    row = rows[index]
    if not all(math.isfinite(value) for name, value in row.values.items() if not name.startswith("val/")):
        return False
    if quality(row) > 0:
        return True
    for before, later in zip(rows[index:], rows[index + 1 :], strict=False):
        if resumed(before, later):
            return False
        if later.finite:
            return True
    return False


def overflowed(rows: Sequence[EpochRow]) -> tuple[int, ...]:
    """Return the epochs whose validation was not finite though the network was sound."""
    return tuple(row.epoch for index, row in enumerate(rows) if not row.finite and vouched_for(rows, index))


def overflow_words(epochs: Sequence[int]) -> str:
    """Return which epochs those are as a person says it."""
    many = len(epochs) > 1
    which = f"epochs {epochs[0]} to {epochs[-1]}" if many else f"epoch {epochs[0]}"
    return f"the validation losses of {which} are not finite{f' ({len(epochs)} of them)' if many else ''}"


def left_behind(layout: RunLayout, numbers: Sequence[int]) -> dict[int, float]:
    """Return for each attempt the epoch, from 1, from which on its work was left behind, else infinity.

    A later attempt that began at or before an epoch went on from a checkpoint that holds none of it; only an
    undo brings such work back.
    """
    undone = any(entry["kind"] == "undo_done" for entry in Journal(layout.journal).entries())
    left, limit = {}, math.inf
    for number in sorted(numbers, reverse=True):
        left[number] = math.inf if undone else limit
        begun = _first_step(layout, number)
        limit = min(limit, begun.epoch if begun else math.inf)
    return left


def how_far(layout: RunLayout) -> Reached:
    """Return how far the newest attempt (or the foreign run) came."""
    rows = current(read_results(layout.results_csv))
    completed = rows[-1].epoch if rows else 0
    step = _last_step(layout)
    running = step is not None and step.epoch == completed + 1
    part = step.step / max(step.steps, 1) if running and step is not None else 0.0
    return Reached(completed, part, seconds_per_epoch(read_results(layout.results_csv)))


def seconds_per_epoch(rows: list[EpochRow]) -> float:
    """Return the median time in s of the last ten epochs, NaN where nothing was measured."""
    spans = sorted(epoch_seconds(rows)[-10:])
    if spans:
        return spans[len(spans) // 2]
    firsts = [row.seconds for row in rows if row.seconds > 0]
    return firsts[0] if firsts else math.nan


def attempts_since(layout: RunLayout, since: float) -> list[int]:
    """Return the attempts that were begun after the time `since`."""
    numbers = ((number, read_attempt(layout, number)) for number in layout.attempt_numbers())
    return [number for number, attempt in numbers if attempt is not None and attempt.created >= since]


def _incidents(
    layout: RunLayout, since: float, numbers: Sequence[int], left: dict[int, float], acquitted: set[int]
) -> Iterator[Trouble]:
    events = [entry for entry in Journal(layout.journal).entries() if float(entry.get("t", 0)) >= since]
    for number in numbers:
        for rank in layout.ranks(number):
            events += [{**event, "attempt": number} for event in read_events(layout.events(number, rank))]
    newest = layout.newest_attempt()
    for event in events:
        epoch, step, kind = event.get("epoch"), event.get("step"), str(event.get("incident", ""))
        if event["kind"] != "incident" or not isinstance(epoch, int):
            continue
        attempt = event.get("attempt", newest)
        if not _harmed(kind, event.get("action"), attempt == newest):
            continue
        if epoch < left.get(attempt, math.inf) and not (kind == NAN_VALIDATION and epoch in acquitted):
            text = str(event.get("text", ""))
            yield Trouble(epoch, step if isinstance(step, int) else None, kind, text, "guard")


def _harmed(kind: str, action: object, newest: bool) -> bool:
    """Tell whether an incident did harm; what ended an earlier attempt was not saved, and is dealt with."""
    return action in HARMED and (kind not in FINITE or (action == "ended" and newest))


def _telemetry(layout: RunLayout, left: dict[int, float]) -> Iterator[Trouble]:
    for number, limit in left.items():
        bad, _ = scan_telemetry(layout, number)
        if bad is not None and bad.epoch < limit:
            names = ", ".join(name for name, loss in bad.losses.items() if not math.isfinite(loss))
            text = f"{names} not finite at step {bad.step}"
            yield Trouble(bad.epoch, bad.step, "nan_loss", text, f"attempt {number}")


def _results(rows: Sequence[EpochRow], acquitted: set[int]) -> Iterator[Trouble]:
    for row in rows:
        bad = [name for name, value in row.values.items() if not math.isfinite(value)]
        if bad and row.epoch not in acquitted:
            kind = "nan_loss" if any(name.startswith("train/") for name in bad) else NAN_VALIDATION
            yield Trouble(row.epoch, None, kind, f"{', '.join(bad)} not finite", RESULTS)
            return


def scan_telemetry(layout: RunLayout, attempt: int) -> tuple[Step | None, Step | None]:
    """Return the first step with a non-finite loss that was not skipped, and the last step.

    A long attempt has a million rows; only those that name a non-finite number are taken apart.
    """
    first_bad, newest, header = None, b"", b""
    file = open_regular(layout.steps(attempt))
    if file is None:
        return None, None
    with file:
        header = file.readline()
        for line in file:
            if not line.endswith(b"\n"):
                break
            newest = line
            if first_bad is None and (b"nan" in line or b"inf" in line):
                step = _parse(header, line)
                if step and not step.skipped and not all(map(math.isfinite, step.losses.values())):
                    first_bad = step
    return first_bad, _parse(header, newest)


def _parse(header: bytes, line: bytes) -> Step | None:
    names, cells = (part.decode("utf-8", "replace").strip().split(",") for part in (header, line))
    row = dict(zip(names, cells, strict=False))
    try:
        numbers = {name: float(cell) for name, cell in row.items() if cell and name != "reason"}
        losses = {name: n for name, n in numbers.items() if name not in (*BEFORE_LOSSES, *AFTER_LOSSES)}
        values = {name: n for name, n in numbers.items() if name in AFTER_LOSSES}
        epoch, step, steps = (int(row[name]) for name in ("epoch", "step", "steps"))
        return Step(numbers["t"], epoch, step, steps, row["skipped"] == "1", row["reason"], losses, values)
    except (KeyError, ValueError):
        return None


def _first_step(layout: RunLayout, attempt: int) -> Step | None:
    file = open_regular(layout.steps(attempt))
    if file is None:
        return None
    with file:
        return _parse(file.readline(), file.readline())


def _last_step(layout: RunLayout) -> Step | None:
    return scan_telemetry(layout, layout.newest_attempt())[1]
