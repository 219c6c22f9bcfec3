"""Which checkpoint to go back to: each one with its cost, and why the others are out.

The newest *clean* file is not enough: a file saved after the first sign of trouble may look clean and
already hold the damage. So a restore point is clean, can be resumed, and ends before that sign. What going
back to it costs are epochs, and hours by this run's own epoch times.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nantui.checkpoint.catalog import Catalog
from nantui.checkpoint.metadata import agrees
from nantui.checkpoint.verdict import Verdict
from nantui.errors import NO, UserError
from nantui.machine.gpus import uses_no_gpu
from nantui.recovery.trouble import Trouble
from nantui.run.layout import RunLayout
from nantui.run.record import Reached
from nantui.run.results import EpochRow
from nantui.settings.effective import number
from nantui.settings.lint import more_epochs

STOP_POINT, LAST, BEST = "nantui_stop.pt", "last.pt", "best.pt"
PREFERENCE = {STOP_POINT: 3, LAST: 2, BEST: 0}
"""Among files of one epoch: the stop point has trained on into the next, last.pt needs no second copy."""
FINISHED = "finished"
OWN_NAME = re.compile(r"(last|best|nantui_stop|epoch\d+)\.pt")
NOT_WRITTEN, LEFT_OVER = "no training writes a file of this name", "left over from an earlier training here"


@dataclass(frozen=True)
class Candidate:
    """A checkpoint as a restore point.

    `epoch` counts from 0 as in the file's name, `work` from 1 as people see it; `epochs_lost` are the
    epochs that must be trained again, wholly or in part; hours are NaN where no epoch was timed. A `stranger`
    is in weights/ and not of this training.
    """

    path: Path
    epoch: int | None
    verdict: Verdict
    usable: bool
    why_not: str
    epochs_lost: int = 0
    lost_text: str = ""
    hours_lost: float = math.nan
    hours_remaining: float = math.nan
    revive: bool = False
    stranger: bool = False

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    @property
    def work(self) -> int | None:
        """The last epoch, counted from 1, whose work it holds."""
        return None if self.epoch is None else self.epoch + 1

    @property
    def finished(self) -> bool:
        """Whether only the number of epochs keeps it from being the restore point."""
        return self.why_not.startswith(FINISHED)

    @property
    def fitness(self) -> float | None:
        """The fitness recorded in it."""
        return self.verdict.fitness

    def to_json(self) -> dict[str, object]:
        """Return what a table or a script shows of it."""
        return {
            "path": str(self.path), "name": self.name, "epoch": self.epoch, "work": self.work,
            "badge": self.verdict.badge, "usable": self.usable, "why_not": self.why_not,
            "fitness": self.fitness, "epochs_lost": self.epochs_lost, "lost": self.lost_text,
            "hours_lost": self.hours_lost, "hours_remaining": self.hours_remaining,
            "repair": self.verdict.repairable and not self.verdict.resumable, "revive": self.revive,
        }  # fmt: skip


@dataclass(frozen=True)
class RestoreCriteria:
    """What a file is judged by: the first sign of trouble, how far the run came, the number of epochs to
    train in all (0: not known), the directories that the run has called its own, and its `strangers`.
    """

    trouble: Trouble | None
    reached: Reached
    goal: int
    places: frozenset[str] = frozenset()
    strangers: Mapping[Path, str] = field(default_factory=dict)


def list_candidates(verdicts: Iterable[Verdict], criteria: RestoreCriteria) -> list[Candidate]:
    """Return every checkpoint of the run as a candidate, the best restore point first."""
    return sorted((candidate_of(verdict, criteria) for verdict in verdicts), key=rank, reverse=True)


def own_files(catalog: Catalog) -> list[Path]:
    """Return the checkpoints of the run itself; what lies in corrupted_backup/ is out of the question."""
    return [file.path for file in catalog.files() if not file.in_backup]


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


def rank(candidate: Candidate) -> tuple[bool, int, bool, int, str]:
    """Return the sort key: usable first, then the newest, then whole ones, then the preferred name."""
    epoch = -1 if candidate.epoch is None else candidate.epoch
    return candidate.usable, epoch, not candidate.revive, PREFERENCE.get(candidate.name, 1), candidate.name


def candidate_of(verdict: Verdict, criteria: RestoreCriteria) -> Candidate:
    """Return one file as a candidate."""
    completed = criteria.reached.completed
    revive = verdict.stripped and verdict.badge == "clean" and verdict.path.name == LAST and completed > 0
    epoch = completed - 1 if revive else verdict.epoch
    why_not = reason_against(verdict, epoch, revive, criteria)
    candidate = Candidate(verdict.path, epoch, verdict, not why_not, why_not, revive=revive)
    candidate = replace(candidate, stranger=verdict.path in criteria.strangers)
    return with_costs(candidate, criteria.reached, criteria.goal) if epoch is not None else candidate


def reason_against(verdict: Verdict, epoch: int | None, revive: bool, criteria: RestoreCriteria) -> str:
    """Return why the file cannot be the restore point, "" when it can."""
    trouble, place = criteria.trouble, verdict.train_args.get("save_dir")
    if verdict.path in criteria.strangers:
        return criteria.strangers[verdict.path]
    if verdict.badge == "unreadable" and (names := verdict.names_to_allow):
        return f"loading it runs code of {', '.join(names)}; allow it by name with --allow {' '.join(names)}"
    if verdict.badge == "busy":
        return "being written now"
    if verdict.badge != "clean":
        kinds = ", ".join(dict.fromkeys(finding.kind for finding in verdict.findings))
        return f"{verdict.badge}{f' ({kinds})' if kinds else ''}"
    if verdict.cannot_be_loaded or not (verdict.usable or revive or was_the_last(verdict)):
        return f"cannot be resumed: {verdict.why_not_resumable}"
    if epoch is None:
        return "does not say which epoch it holds"
    if place and criteria.places and str(place) not in criteria.places:
        return f"is from another run ({place})"
    if trouble is not None and holds_until(verdict.path, epoch) >= trouble.epoch:
        return f"saved after the first sign of trouble ({trouble.named})"
    if criteria.goal and epoch + 1 >= criteria.goal:
        return f"{FINISHED}: raise epochs, e.g. to {more_epochs(epoch + 1)}"
    return ""


def was_the_last(verdict: Verdict) -> bool:
    """Tell whether only its own number of epochs keeps a file from being resumed: more of them mend that."""
    epochs = verdict.train_args.get("epochs")
    return not verdict.stripped and verdict.epoch is not None and epochs == verdict.epoch + 1


def holds_until(path: Path, epoch: int) -> int:
    """Return the last epoch, from 1, with steps in the weights; an agreed stop is inside the next one."""
    return epoch + (2 if path.name == STOP_POINT else 1)


def with_costs(candidate: Candidate, reached: Reached, goal: int) -> Candidate:
    """Return the candidate with what going back to it costs."""
    work = candidate.work or 0
    done = max(reached.epoch, work)
    part = reached.part if done == reached.epoch and done > reached.completed else 0.0
    whole = max(reached.completed - work, 0)
    return replace(
        candidate,
        epochs_lost=done - work,
        lost_text=cost_text(work, reached, done),
        hours_lost=(whole + part) * reached.seconds / 3600,
        hours_remaining=max(goal - work, 0) * reached.seconds / 3600 if goal else math.nan,
    )


def cost_text(work: int, reached: Reached, done: int) -> str:
    """Return which epochs are lost as a person says it: "132, 133 and part of 134"."""
    whole = [str(epoch) for epoch in range(work + 1, reached.completed + 1)]
    if len(whole) > 3:
        whole = [f"{whole[0]} to {whole[-1]}"]
    parts = [*whole, *([f"part of {done}"] if done > reached.completed and done > work else [])]
    return " and ".join([", ".join(parts[:-1]), parts[-1]]) if len(parts) > 1 else "".join(parts) or "nothing"


def choose(candidates: Sequence[Candidate]) -> Candidate | None:
    """Return the restore point: the first that is usable, None when none is."""
    return next((candidate for candidate in candidates if candidate.usable), None)


def choose_before(candidates: Sequence[Candidate], epoch: int) -> Candidate | None:
    """Return the newest usable one that holds nothing of `epoch` (from 1), None without one."""
    return next((one for one in candidates if one.usable and ends_before(one, epoch)), None)


def ends_before(candidate: Candidate, epoch: int) -> bool:
    """Tell whether a checkpoint holds nothing of `epoch`, counted from 1."""
    return candidate.epoch is not None and holds_until(candidate.path, candidate.epoch) < epoch


def why_again(candidates: Iterable[Candidate]) -> str:
    """Return why a training begins again: because it was asked for, where it could go back or go on."""
    sound = any(one.usable or one.finished for one in candidates)
    return "a restart was asked for" if sound else "no clean checkpoint is left"


def pick(candidates: Iterable[Candidate], to: str, layout: RunLayout) -> Candidate:
    """Return the checkpoint that a person named. Raises UserError (NO) when it may not be the restore point.

    There is no way to force a corrupt one.
    """
    places = (layout.weights / to, layout.run / to, Path(to))
    place = next((place for place in places if place.exists()), Path(to))
    found = next((one for one in candidates if same_file(one.path, place)), None)
    if found is None and place.exists():
        raise UserError(f"{to}: not a checkpoint of this run ({layout.weights}); nothing was done", NO)
    if found is None:
        names = ", ".join(one.name for one in candidates if one.usable) or "none"
        raise UserError(f"{to}: no such checkpoint; usable: {names}", NO)
    if not found.usable:
        raise UserError(f"{found.name} cannot be the restore point: {found.why_not}", NO)
    return found


def same_file(one: Path, other: Path) -> bool:
    """Tell whether two paths lead to one file."""
    try:
        return one.samefile(other)
    except OSError:
        return False


def best_at(candidates: Iterable[Candidate], restore: Candidate) -> Candidate:
    """Return the clean file with the best recorded fitness at or before `restore`, the newest of equals.

    Without any recorded fitness (val=False) Ultralytics' best.pt is the newest file: then it is `restore`.
    """
    held = [one for one in candidates if _may_be_best(one, restore)]
    return max(held, key=lambda one: (one.fitness, one.epoch or 0, one.name == BEST), default=restore)


def _may_be_best(one: Candidate, restore: Candidate) -> bool:
    if one.stranger or one.verdict.badge != "clean" or one.fitness is None or not math.isfinite(one.fitness):
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


def costs_of(
    restore: Candidate | None, reached: Reached, now: Mapping[str, object], then: Mapping[str, object]
) -> Costs:
    """Return the costs from this run's own epoch times."""
    factor, seconds = time_factor(now, then), reached.seconds
    work = restore.work or 0 if restore else 0
    left = max(number(then.get("epochs")) - work, 0)
    remaining = left * seconds * factor / 3600
    if restore is None:
        done = reached.completed
        text = f"all {done} epochs" if done > 1 else "the only epoch" if done else "nothing"
        return Costs(done, text, done * seconds / 3600, remaining, seconds, factor)
    return Costs(restore.epochs_lost, restore.lost_text, restore.hours_lost, remaining, seconds, factor)


def time_factor(now: Mapping[str, object], then: Mapping[str, object]) -> float:
    """Return how much longer an epoch will take on a GPU: image area, and precision as measured there."""
    time_of = {False: 169.0, "fp32": 169.0, "bf16": 108.0}
    area = (number(then.get("imgsz")) / number(now.get("imgsz"))) ** 2
    precision = time_of.get(then.get("amp", True), 98.6) / time_of.get(now.get("amp", True), 98.6)
    return (area if math.isfinite(area) else 1.0) * (1.0 if uses_no_gpu(then.get("device")) else precision)
