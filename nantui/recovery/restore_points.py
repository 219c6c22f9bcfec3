"""Which checkpoint to go back to: each one with its cost, and why the others are out.

A file saved after the first sign of trouble may look clean and already hold the damage. So a restore point is
clean, can be resumed, and ends before that sign.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nantui.checkpoint.metadata import agrees
from nantui.checkpoint.scan import why_unsound
from nantui.checkpoint.verdict import Verdict
from nantui.errors import NO, UserError
from nantui.machine.gpus import uses_no_gpu
from nantui.recovery.trouble import Trouble
from nantui.run.layout import RunLayout
from nantui.run.points import StepPoint, in_words
from nantui.run.record import Reached
from nantui.run.results import EpochRow
from nantui.settings.lint import more_epochs
from nantui.settings.values import number
from nantui.words import count, span, which_epochs

STOP_POINT, LAST, BEST = "nantui_stop.pt", "last.pt", "best.pt"
PREFERENCE = {STOP_POINT: 3, LAST: 2, BEST: 0}
"""Among files of one epoch: the stop point has trained on into the next, last.pt needs no second copy."""
FINISHED = "finished"
OWN_NAME = re.compile(r"(last|best|nantui_stop|epoch\d+)\.pt")
NOTHING = "nothing"
NOT_WRITTEN, LEFT_OVER = "no training writes a file of this name", "left over from an earlier training here"
LEFT_BEHIND = "of a training that was left behind"
UNREAD = "stripped, and no epoch can be read in results.csv"


@dataclass(frozen=True)
class Candidate:
    """A checkpoint as a restore point.

    `epoch` counts from 0 as in the file's name, `work` from 1 as people see it; `epochs_lost` are the
    epochs that must be trained again, wholly or in part, `steps_lost` where these are steps of one epoch;
    hours are NaN where no epoch was timed. A `stranger` is in weights/ and not of this training. A step
    `point` is in the epoch after `epoch`, which is -1 in the first one.
    """

    path: Path
    epoch: int | None
    verdict: Verdict
    why_not: str = ""
    epochs_lost: int = 0
    lost_text: str = ""
    hours_lost: float = math.nan
    hours_remaining: float = math.nan
    revive: bool = False
    stranger: bool = False
    point: StepPoint | None = None
    steps_lost: int = 0

    @property
    def name(self) -> str:
        """The file's name, and a step point's place in the training."""
        return self.point.label if self.point else self.path.name

    @property
    def place(self) -> str:
        """Where it is inside the run, as journals name it."""
        return f"nantui/points/{self.name}" if self.point else f"weights/{self.name}"

    @property
    def words(self) -> str:
        """What it is for people; a step point says how old it is."""
        said = in_words(self.name, self.work)
        return f"{said}, {span((time.time() - self.point.t) / 3600)} ago" if self.point else said

    @property
    def work(self) -> int | None:
        """The last epoch, counted from 1, whose work it holds."""
        return None if self.epoch is None else self.epoch + 1

    @property
    def epochs_done(self) -> float:
        """How far it is: 2.25 after a quarter of the third epoch."""
        return self.point.epochs_done if self.point else self.work or 0

    @property
    def usable(self) -> bool:
        """Whether it may be the restore point."""
        return not self.why_not

    @property
    def finished(self) -> bool:
        """Whether only the number of epochs keeps it from being the restore point."""
        return self.why_not.startswith(FINISHED)

    @property
    def fitness(self) -> float | None:
        """The fitness recorded in it."""
        return self.verdict.fitness

    @property
    def rank(self) -> tuple[bool, int, bool, float, int, str]:
        """What the best one has most of: usable, the newest, whole, saved late inside the next epoch (by the
        file's age), and the preferred name.
        """
        epoch, saved = -2 if self.epoch is None else self.epoch, 0.0
        if self.goes_into_the_next:
            with contextlib.suppress(OSError):
                saved = self.path.stat().st_mtime
        return self.usable, epoch, not self.revive, saved, PREFERENCE.get(self.name, 1), self.name

    @property
    def goes_into_the_next(self) -> bool:
        """Whether it was saved inside the epoch after its own: a step point, and where a stop was agreed."""
        return self.point is not None or self.name == STOP_POINT

    def to_json(self) -> dict[str, object]:
        """Return what a table or a script shows of it."""
        return {
            "path": str(self.path), "name": self.name, "epoch": self.epoch, "work": self.work,
            "badge": self.verdict.badge, "usable": self.usable, "why_not": self.why_not,
            "fitness": self.verdict.fitness, "epochs_lost": self.epochs_lost, "lost": self.lost_text,
            "hours_lost": self.hours_lost, "hours_remaining": self.hours_remaining,
            "repair": self.verdict.repairable and not self.verdict.resumable, "revive": self.revive,
            "step_point": self.point is not None,
        }  # fmt: skip


@dataclass(frozen=True)
class RestoreCriteria:
    """What a file is judged by: the first sign of trouble, how far the run came, the number of epochs to
    train in all (0: not known), the directories that the run has called its own, its `strangers`, its
    step `points`, and whether it `trains`.
    """

    trouble: Trouble | None
    reached: Reached
    goal: int
    places: frozenset[str] = frozenset()
    strangers: Mapping[Path, str] = field(default_factory=dict)
    points: Mapping[Path, StepPoint] = field(default_factory=dict)
    trains: bool = False


def list_candidates(verdicts: Iterable[Verdict], criteria: RestoreCriteria) -> list[Candidate]:
    """Return every checkpoint of the run as a candidate, the best restore point first.

    While it trains, last.pt comes after the others of its epoch: it is another file before long.
    """

    def rank(one: Candidate) -> tuple[object, ...]:
        return *one.rank[:4], not (criteria.trains and one.name == LAST), *one.rank[4:]

    return sorted((_candidate(one, criteria) for one in verdicts), key=rank, reverse=True)


def find_strangers(verdicts: Sequence[Verdict], rows: Sequence[EpochRow]) -> dict[Path, str]:
    """Return which files in weights/ are not of the training that is in `rows` of results.csv, and why.

    A training into a used directory (`exist_ok`) leaves what it has not yet overwritten: such a file is older
    than one of an earlier epoch, and so is all before it where results.csv has begun anew; or its metrics are
    those of no row of its epoch. The metrics tell only where those of another file do agree, for results.csv
    may have been rounded by whatever it was opened with.
    """
    found = {one.path: NOT_WRITTEN for one in verdicts if not OWN_NAME.fullmatch(one.path.name)}
    own = [(one.epoch, one) for one in verdicts if one.path not in found and one.epoch is not None]
    left = [one for epoch, one in own if any(other < epoch and _later(it, one) for other, it in own)]
    if rows and next(row.epoch for row in rows if row.segment == rows[-1].segment) == 1:
        left += [one for _, one in own if any(_later(old, one) for old in left)]
    agreeing = {one.path: _in_a_row(one, rows) for _, one in own}
    if any(agreeing.values()):
        left += [one for _, one in own if agreeing[one.path] is False]
    return {**found, **{one.path: LEFT_OVER for one in left}}


def _in_a_row(verdict: Verdict, rows: Sequence[EpochRow]) -> bool | None:
    """Tell whether a row of the file's epoch has its metrics, None where nothing can be compared."""
    said = verdict.train_metrics
    own = [row.values for row in rows if row.epoch == verdict.work_epoch and row.values.keys() & said]
    told = [agrees(values, said) for values in own]
    return any(told) if told else None


def _later(one: Verdict, other: Verdict) -> bool:
    """Tell whether a file was saved after another by both clocks: its own date, and the file system's."""
    try:
        younger = one.path.stat().st_mtime > other.path.stat().st_mtime
    except OSError:
        return False
    return younger and bool(one.date and other.date) and str(one.date) > str(other.date)


def _candidate(verdict: Verdict, criteria: RestoreCriteria) -> Candidate:
    path, reached = verdict.path, criteria.reached
    revive = verdict.stripped and verdict.badge == "clean" and path.name == LAST and reached.completed > 0
    epoch = reached.completed - 1 if revive else verdict.epoch
    epoch = -1 if verdict.point and epoch is None else epoch
    stranger, point = path in criteria.strangers, criteria.points.get(path)
    one = Candidate(path, epoch, verdict, revive=revive, stranger=stranger, point=point)
    one = replace(one, why_not=reason_against(one, criteria))
    return replace(one, **_costs_of(one, reached, criteria.goal)) if epoch is not None else one


def reason_against(candidate: Candidate, criteria: RestoreCriteria) -> str:
    """Return why the file cannot be the restore point, "" when it can."""
    verdict, epoch, point, trouble = candidate.verdict, candidate.epoch, candidate.point, criteria.trouble
    place = verdict.train_args.get("save_dir")
    if verdict.path in criteria.strangers:
        return criteria.strangers[verdict.path]
    if verdict.badge == "unreadable" and (names := verdict.names_to_allow):
        return f"loading it runs code of {', '.join(names)}; allow it by name with --allow {' '.join(names)}"
    if verdict.badge == "busy":
        return "being written now"
    if verdict.badge != "clean":
        kinds = ", ".join(dict.fromkeys(finding.kind for finding in verdict.findings))
        return f"{verdict.badge}{f' ({kinds})' if kinds else ''}"
    if verdict.stripped and candidate.name == LAST and not criteria.reached.completed:
        return UNREAD
    if verdict.cannot_be_loaded or not (verdict.usable or candidate.revive or _was_the_last(verdict)):
        return f"cannot be resumed: {verdict.why_not_resumable}"
    if epoch is None:
        return "does not say which epoch it holds"
    if point is not None and epoch != point.epoch - 2:
        return "not the file that its header describes"
    if place and criteria.places and str(place) not in criteria.places:
        return f"is from another run ({place})"
    if trouble is not None and not ends_before(candidate, trouble.epoch, trouble.step):
        return f"saved after the first sign of trouble ({trouble.named})"
    if criteria.goal and epoch + 1 >= criteria.goal:
        return f"{FINISHED}: raise epochs, e.g. to {more_epochs(epoch + 1)}"
    return ""


def _was_the_last(verdict: Verdict) -> bool:
    """Tell whether only its own number of epochs keeps a file from being resumed: more of them mend that."""
    epochs = verdict.train_args.get("epochs")
    return not verdict.stripped and verdict.epoch is not None and epochs == verdict.epoch + 1


def _costs_of(candidate: Candidate, reached: Reached, goal: int) -> dict[str, Any]:
    point, work = candidate.point, candidate.work or 0
    done, hours = max(reached.epoch, work), reached.seconds / 3600
    remaining = max((goal or math.nan) - candidate.epochs_done, 0) * hours
    if candidate.name == STOP_POINT and candidate.verdict.point and done == work + 1:
        # it goes on where the training stopped
        return {"lost_text": NOTHING, "hours_lost": 0.0, "hours_remaining": remaining}
    steps, own = _steps_again(point, reached) if point else (0, "")
    later = _epochs_again(point.epoch if point else work, reached, done)
    more = later != NOTHING
    return {
        "epochs_lost": done - work if more else 0, "steps_lost": 0 if more else steps,
        "lost_text": f"{own} and {which_epochs(later)}" if own and more else own or later,
        "hours_lost": max(reached.epochs_done - candidate.epochs_done, 0) * hours,
        "hours_remaining": remaining,
    }  # fmt: skip


def _steps_again(point: StepPoint, reached: Reached) -> tuple[int, str]:
    until = point.batches if reached.completed >= point.epoch else point.batch
    if reached.epoch == point.epoch > reached.completed:
        until = round(reached.part * point.batches)
    steps, first = max(until - point.batch, 0), point.batch + 1
    which = f"step {first:,}" if steps == 1 else f"steps {first:,} to {until:,}"
    return steps, f"{which} of epoch {point.epoch}" if steps else ""


def _epochs_again(work: int, reached: Reached, done: int) -> str:
    """Return which epochs are lost as a person says it: "132, 133 and part of 134"."""
    whole = [str(epoch) for epoch in range(work + 1, reached.completed + 1)]
    if len(whole) > 3:
        whole = [f"{whole[0]} to {whole[-1]}"]
    parts = [*whole, *([f"part of {done}"] if done > reached.completed and done > work else [])]
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts) or NOTHING


def choose(candidates: Sequence[Candidate], before: int | None = None) -> Candidate | None:
    """Return the first that is usable and holds nothing of the epoch `before` (from 1), None without one."""
    usable = (one for one in candidates if one.usable)
    return next((one for one in usable if before is None or ends_before(one, before)), None)


def ends_before(candidate: Candidate, epoch: int, step: int | None = None) -> bool:
    """Tell whether a checkpoint holds nothing of `epoch`, or, where a `step` is given, nothing from there on.

    Both count from 1. An agreed stop is inside the epoch after its own, and does not say where.
    """
    point = candidate.point
    if point is not None and step is not None and point.epoch == epoch:
        return point.batch < step
    return candidate.epoch is not None and candidate.epoch + 1 + candidate.goes_into_the_next < epoch


def why_again(candidates: Sequence[Candidate]) -> str:
    """Return why a training begins again: because it was asked for, where it could go back or go on."""
    if any(one.usable or one.finished for one in candidates):
        return "a restart was asked for"
    unread = any(one.why_not == UNREAD for one in candidates)
    return f"{LAST} is clean, but {UNREAD}" if unread else "no clean checkpoint is left"


def pick(candidates: Sequence[Candidate], to: str, layout: RunLayout) -> Candidate:
    """Return the checkpoint that a person named. Raises UserError (NO) when it may not be the restore point.

    There is no way to force a corrupt one.
    """
    places = (layout.weights / to, layout.run / to, Path(to))
    place = next((one.resolve() for one in places if one.exists()), None)
    label = re.sub(r"[\s,-]", "", to)  # a step point's, also as it is on the screen: "epoch 134 step 1,240"
    for one in candidates:
        if one.path.resolve() == place or one.name.replace("-", "") == label:
            if not one.usable:
                raise UserError(f"{one.name} cannot be the restore point: {one.why_not}", NO)
            return one
    if place is not None:
        raise UserError(f"{to}: not a checkpoint of this run ({layout.weights}); nothing was done", NO)
    names = ", ".join(one.name for one in candidates if one.usable) or "none"
    raise UserError(f"{to}: no such checkpoint; usable: {names}", NO)


def point_to_resume(run: Path, candidates: Sequence[Candidate]) -> tuple[StepPoint | None, tuple[str, ...]]:
    """Return the newest good point that is further than every other usable checkpoint, None without one.

    And in words which ones were further and are not good. Reads all of them.
    """
    best = next((one for one in candidates if one.usable and one.point is None), None)
    left_out: list[str] = []
    for one in sorted(candidates, key=lambda one: one.rank[1:], reverse=True):
        if one is best or (best and best.revive):
            break
        if one.point is not None and one.why_not != LEFT_BEHIND:
            why = one.why_not or why_unsound(RunLayout(run), one.point)
            if not why:
                return one.point, tuple(left_out)
            left_out.append(f"the step point of {one.words} is left out: {why}")
    return None, tuple(left_out)


def best_at(candidates: Sequence[Candidate], restore: Candidate) -> Candidate | None:
    """Return the clean file with the best recorded fitness at or before `restore`, the newest of equals.

    Without any recorded fitness (val=False) Ultralytics' best.pt is the newest file: then it is `restore`,
    or the newest of whole epochs before a step point. None where no epoch is done.
    """
    held = [one for one in candidates if _may_be_best(one, restore)]
    known = [one for one in held if one.fitness is not None and math.isfinite(one.fitness)]
    if known:
        return max(known, key=lambda one: (one.fitness, one.epoch or 0, one.name == BEST))
    newest = next((one for one in held if one.usable), None) if restore.point else restore
    return newest if restore.work else None


def _may_be_best(one: Candidate, restore: Candidate) -> bool:
    if one.stranger or one.point is not None or one.verdict.badge != "clean":
        return False
    if one.epoch is None:
        return restore.revive and one.name == BEST
    return one.name != STOP_POINT and restore.epoch is not None and one.epoch <= restore.epoch


@dataclass(frozen=True)
class Costs:
    """What it costs; hours are NaN where no epoch was timed, `factor` is an epoch's time then over now."""

    epochs_lost: int
    lost_text: str
    hours_lost: float
    hours_remaining: float
    seconds_per_epoch: float
    factor: float = 1.0

    @property
    def again(self) -> str:
        """What must be trained again, "" where nothing is lost."""
        if self.lost_text == NOTHING:
            return ""
        which = which_epochs(self.lost_text)
        epochs = f"{count(self.epochs_lost, 'epoch')} to train again ({which})"
        return epochs if self.epochs_lost else f"{which} to train again"


def costs_of(
    restore: Candidate | None, reached: Reached, now: Mapping[str, object], then: Mapping[str, object]
) -> Costs:
    """Return the costs from this run's own epoch times."""
    factor, seconds = _time_factor(now, then), reached.seconds
    left = max(number(then.get("epochs")) - (restore.epochs_done if restore else 0), 0)
    remaining = left * seconds * factor / 3600
    if restore is None:
        done = reached.completed
        text = f"all {done} epochs" if done > 1 else "the only epoch" if done else NOTHING
        return Costs(done, text, done * seconds / 3600, remaining, seconds, factor)
    return Costs(restore.epochs_lost, restore.lost_text, restore.hours_lost, remaining, seconds, factor)


def _time_factor(now: Mapping[str, object], then: Mapping[str, object]) -> float:
    """Return how much longer an epoch will take on a GPU: image area, and precision as measured there."""
    time_of = {False: 169.0, "fp32": 169.0, "bf16": 108.0}
    area = (number(then.get("imgsz")) / number(now.get("imgsz"))) ** 2
    precision = time_of.get(then.get("amp", True), 98.6) / time_of.get(now.get("amp", True), 98.6)
    return (area if math.isfinite(area) else 1.0) * (1.0 if uses_no_gpu(then.get("device")) else precision)
