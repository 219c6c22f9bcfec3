"""Reads a run again and again, and only what has changed: of logs and steps a bounded amount each time."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Generic, TypeVar

from nantui.errors import UserError
from nantui.run.events import Activity, AttemptStarted, Event, Warned, newest, of_kind, parse_lines
from nantui.run.growing_files import LineFollower
from nantui.run.incidents import EARLY_WARNINGS
from nantui.run.journal import pending_edits
from nantui.run.layout import RunLayout
from nantui.run.plan import standings
from nantui.run.points import StepPoint, step_points
from nantui.run.record import RunRecord
from nantui.run.spec import read_spec
from nantui.run.status import RunStatus
from nantui.run.telemetry import StepFollower
from nantui.ui.model.command_progress import reported_values
from nantui.ui.model.epochs import read_epochs
from nantui.ui.model.run_charts import epoch_charts, step_charts, step_extras, thinned
from nantui.ui.model.snapshot import Checkpoint, Kept, RunSnapshot, StepCurves
from nantui.ui.model.step_store import WHOLE_BYTES, StepStore
from nantui.ui.model.timeline import sentences

T = TypeVar("T")
CURVES_EVERY_S = 1.5
EVENT_BYTES, MOST_EVENTS = 4 << 20, 4000
LOG_TAIL_BYTES, LOG_TAIL_LINES = 1 << 15, 60


class Newest(Generic[T]):
    """The `most` newest things that the lines of a growing file say, oldest first; `parse` reads lines."""

    def __init__(self, path: Path, parse: Callable[[list[str]], list[T]], tail_bytes: int, most: int) -> None:
        self.path, self._parse, self._most = path, parse, most
        self._lines = LineFollower(path, tail_bytes=tail_bytes)
        self._known: tuple[T, ...] = ()

    def read(self) -> tuple[T, ...]:
        """Return them all, the very same tuple while there is none more."""
        new = self._lines.read()
        found = self._parse(new.lines)
        if found or new.restarted:
            self._known = (*(() if new.restarted else self._known), *found)[-self._most :]
        return self._known


def events_of(path: Path) -> Newest[Event]:
    """Return a reader of a journal, or of a rank's events."""
    return Newest(path, parse_lines, EVENT_BYTES, MOST_EVENTS)


def last_written(lines: list[str]) -> list[str]:
    """Return what is left of lines of output that a progress bar has written over."""
    return [line.rstrip("\r").rpartition("\r")[2] for line in lines]


class RunReader:
    """Takes snapshots of one run. Used by one thread only."""

    def __init__(
        self, run: Path, status: Callable[[Path], RunStatus], clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self.layout = RunLayout(run)
        self._status = status
        self._journal = events_of(self.layout.journal)
        self._events: dict[tuple[int, int], Newest[Event]] = {}
        self._store = StepStore()
        self._log: Newest[str] | None = None
        self._steps: dict[int, StepFollower] = {}
        self._curves, self._curves_made = StepCurves(), 0.0
        self._looks, self._steps_waiting = 0, False
        self._kept = Kept()

    def read(self) -> RunSnapshot:
        """Return the run as it is now. Raises OSError only when the directory itself is gone.

        The first look leaves the steps out: of a long run they take as long as everything else together,
        and the screen wants to be drawn meanwhile.
        """
        os.stat(self.layout.run)
        numbers = self.layout.attempt_numbers()
        events = self._read_events(numbers[-1:])
        journal = self._journal.read()
        self._looks += 1
        status = self._status(self.layout.run)
        rows, phases = read_epochs(self.layout, status, journal, self._kept)
        files = tuple(sorted(list_checkpoints(self.layout.weights), key=lambda file: -file.modified))
        begun, doing = newest(journal, AttemptStarted), newest(events, Activity)
        snapshot = RunSnapshot(
            path=self.layout.run, taken=self._clock(), status=status, rows=rows, phases=phases,
            steps=self._read_steps(numbers, journal) if self._looks > 1 else self._curves, journal=journal,
            events=events, checkpoints=self._kept.get("checkpoints", lambda: files, files),
            activity=doing.phase if doing is not None else "", started=begun.t if begun is not None else None,
            log_tail=self._read_log(numbers), guard=str(reported_values(journal).get("guard", "")),
            autopilot=self._kept.get("auto", self._is_automatic, journal),
            suspicious=self._looks > 1
            and (early_warning(status, events) or self._kept.get("doubt", self._judged, journal, rows)),
            waiting=tuple(pending_edits(journal)),
            log_path=self.layout.attempt_log(numbers[-1]) if numbers else None,
            timeline=self._kept.get("told", lambda: tuple(sentences(journal, events)), journal, events),
        )  # fmt: skip
        return self._with_charts(snapshot)

    def _with_charts(self, now: RunSnapshot) -> RunSnapshot:
        """Add the charts, those over epochs with the curves that are only known by steps at their end."""
        kept, steps, journal = self._kept, now.steps, now.journal
        over_epochs = kept.get(
            "over epochs", lambda: thinned(epoch_charts(now)), now.rows, journal, steps.losses
        )
        over_steps = kept.get("over steps", lambda: thinned(step_charts(now)), steps, journal)
        extras = kept.get("extras", lambda: thinned(step_extras(now)), steps, journal)
        return replace(now, epoch_charts=(*over_epochs, *extras), step_charts=(*over_steps, *extras))

    def _is_automatic(self) -> bool:
        """Tell whether the ladder may recover the run by itself."""
        with contextlib.suppress(UserError):  # a spec that makes no sense is told where it is acted on
            spec = read_spec(self.layout.spec)
            return spec is not None and spec.auto
        return False

    def _judged(self) -> bool:
        """Tell whether warnings of the guard stand, or the numbers are judged to be a ruined network's."""
        from nantui.recovery.trouble import judge_numbers, judge_warnings, mosaic_closes

        record = RunRecord(self.layout)
        return bool(judge_numbers(record.epochs, mosaic_closes(record.args)) or judge_warnings(record))

    def _read_events(self, numbers: list[int]) -> tuple[Event, ...]:
        """Return the events of the newest attempt's ranks, by time."""
        logs = sorted((number, rank) for number in numbers for rank in self.layout.ranks(number))
        self._events = {key: self._events.get(key) or events_of(self.layout.events(*key)) for key in logs}
        found = [log.read() for log in self._events.values()]
        return self._kept.get("events", lambda: tuple(sorted(chain(*found), key=lambda one: one.t)), *found)

    def _read_steps(self, numbers: list[int], journal: tuple[Event, ...]) -> StepCurves:
        """Read on, in the order of the attempts; all of an earlier one before the next."""
        phases = self._kept.get("phases", lambda: _phases_of(journal), journal)
        for number in numbers:
            if number not in self._steps:
                self._steps[number] = StepFollower(self.layout.steps(number), whole_bytes=WHOLE_BYTES)
            steps, phase = self._steps[number], phases.get(number, 1)
            if number == numbers[-1]:
                self._steps_waiting = self._store.read(steps, number, phase) or self._steps_waiting
            elif number == numbers[-1] - 1 or not steps.opened:
                while self._store.read(steps, number, phase):
                    self._steps_waiting = True
        if self._steps_waiting and time.monotonic() - self._curves_made >= CURVES_EVERY_S:
            self._curves, self._curves_made = self._store.curves(), time.monotonic()
            self._steps_waiting = False
        return self._curves

    def _read_log(self, numbers: list[int]) -> tuple[str, ...]:
        """Return the last lines of the newest attempt's output."""
        if not numbers:
            return ()
        path = self.layout.attempt_log(numbers[-1])
        if self._log is None or self._log.path != path:
            self._log = Newest(path, last_written, LOG_TAIL_BYTES, LOG_TAIL_LINES)
        return self._log.read()


def list_checkpoints(weights: Path) -> list[Checkpoint]:
    """Return the .pt files in `weights` and the run's step points, in no order; a missing folder has none."""
    layout = RunLayout(weights.parent)
    points: dict[Path, StepPoint | None] = {layout.point(one.name): one for one in step_points(layout)}
    with contextlib.suppress(OSError):
        points |= {path: None for path in weights.iterdir() if path.suffix == ".pt" and path.name[0] != "."}
    return [file for path, point in points.items() if (file := checkpoint_at(path, point))]


def checkpoint_at(path: Path, point: StepPoint | None = None) -> Checkpoint | None:
    """Return the file as it is now, None where it is gone."""
    try:
        state = path.stat()
    except OSError:
        return None
    return Checkpoint(path, state.st_size, state.st_mtime, point)


def early_warning(status: RunStatus, events: Iterable[Event]) -> bool:
    """Tell whether the guard has given an early warning in the epoch that trains: what came of it is open."""
    warned = (one for one in of_kind(events, Warned) if one.warning in EARLY_WARNINGS)
    return any((one.epoch or 0) >= (status.epoch or 1) for one in warned)


def _phases_of(journal: tuple[Event, ...]) -> dict[int | None, int]:
    """Return the phase of the run's plan that each attempt trained."""
    begun = zip(journal, standings(journal), strict=True)
    return {event.attempt: phase for event, (phase, _) in begun if isinstance(event, AttemptStarted)}
