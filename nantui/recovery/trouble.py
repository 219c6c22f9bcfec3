"""What went wrong in a run, as its files tell: the first sign of trouble, and a judgement on finite numbers.

A sign is something that is not finite and did harm. What was only warned of, undone, or judged from finite
numbers is none, nor is anything that a later attempt has left behind by beginning at or before it. A
judgement is never proof: it only adds a second proposal, and a person chooses. Only a `Ruin` is acted on
unattended. docs/recovery.md says what speaks for which.

The bounds come from healthy trainings whose results.csv lie in tests/recovery/data. The worst of them, SGD at
its default rate, had reached a metric of 0.25 and was then below half of that for 8 epochs, down to 0 in one;
before that, from 0.09, its validation losses were up to 2,000 times what had been usual, for 8 epochs again.
It ended with 0.34.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from statistics import median
from typing import NamedTuple, TypeAlias

from nantui.run import events
from nantui.run.events import of_kind
from nantui.run.incidents import ENDED, INCIDENTS, OBSERVED, SUSPICIONS, WARNED, as_incident
from nantui.run.journal import attempts_in_force, in_force
from nantui.run.record import RunRecord
from nantui.run.results import EpochRow, columns, practically_zero

HARMED = frozenset({OBSERVED, ENDED})
"""What an incident ends with where the weights may be harmed; a skipped step is undone."""
SAID = SUSPICIONS | {"saved_beyond_half", "unsound_save"}
"""What the guard says of finite numbers after which a person had better go back."""
NAN_VALIDATION = "nan_validation"
RESULTS = "results.csv"
ZERO, EXPLODED, LOST = "zero_loss", "val_loss_exploded", "metrics_lost"
HISTORY = 50
"""Earlier epochs that a new one is compared with."""
FACTOR = 300.0
"""Times the median of the earlier epochs that no validation loss of a healthy network is."""
LEARNT = 0.25
"""A best metric (mAP, accuracy) below this proves nothing: of a young network it comes and goes."""
FALLS = 0.05
"""A best metric below this halves by chance. A longer fall than `LASTING` needs no warning to be judged."""
WORKS = 0.001
"""A best metric below this is as good as none: nothing shows that such a network is sound."""
SHARE_LOST = 0.01
"""A metric at or below this share of the best is gone."""
LASTING = 10
"""So many validations that differ must speak for it, up to the newest."""
SETTLES = 5
"""Epochs in which a training settles after it has begun or resumed, or its rate or its images changed."""
RISES = 1.05
"""A learning rate this many times the one before has risen."""
FP32 = "fp32"
MARGIN = 10.0
"""Times the highest validation loss of the young network. By itself it proves nothing: a healthy training of
tests/recovery/data was at 460 times for a while, with metrics that had not gone."""
Place: TypeAlias = tuple[float, float]
"""Epoch and step, from 1; the end of an epoch is at step infinity."""
NEVER, NOWHERE = (math.inf, 0.0), (0.0, 0.0)


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
    rows, left = record.epochs, left_behind(record)
    acquitted = vouched_for(rows)
    signs = [*_incidents(record, left, acquitted), *_telemetry(record, left)]
    signs += _results(rows, acquitted)
    signs += [
        Trouble(epoch, None, "corrupt", f"a checkpoint of epoch {epoch} is corrupt", "weights/")
        for epoch in corrupt_epochs
    ]
    return min(signs, key=lambda sign: (sign.epoch, sign.step or math.inf), default=None)


def left_behind(record: RunRecord) -> dict[int, Place]:
    """Return for each attempt whose work the present weights may hold the epoch and step, from 1, from which
    on it was left behind, else infinity.

    A later attempt that began at or before a place went on from a checkpoint that holds nothing of it. Where
    the journal knows no attempt of that number (under `attach`), the clock tells whether it is younger than
    the last rollback, and an undo may have brought all of its work back.
    """
    known = {event.attempt for event in of_kind(record.journal, events.AttemptStarted)}
    kept = {one.id for one in of_kind(record.journal, events.Kept)}
    undone = any(one.of not in kept for one in of_kind(record.journal, events.UndoDone))
    unknown = {one.number: one.asked for one in record.attempts if one.number not in known}
    since = _since(record)
    younger = {number for number, asked in unknown.items() if asked is None or asked.created >= since}
    left, limit = {}, NEVER
    for number in sorted(attempts_in_force(record.journal) | younger, reverse=True):
        left[number] = NEVER if undone and number in younger else limit
        begun = record.attempt(number).steps.first
        limit = min(limit, (begun.epoch, begun.step)) if begun else limit
    return left


def _since(record: RunRecord) -> float:
    """Return when the last rollback or change of phase in force was begun, in s since the epoch, else 0."""
    return max((one.t for one in in_force(record.journal) if not isinstance(one, events.Kept)), default=0.0)


def _incidents(record: RunRecord, left: Mapping[int, Place], acquitted: set[int]) -> Iterator[Trouble]:
    standing, since = record.standing.number, _since(record)
    journaled = of_kind(record.journal, events.Incident)
    told = [(one.attempt, one) for one in journaled if one.attempt is not None or one.t >= since]
    for number in left:
        its = record.attempt(number)
        told += [
            (number, event) for rank in its.ranks for event in of_kind(its.events(rank), events.Incident)
        ]
    for attempt, event in told:
        limit = NEVER if attempt is None else left.get(attempt, NOWHERE)
        if event.epoch is None or not _harmed(event, attempt in (standing, None)):
            continue
        sound = event.incident == NAN_VALIDATION and event.epoch in acquitted
        if _place(event) < limit and not sound:
            yield Trouble(event.epoch, event.step, event.incident, event.text, "guard")


def _place(event: events.Incident) -> Place:
    return event.epoch or 0, event.step or math.inf


def _harmed(event: events.Incident, standing: bool) -> bool:
    """Tell whether an incident did harm; what ended another attempt was not saved, and is dealt with.

    One that is judged from finite numbers is a sign only where it ended the training.
    """
    ended = event.action == ENDED and standing
    return event.action in HARMED and (event.incident not in SUSPICIONS or ended)


def _telemetry(record: RunRecord, left: Mapping[int, Place]) -> Iterator[Trouble]:
    for number, limit in left.items():
        broken = record.attempt(number).steps.broken
        if broken is not None and (broken.epoch, broken.step) < limit:
            names = ", ".join(name for name, loss in broken.losses.items() if not math.isfinite(loss))
            text = f"{names} not finite at step {broken.step}"
            yield Trouble(broken.epoch, broken.step, "nan_loss", text, f"attempt {number}")


def _results(rows: Sequence[EpochRow], acquitted: set[int]) -> Iterator[Trouble]:
    for row in rows:
        bad = [] if row.finite else [name for name, value in row.values.items() if not math.isfinite(value)]
        if bad and row.epoch not in acquitted:
            kind = "nan_loss" if any(name.startswith("train/") for name in bad) else NAN_VALIDATION
            yield Trouble(row.epoch, None, kind, f"{', '.join(bad)} not finite", RESULTS)
            return


def vouched_for(rows: Sequence[EpochRow]) -> set[int]:
    """Return the epochs of which a validation that is not finite says nothing against the network.

    NaN in weights or BatchNorm's statistics leaves metrics of 0 and never goes away by itself. So metrics
    above 0 in the same epoch, or a finite validation later without a resume between, acquit it: what was not
    finite was the validation's own arithmetic (half precision, as a rule). One pass, from the end: a run may
    have a hundred thousand epochs.
    """
    found, heals, later = set[int](), False, None
    for row in reversed(rows):
        heals = later is not None and not resumed(row, later) and (later.finite or heals)
        bad = (name for name, value in row.values.items() if not math.isfinite(value))
        sound = row.finite or all(name.startswith("val/") for name in bad)
        if sound and (heals or quality(row) > 0):
            found.add(row.epoch)
        later = row
    return found


def overflows(record: RunRecord) -> tuple[int, ...]:
    """Return the epochs whose validation overflowed in half precision, in a network that works."""
    rows = record.epochs
    bad = {row.epoch for row in rows if not row.finite}
    if not bad or max(map(quality, rows)) < WORKS:
        return ()
    return tuple(sorted(bad & vouched_for(rows) - validated_in_fp32(record)))


def overflow_words(epochs: Sequence[int]) -> str:
    """Return which epochs those are as a person says it."""
    many = len(epochs) > 1
    which = f"epochs {epochs[0]} to {epochs[-1]}" if many else f"epoch {epochs[0]}"
    return f"the validation losses of {which} are not finite{f' ({len(epochs)} of them)' if many else ''}"


@dataclass(frozen=True)
class Judgement:
    """`epoch`, from 1: the first after the last good one, or in which the guard `said` so while it trained;
    `kind` as above or as the guard calls it; `text` has its numbers.
    """

    epoch: int
    kind: str
    text: str
    said: bool = False

    @property
    def in_words(self) -> str:
        """What it says, and that it is no proof."""
        return f"a judgement, no proof: {self.text} (from epoch {self.epoch} on)"

    @property
    def named(self) -> str:
        """What a proposal from before it is called."""
        return f"{'before the guard warned' if self.said else INCIDENTS[self.kind].before}; {self.in_words}"


class Seen(NamedTuple):
    """An epoch in brief: the sums of its losses (0.0 without any), the metric that decides about best.pt, and
    whether the training had `settled`.
    """

    epoch: int
    train: float
    val: float
    metric: float
    settled: bool


def judge_numbers(rows: Iterable[EpochRow], mosaic_closes: int = 0) -> Judgement | None:
    """Return where the network lost what it had learned, None where nothing says so.

    `rows` are one an epoch, in epoch order; `mosaic_closes` is the first epoch, from 1, without mosaic (0:
    none is). Rows without training losses (not Ultralytics') tell nothing, nor do those with NaN or infinity.
    """
    before, since = _course([row for row in rows if row.losses("train")], mosaic_closes)
    return next(_evidence(before, since), None) if before else None


def judge_warnings(record: RunRecord) -> Judgement | None:
    """Return what the guard first said of finite numbers in the work in force, from the epoch on in which it
    said so, or in which the metric had fallen already; None where an epoch since then has had at least half
    of the best metric so far: then nothing came of it.
    """
    seen = [as_incident(one) if isinstance(one, events.Warned) else one for one in record.journal]
    said = [one for one in of_kind(seen, events.Incident) if one.action == WARNED and one.incident in SAID]
    left, best, good = left_behind(record), 0.0, 1
    for row in record.epochs if said else ():
        best, losses = max(best, quality(row)), row.losses("train").values()
        dead = bool(losses) and not any(losses)  # the average may still change, it learns no more
        good = row.epoch if 0 < best <= 2 * quality(row) and not dead else good
    held = [one for one in said if one.attempt is not None and _place(one) < left.get(one.attempt, NOWHERE)]
    last = [one for one in held if (one.epoch or 0) >= good]
    if (first := min(last, key=lambda one: one.epoch or 0, default=None)) is None:
        return None
    epoch = first.epoch or 0
    fell = best >= FALLS and good + 1 < epoch <= good + LASTING
    since = f"; before that the metrics had fallen below half of the best, {best:.3g}" if fell else ""
    return Judgement(good + 1 if fell else epoch, first.incident, first.text + since, said=True)


def first_of(said: Judgement | None, seen: Judgement | None) -> Judgement | None:
    """Return the earlier judgement; what the guard `said` later speaks for what was `seen` before it."""
    if said is None or seen is None:
        return said or seen
    return replace(min(seen, said, key=lambda one: one.epoch), said=True)


def mosaic_closes(args: Mapping[str, object]) -> int:
    """Return the first epoch, from 1, without mosaic; 0 where it is not known or never closed."""
    epochs, last = args.get("epochs"), args.get("close_mosaic")
    return max(epochs - last + 1, 0) if isinstance(epochs, int) and isinstance(last, int) and last else 0


def _course(rows: Sequence[EpochRow], mosaic_closes: int) -> tuple[list[Seen], list[Seen]]:
    """Return the epochs up to the newest with at least half of the best metric so far, and those since; none
    of the first for a network that has learned nothing yet. In some a healthy training may stumble: in those
    where it begins or resumes, its rate rises or its images change, and just after.
    """
    begins = [rows[0].epoch] if rows else []
    for before, row in zip(rows, rows[1:], strict=False):
        rates = (before.values.get("lr/pg0", 0.0), row.values.get("lr/pg0", 0.0))
        begins += [row.epoch] if resumed(before, row) or rates[1] > rates[0] * RISES > 0 else []
    begins += [mosaic_closes] if mosaic_closes > 0 else []
    unsettled = {epoch + more for epoch in begins for more in range(SETTLES)}
    seen, best, good = list[Seen](), 0.0, 0
    for row in rows:
        if row.finite:
            train, val = (sum(row.losses(split).values()) for split in ("train", "val"))
            seen.append(Seen(row.epoch, train, val, quality(row), row.epoch not in unsettled))
            best = max(best, seen[-1].metric)
            if best >= LEARNT and seen[-1].metric >= best / 2:
                good = len(seen)
    return seen[:good], seen[good:]


def quality(row: EpochRow) -> float:
    """Return the metric that decides about best.pt, as far as results.csv has it; 0 without any.

    mAP50-95 of boxes, masks or keypoints, top-1 accuracy, else the mean of all metrics.
    """
    for deciding in ("metrics/mAP50-95", "metrics/accuracy_top1", "metrics/"):
        if found := columns(tuple(row.values), deciding):
            mean = sum(row.values[name] for name in found) / len(found)
            return mean if math.isfinite(mean) else 0.0
    return 0.0


def resumed(before: EpochRow, row: EpochRow) -> bool:
    """Tell whether the training was begun anew between two rows: its clock then starts from 0."""
    return row.seconds <= before.seconds or row.segment != before.segment


def _lasting(
    since: Sequence[Seen],
    speaks: Callable[[Seen], bool],
    differs: Callable[[Seen], object] = lambda one: (one.val, one.metric),
) -> Sequence[Seen]:
    """Return the epochs up to the newest that all speak, none where fewer than `LASTING` of them count.

    Only settled ones do, and of those that do not differ only the first: a training with few steps an epoch
    validates the same averaged network several times.
    """
    silent = [index for index, one in enumerate(since) if not speaks(one)]
    run = since[silent[-1] + 1 if silent else 0 :]
    return run if len({differs(one) for one in run if one.settled}) >= LASTING else ()


def _evidence(before: Sequence[Seen], since: Sequence[Seen]) -> Iterator[Judgement]:
    recent = before[-HISTORY:]
    usual_train, usual_val = _usual(one.train for one in recent), _usual(one.val for one in recent)
    best = max(one.metric for one in before)
    if run := _lasting(since, lambda one: practically_zero(one.train, usual_train), lambda one: one.epoch):
        text = f"all training losses are zero ({run[0].train:.3g} where {usual_train:.3g} was usual)"
        yield Judgement(since[0].epoch, ZERO, text)
    if run := _lasting(since, lambda one: one.val > FACTOR * usual_val):
        text = f"the validation losses are {run[0].val:.3g} where {usual_val:.3g} was usual"
        yield Judgement(since[0].epoch, EXPLODED, f"{text}, and did not come back")
    if run := _lasting(since, lambda one: one.val > 0 and one.metric <= SHARE_LOST * best):
        text = f"the metrics fell to {run[-1].metric:.3g} for good, the best before was {best:.3g}"
        yield Judgement(since[0].epoch, LOST, text)


def _usual(values: Iterable[float]) -> float:
    return median([value for value in values if 0 < value < math.inf] or [math.nan])


@dataclass(frozen=True)
class Ruin:
    """`epoch`, from 1, in which it began, `epochs` long up to the newest; losses are a validation's sums."""

    epoch: int
    epochs: int
    loss: float
    untrained: float
    metric: float
    best: float

    @property
    def text(self) -> str:
        """The evidence in one line."""
        return (
            f"worse than untrained since epoch {self.epoch} ({self.epochs} epochs, validated in fp32): "
            f"validation losses of at least {self.loss:.3g}, before it learned at most {self.untrained:.3g}; "
            f"metrics of at most {self.metric:.3g}, the best before was {self.best:.3g}"
        )


def proven_ruin(rows: Iterable[EpochRow], in_fp32: Collection[int], mosaic_closes: int = 0) -> Ruin | None:
    """Return the ruin that the rows (one an epoch, in epoch order) prove, None where they do not.

    `in_fp32` are the epochs, from 1, that were validated in fp32; `mosaic_closes` as in `judge_numbers`.
    """
    rows = [row for row in rows if in_fp32 and row.losses("train")]
    if not rows or rows[0].epoch != 1 or not rows[-1].finite:
        return None
    before, since = _course(rows, mosaic_closes)
    untrained = max((one.val for one in takewhile(lambda one: one.metric < LEARNT, before)), default=0.0)
    if untrained <= 0:
        return None
    best = max(one.metric for one in before)

    def ruined(one: Seen) -> bool:
        return one.epoch in in_fp32 and one.metric <= SHARE_LOST * best and one.val > MARGIN * untrained

    run = _lasting(since, ruined)
    if not run:
        return None
    loss, metric = min(one.val for one in run), max(one.metric for one in run)
    return Ruin(run[0].epoch, len(run), loss, untrained, metric, best)


def validated_in_fp32(record: RunRecord) -> frozenset[int]:
    """Return the epochs, from 1, whose newest validation is known to have been done in fp32.

    Ultralytics (8.4.190, `BaseValidator.__call__`) validates in half precision where the device is no CPU and
    `trainer.amp` is on, whatever kind of amp that is; the guard says from which epoch on it validates in
    fp32 instead, and from which on no more.
    """
    found: dict[int, bool] = {}
    for attempt in record.attempts:
        exact = by_guard = False
        for event in attempt.events():
            if isinstance(event, events.InEffect):
                on_cpu = str(event.values.get("device", "")).startswith("cpu")
                exact = on_cpu or event.values.get("amp") is False
            elif isinstance(event, events.ValidationPrecision) and event.epoch is not None:
                by_guard = event.precision == FP32
            elif isinstance(event, events.EpochEnded) and event.epoch is not None:
                found[event.epoch] = exact or by_guard
    return frozenset(epoch for epoch, exact in found.items() if exact)
