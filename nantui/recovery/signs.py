"""The first sign of trouble since the last rollback, and how far the training had come.

Looked for everywhere, since none tells everything: the guard's incidents, the telemetry of each step,
`results.csv` (all that a foreign run has, and where a training that dies with finite numbers shows first),
and checkpoints that are corrupt.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nantui.recovery.collapse import EXPLODED, LOST, ZERO, first_collapse
from nantui.recovery.undo import last_rollback
from nantui.run.attempts import read_attempt, read_events
from nantui.run.files import open_regular
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.results import EpochRow, current, epoch_seconds, read_results
from nantui.run.steps import AFTER_LOSSES, BEFORE_LOSSES, Step

UNHARMED = frozenset({"skipped"})
"""What an incident may end with without harm to the weights."""
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
        """Kind and epoch; with the evidence where that is a judgement on the history."""
        evidence = f": {self.text}" if self.kind in (ZERO, EXPLODED, LOST) and self.source == RESULTS else ""
        return f"{self.kind} in epoch {self.epoch}{evidence}"


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
    signs = [*_incidents(layout, since), *_telemetry(layout, since), *_results(layout)]
    signs += [
        Trouble(epoch, None, "corrupt", f"a checkpoint of epoch {epoch} is corrupt", "weights/")
        for epoch in corrupt_epochs
    ]
    return min(signs, key=lambda sign: (sign.epoch, sign.step or math.inf), default=None)


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


def _incidents(layout: RunLayout, since: float) -> Iterator[Trouble]:
    events = [entry for entry in Journal(layout.journal).entries() if float(entry.get("t", 0)) >= since]
    for number in attempts_since(layout, since):
        for rank in layout.ranks(number):
            events += read_events(layout.events(number, rank))
    for event in events:
        if event["kind"] != "incident" or event.get("action") in UNHARMED:
            continue
        epoch, step = event.get("epoch"), event.get("step")
        if isinstance(epoch, int):
            kind, text = str(event.get("incident", "")), str(event.get("text", ""))
            yield Trouble(epoch, step if isinstance(step, int) else None, kind, text, "guard")


def _telemetry(layout: RunLayout, since: float) -> Iterator[Trouble]:
    for number in attempts_since(layout, since):
        bad, _ = scan_telemetry(layout, number)
        if bad is not None:
            names = ", ".join(name for name, loss in bad.losses.items() if not math.isfinite(loss))
            text = f"{names} not finite at step {bad.step}"
            yield Trouble(bad.epoch, bad.step, "nan_loss", text, f"attempt {number}")


def _results(layout: RunLayout) -> Iterator[Trouble]:
    rows = current(read_results(layout.results_csv))
    if (dead := first_collapse(rows)) is not None:
        yield Trouble(dead.epoch, None, dead.kind, dead.text, RESULTS)
    for row in rows:
        bad = [name for name, value in row.values.items() if not math.isfinite(value)]
        if bad:
            kind = "nan_loss" if any(name.startswith("train/") for name in bad) else "nan_validation"
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


def _last_step(layout: RunLayout) -> Step | None:
    return scan_telemetry(layout, layout.newest_attempt())[1]
