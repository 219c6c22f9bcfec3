"""One reading of a run: what its files say, for everything that one operation asks of them.

Make one record for an operation (a plan, a diagnosis, a comparison, a command) and pass it around, instead of
reading the same files again at every turn. Each file is read when it is first asked for and never again. So
whoever has to see what was written meanwhile (after a stop, a wait, a step of a transaction) makes a new one.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from nantui.run.atomic_files import read_text
from nantui.run.attempts import Attempt, RankExit, rank_events, read_attempt, read_exits
from nantui.run.events import Created, Event, InEffect, newest
from nantui.run.journal import Journal, standing_attempt
from nantui.run.layout import RunLayout, require_run
from nantui.run.results import TIMED_EPOCHS, EpochRow, current, median_epoch_s, read_results
from nantui.run.spec import OURS_DEFAULTS, Spec, read_args, read_spec
from nantui.run.telemetry import StepsInBrief, steps_in_brief


def read_run(run: Path) -> RunRecord:
    """Return the record of the run in the directory `run`. Raises UserError where there is no run."""
    return RunRecord(require_run(Path(run)))


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

    @property
    def epochs_done(self) -> float:
        """How far it is: 2.25 after a quarter of the third epoch."""
        return self.completed + self.part


class AttemptRecord:
    """What the files of attempt `number` say, which need not be there."""

    def __init__(self, layout: RunLayout, number: int) -> None:
        self.layout = layout
        self.number = number
        self._events: dict[int, tuple[Event, ...]] = {}

    @cached_property
    def asked(self) -> Attempt | None:
        """What its worker was asked to do, None where that is not there or not readable."""
        return read_attempt(self.layout, self.number)

    @cached_property
    def exits(self) -> Sequence[RankExit]:
        """How its ranks ended, rank 0 first; ranks that were killed are missing."""
        return read_exits(self.layout, self.number)

    @cached_property
    def ranks(self) -> Sequence[int]:
        """The ranks that have written anything, smallest first."""
        return self.layout.ranks(self.number)

    @cached_property
    def steps(self) -> StepsInBrief:
        """The steps that tell how it began, broke and stands."""
        guard = {**OURS_DEFAULTS, **self.asked.ours}["guard"] if self.asked else None
        return steps_in_brief(self.layout.steps(self.number), undone=guard == "protect")

    def events(self, rank: int = 0) -> tuple[Event, ...]:
        """Return what one rank reported, oldest first."""
        if rank not in self._events:
            self._events[rank] = tuple(rank_events(self.layout.events(self.number, rank)))
        return self._events[rank]

    @property
    def all_events(self) -> list[Event]:
        """What all ranks reported, oldest first."""
        return sorted((event for rank in self.ranks for event in self.events(rank)), key=lambda one: one.t)

    @property
    def in_effect(self) -> InEffect | None:
        """The settings that rank 0 read back last, None where it got not that far."""
        return newest(self.events(), InEffect)


class RunRecord:
    """What the files of the run at `layout` say.

    `trusted` are the user ids whose spec may say which program is run, besides this user and root.
    """

    def __init__(self, layout: RunLayout, trusted: Collection[int] = ()) -> None:
        self.layout = layout
        self._trusted = frozenset(trusted)
        self._attempts: dict[int, AttemptRecord] = {}

    @property
    def run(self) -> Path:
        """The run's directory."""
        return self.layout.run

    @cached_property
    def journal(self) -> Sequence[Event]:
        """What was done to the run, oldest first."""
        return tuple(Journal(self.layout.journal).events())

    @cached_property
    def spec(self) -> Spec | None:
        """What to train, None without a file. Raises UserError when it makes no sense."""
        return read_spec(self.layout.spec, self._trusted)

    @cached_property
    def args(self) -> Mapping[str, object]:
        """Ultralytics' args.yaml, empty where it is missing or broken."""
        return read_args(self.layout.args_yaml)

    @cached_property
    def results(self) -> Sequence[EpochRow]:
        """The rows of results.csv in file order, superseded ones included."""
        return read_results(self.layout.results_csv)

    @property
    def results_unread(self) -> bool:
        """Whether results.csv, or every line of it, cannot be read: then it tells nothing, not even good."""
        text = "" if self.results else read_text(self.layout.results_csv)
        return os.path.lexists(self.layout.results_csv) if text is None else len(text.splitlines()) > 1

    @cached_property
    def epochs(self) -> list[EpochRow]:
        """The rows that count, one an epoch, in epoch order."""
        return current(self.results)

    @cached_property
    def reached(self) -> Reached:
        """How far the standing attempt (or the foreign run) came: what a checkpoint costs counts from it."""
        completed, step = self.epochs[-1].epoch if self.epochs else 0, self.standing.steps.newest
        if step is not None and not completed and self.layout.last.exists():
            completed = step.epoch - 1  # results.csv is lost
        running = step is not None and step.epoch == completed + 1
        part = step.step / max(step.steps, 1) if running and step is not None else 0.0
        return Reached(completed, part, median_epoch_s(self.results, last=TIMED_EPOCHS, from_the_start=True))

    @cached_property
    def attempts(self) -> Sequence[AttemptRecord]:
        """The attempts on disk, oldest first."""
        return tuple(self.attempt(number) for number in self.layout.attempt_numbers())

    @property
    def newest(self) -> AttemptRecord:
        """The newest attempt; number 0, of which no file says anything, where there is none."""
        return self.attempts[-1] if self.attempts else self.attempt(0)

    @property
    def standing(self) -> AttemptRecord:
        """The attempt whose work stands: after an undo that of before, else the newest."""
        return self.attempt(standing_attempt(self.journal, self.newest.number))

    def attempt(self, number: int) -> AttemptRecord:
        """Return the attempt `number`, also one that is not there."""
        return self._attempts.setdefault(number, AttemptRecord(self.layout, number))


def places_of(record: RunRecord) -> list[Path]:
    """Return where the training may have been started, best known first: a relative path in its settings
    means what it meant there.

    Plain Ultralytics writes down `data: ds/d.yaml` and not from where. The places are tried in one order, for
    every command and from whatever directory it is asked: what was written down of the process (nantui's own
    start, the script's command, a training that was stopped), the directories above `save_dir` in args.yaml,
    nearest first, then those above the run where it lies now.
    """
    created, spec = newest(record.journal, Created), record.spec
    told = [created.cwd if created else None, ((spec.exec if spec else None) or {}).get("cwd")]
    run = record.run.resolve()
    above = [*Path(str(record.args.get("save_dir") or run)).parents, *run.parents]
    found = dict.fromkeys([*(Path(place) for place in told if place), *above])
    return [place for place in found if place.is_absolute()]


def started_in(record: RunRecord, name: str) -> Path | None:
    """Return the directory from which the relative path `name` leads to something, None without one."""
    return next((place for place in places_of(record) if (place / name).exists()), None)


def is_relative(name: object) -> bool:
    """Tell whether it depends on a directory what a setting such as data means; a URL does not."""
    return bool(name) and "://" not in str(name) and not Path(str(name)).is_absolute()


def in_full(record: RunRecord, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with `data` by its full path, as it is where it is found nowhere."""
    data = settings.get("data")
    place = started_in(record, str(data)) if is_relative(data) else None
    return {**settings, "data": str(place / str(data))} if place else dict(settings)
