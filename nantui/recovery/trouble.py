"""The first sign of trouble since the last rollback, and how far the training had come.

A sign is something that is not finite and did harm: an incident of the guard's, a loss in the telemetry of
the steps or in `results.csv` (all that a foreign run has), a checkpoint that is corrupt. What was only warned
of, undone, or judged from finite numbers is none (`nantui.recovery.trouble`), nor is anything that a later
attempt has left behind by beginning at or before it.

A judgement on finite numbers, as results.csv tells: where a network lost what it had learned.

It is never proof. It only adds a second proposal below the newest clean checkpoint, and a person chooses.
Three things speak: all training losses are zero, the validation losses are orders of magnitude beyond what
was usual, or the metrics are gone. Each counts only of a network that had learned something, and only where
it lasts to the newest epoch, over several validations that differ; an epoch with good metrics acquits
everything before it. Epochs in which healthy trainings stumble are no evidence: the first ones, warm-up, a
learning rate that rises, a resume, mosaic being closed.

The bounds come from healthy trainings whose results.csv lie in tests/recovery/data: from scratch, on few
small images, with SGD and AdamW. The worst of them, SGD at its default rate, had reached a metric of 0.25 and
was then below half of that for 8 epochs, down to 0 in one; before that, from 0.09, its validation losses were
up to 2,000 times what had been usual, for 8 epochs again. It ended with 0.34.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from nantui.recovery.undo import last_rollback
from nantui.run.atomic_files import open_regular
from nantui.run.attempts import read_attempt, read_events
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.results import EpochRow, current, epoch_seconds, practically_zero, read_results
from nantui.run.telemetry import AFTER_LOSSES, BEFORE_LOSSES, Step

ZERO, EXPLODED, LOST = "zero_loss", "val_loss_exploded", "metrics_lost"
HISTORY = 50
"""Earlier epochs that a new one is compared with."""
FACTOR = 300.0
"""Times the median of the earlier epochs that no validation loss of a healthy network is."""
LEARNT = 0.25
"""A best metric (mAP, accuracy) below this proves nothing: of a young network it comes and goes."""
SHARE_LOST = 0.01
"""A metric at or below this share of the best is gone."""
LASTING = 10
"""So many validations that differ must speak for it, up to the newest."""
SETTLES = 5
"""Epochs in which a training settles after it has begun or resumed, or its rate or its images changed."""
RISES = 1.05
"""A learning rate this many times the one before has risen."""
IN_WORDS = {
    ZERO: "before the training losses were zero",
    EXPLODED: "before the validation losses left their history",
    LOST: "before the metrics were lost",
}
HARMED = frozenset({"observed", "ended"})
"""What an incident ends with where the weights may be harmed; a skipped step is undone."""
FINITE = frozenset({"zero_loss", "loss_exploded", "scale_collapsed"})
"""Incidents that are judged from finite numbers: a sign only where they ended the training."""
NAN_VALIDATION = "nan_validation"
RESULTS = "results.csv"


@dataclass(frozen=True)
class Judgement:
    """`epoch`, from 1: the first after the last good one; `kind` as above; `text` has its numbers."""

    epoch: int
    kind: str
    text: str

    @property
    def as_judged(self) -> str:
        """What it says, and that it is no proof."""
        return f"a judgement, no proof: {self.text} (from epoch {self.epoch} on)"

    @property
    def named(self) -> str:
        """What a proposal from before it is called."""
        return f"{IN_WORDS[self.kind]}; {self.as_judged}"


@dataclass(frozen=True)
class Seen:
    """An epoch in brief: the sums of its losses (0.0 without any), the metric that decides about best.pt."""

    epoch: int
    train: float
    val: float
    metric: float


def judge_numbers(rows: Iterable[EpochRow], mosaic_closes: int = 0) -> Judgement | None:
    """Return where the network lost what it had learned, None where nothing says so.

    `rows` are one an epoch, in epoch order; `mosaic_closes` is the first epoch, from 1, without mosaic (0:
    none is). Rows without training losses (not Ultralytics') tell nothing, nor do those with NaN or infinity.
    """
    rows = [row for row in rows if row.losses("train")]
    unsettled = settling(rows, mosaic_closes)
    seen = [in_brief(row) for row in rows if row.finite]
    learnt = last_good(seen)
    if learnt is None:
        return None
    before, since = seen[: learnt + 1], seen[learnt + 1 :]
    return next(_evidence(before, since, unsettled), None)


def last_good(seen: Sequence[Seen]) -> int | None:
    """Return the index of the newest epoch with at least half of the best metric so far, None for a network
    that has learned nothing yet.
    """
    best, found = 0.0, None
    for index, one in enumerate(seen):
        best = max(best, one.metric)
        if best >= LEARNT and one.metric >= best / 2:
            found = index
    return found


def settling(rows: Sequence[EpochRow], mosaic_closes: int = 0) -> frozenset[int]:
    """Return the epochs in which a healthy training may stumble, and those just after."""
    begins = [rows[0].epoch] if rows else []
    begins += [row.epoch for before, row in zip(rows, rows[1:], strict=False) if _begins(before, row)]
    begins += [mosaic_closes] if mosaic_closes > 0 else []
    return frozenset(epoch + more for epoch in begins for more in range(SETTLES))


def in_brief(row: EpochRow) -> Seen:
    """Return what is compared of an epoch."""
    train, val = (sum(row.losses(split).values()) for split in ("train", "val"))
    return Seen(row.epoch, train, val, quality(row))


def quality(row: EpochRow) -> float:
    """Return the metric that decides about best.pt, as far as results.csv has it; 0 without any.

    mAP50-95 of boxes, masks or keypoints, top-1 accuracy, else the mean of all metrics.
    """
    metrics = {name: value for name, value in row.values.items() if name.startswith("metrics/")}
    for deciding in ("metrics/mAP50-95", "metrics/accuracy_top1", "metrics/"):
        found = [value for name, value in metrics.items() if name.startswith(deciding)]
        if found:
            mean = sum(found) / len(found)
            return mean if math.isfinite(mean) else 0.0
    return 0.0


def resumed(before: EpochRow, row: EpochRow) -> bool:
    """Tell whether the training was begun anew between two rows: its clock then starts from 0."""
    return row.seconds <= before.seconds or row.segment != before.segment


def lasting(
    since: Sequence[Seen], speaks: Callable[[Seen], bool], counts: Callable[[Seen], object]
) -> list[Seen]:
    """Return the epochs up to the newest that all speak, [] where fewer than `LASTING` of them count.

    `counts` gives what makes one count (None: it does not): of equal ones only the first does, for a training
    with few steps an epoch validates the same averaged network several times.
    """
    silent = [index for index, one in enumerate(since) if not speaks(one)]
    run = list(since[silent[-1] + 1 if silent else 0 :])
    return run if len({counts(one) for one in run} - {None}) >= LASTING else []


def _evidence(
    before: Sequence[Seen], since: Sequence[Seen], unsettled: frozenset[int]
) -> Iterator[Judgement]:
    """Yield what speaks for it, from the first epoch on that was no good any more."""
    recent = before[-HISTORY:]
    usual_train, usual_val = _usual(one.train for one in recent), _usual(one.val for one in recent)
    best = max(one.metric for one in before)

    def epoch(one: Seen) -> object:
        return None if one.epoch in unsettled else one.epoch

    def validation(one: Seen) -> object:
        return None if one.epoch in unsettled else (one.val, one.metric)

    if run := lasting(since, lambda one: practically_zero(one.train, usual_train), epoch):
        text = f"all training losses are zero ({run[0].train:.3g} where {usual_train:.3g} was usual)"
        yield Judgement(since[0].epoch, ZERO, text)
    if run := lasting(since, lambda one: one.val > FACTOR * usual_val, validation):
        text = f"the validation losses are {run[0].val:.3g} where {usual_val:.3g} was usual"
        yield Judgement(since[0].epoch, EXPLODED, f"{text}, and did not come back")
    if run := lasting(since, lambda one: one.val > 0 and one.metric <= SHARE_LOST * best, validation):
        text = f"the metrics fell to {run[-1].metric:.3g} for good, the best before was {best:.3g}"
        yield Judgement(since[0].epoch, LOST, text)


def _begins(before: EpochRow, row: EpochRow) -> bool:
    rates = (before.values.get("lr/pg0", 0.0), row.values.get("lr/pg0", 0.0))
    return resumed(before, row) or rates[1] > rates[0] * RISES > 0


def _usual(values: Iterable[float]) -> float:
    """Return the median level, NaN without any."""
    return median([value for value in values if 0 < value < math.inf] or [math.nan])


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


def first_trouble(layout: RunLayout, corrupt_epochs: Iterable[int] = ()) -> Trouble | None:
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
