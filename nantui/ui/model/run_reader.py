"""Reads a run again and again, a bounded amount each time, and only what has changed."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

from nantui.errors import UserError
from nantui.run.events import Activity, AttemptStarted, Event, InEffect, newest, parse_lines
from nantui.run.growing_files import LineFollower
from nantui.run.journal import pending_edits
from nantui.run.layout import RunLayout
from nantui.run.plan import standings
from nantui.run.spec import read_spec
from nantui.run.status import RunStatus
from nantui.ui.model.backend import Backend
from nantui.ui.model.epochs import EpochReader
from nantui.ui.model.run_charts import ChartMaker
from nantui.ui.model.snapshot import Checkpoint, RunSnapshot, StepCurves
from nantui.ui.model.step_store import StepReader, StepStore
from nantui.ui.model.timeline import Sentence, sentences

MOST_EVENTS = 4000
CURVES_EVERY_S = 1.5
LOG_TAIL_BYTES, LOG_TAIL_LINES = 1 << 15, 60


class EventLog:
    """The events of a growing JSON-lines file, oldest first, the newest few thousand of them."""

    def __init__(self, path: Path) -> None:
        self._lines = LineFollower(path, tail_bytes=4 << 20)
        self.events: tuple[Event, ...] = ()

    def read(self) -> tuple[Event, ...]:
        """Return all events; the same object while nothing was added."""
        new = self._lines.read()
        if new.restarted:
            self.events = ()
        found = parse_lines(new.lines)
        if found:
            self.events = (*self.events, *found)[-MOST_EVENTS:]
        return self.events


class RunReader:
    """Takes snapshots of one run. Used by one thread only."""

    def __init__(
        self, run: Path, status: Callable[[Path], RunStatus], clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self.layout = RunLayout(run)
        self._status = status
        self._epochs = EpochReader(self.layout)
        self._listing: tuple[Checkpoint, ...] = ()
        self._journal = EventLog(self.layout.journal)
        self._events: dict[tuple[int, int], EventLog] = {}
        self._merged: tuple[Event, ...] = ()
        self._store = StepStore()
        self._log: LineFollower | None = None
        self._tail: tuple[str, ...] = ()
        self._steps: dict[int, StepReader] = {}
        self._curves, self._curves_made = StepCurves(), 0.0
        self._charts = ChartMaker()
        self._told_of: tuple[object, ...] = ()
        self._timeline: tuple[Sentence, ...] = ()
        self._looks, self._steps_waiting = 0, False
        self._auto, self._asked_after = False, cast("tuple[Event, ...] | None", None)

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
        rows, phases = self._epochs.read(status, journal)
        snapshot = RunSnapshot(
            path=self.layout.run,
            taken=self._clock(),
            status=status,
            rows=rows,
            phases=phases,
            steps=self._read_steps(numbers, journal) if self._looks > 1 else self._curves,
            journal=journal,
            events=events,
            checkpoints=self._list_checkpoints(),
            activity=_last_activity(events),
            started=_started(journal),
            log_tail=self._read_log(numbers),
            guard=_guard_of(journal),
            autopilot=self._automatic(journal),
            waiting=tuple(pending_edits(journal)),
            log_path=self.layout.attempt_log(numbers[-1]) if numbers else None,
            timeline=self._tell(journal, events),
        )
        over_epochs, over_steps = self._charts.make(snapshot)
        return replace(snapshot, epoch_charts=over_epochs, step_charts=over_steps)

    def _automatic(self, journal: tuple[Event, ...]) -> bool:
        """Tell whether the ladder may recover the run by itself; read again after each journal entry."""
        if self._asked_after is not journal:
            self._asked_after, self._auto = journal, False
            with contextlib.suppress(UserError):  # a spec that makes no sense is told where it is acted on
                spec = read_spec(self.layout.spec)
                self._auto = spec is not None and spec.auto
        return self._auto

    def _tell(self, journal: tuple[Event, ...], events: tuple[Event, ...]) -> tuple[Sentence, ...]:
        """Return the timeline; the same object while it says the same."""
        if not (self._told_of and self._told_of[0] is journal and self._told_of[1] is events):
            self._told_of = journal, events
            told = tuple(sentences(journal, events))
            if told != self._timeline:
                self._timeline = told
        return self._timeline

    def _read_events(self, numbers: list[int]) -> tuple[Event, ...]:
        """Return the events of the newest attempt's ranks, by time."""
        before = [log.events for log in self._events.values()]
        for number in numbers:
            for rank in self.layout.ranks(number):
                self._events.setdefault((number, rank), EventLog(self.layout.events(number, rank)))
        current = [log.read() for key, log in self._events.items() if key[0] in numbers]
        if [id(events) for events in before] != [id(events) for events in current]:
            merged = [event for events in current for event in events]
            self._merged = tuple(sorted(merged, key=lambda event: event.t))
            self._events = {key: log for key, log in self._events.items() if key[0] in numbers}
        return self._merged

    def _read_steps(self, numbers: list[int], journal: tuple[Event, ...]) -> StepCurves:
        """Read on, in the order of the attempts; all of an earlier one before the next."""
        for number in numbers:
            if number not in self._steps:
                phase = _phase_of(number, journal)
                self._steps[number] = StepReader(self.layout.steps(number), self._store, number, phase)
            reader = self._steps[number]
            if number == numbers[-1]:
                self._steps_waiting = reader.read() or self._steps_waiting
            elif number == numbers[-1] - 1 or not reader.opened:
                while reader.read():
                    self._steps_waiting = True
        if self._steps_waiting and time.monotonic() - self._curves_made >= CURVES_EVERY_S:
            self._curves, self._curves_made = self._store.curves(), time.monotonic()
            self._steps_waiting = False
        return self._curves

    def _read_log(self, numbers: list[int]) -> tuple[str, ...]:
        """Return the last lines of the newest attempt's output."""
        if not numbers:
            return ()
        if self._log is None or self._log.path != self.layout.attempt_log(numbers[-1]):
            self._log = LineFollower(self.layout.attempt_log(numbers[-1]), tail_bytes=LOG_TAIL_BYTES)
            self._tail = ()
        new = self._log.read(LOG_TAIL_BYTES)
        if new.lines:
            lines = [line.rstrip("\r").rpartition("\r")[2] for line in new.lines]
            self._tail = (*(() if new.restarted else self._tail), *lines)[-LOG_TAIL_LINES:]
        return self._tail

    def _list_checkpoints(self) -> tuple[Checkpoint, ...]:
        found = tuple(sorted(list_checkpoints(self.layout.weights), key=lambda item: -item.modified))
        if found != self._listing:
            self._listing = found
        return self._listing


def one_look(run: Path, backend: Backend) -> RunSnapshot:
    """Return a run as it is now, without its steps; for a thread."""
    return RunReader(run, backend.status, backend.now).read()


def list_checkpoints(weights: Path) -> list[Checkpoint]:
    """Return the .pt files in `weights`, in no order; a missing folder has none."""
    found = []
    try:
        with os.scandir(weights) as entries:
            for entry in entries:
                if entry.name.endswith(".pt") and not entry.name.startswith("."):
                    state = entry.stat()
                    found.append(Checkpoint(weights / entry.name, state.st_size, state.st_mtime))
    except OSError:
        return found
    return found


def checkpoint_at(path: Path) -> Checkpoint | None:
    """Return the file as it is now, None where it is gone."""
    try:
        state = path.stat()
    except OSError:
        return None
    return Checkpoint(path, state.st_size, state.st_mtime)


def _phase_of(attempt: int, journal: tuple[Event, ...]) -> int:
    """Return the phase of the run's plan that an attempt trained; 1 without a plan."""
    begun = zip(journal, standings(journal), strict=True)
    phases = {event.attempt: phase for event, (phase, _) in begun if isinstance(event, AttemptStarted)}
    return phases.get(attempt, 1)


def _last_activity(events: tuple[Event, ...]) -> str:
    found = newest(events, Activity)
    return found.phase if found is not None else ""


def _guard_of(journal: tuple[Event, ...]) -> str:
    """Return the guard's mode in the newest attempt, as the worker reported it."""
    found = newest(journal, AttemptStarted, InEffect)
    return str(found.values.get("guard", "")) if isinstance(found, InEffect) else ""


def _started(journal: tuple[Event, ...]) -> float | None:
    """Return when the newest attempt began."""
    found = newest(journal, AttemptStarted)
    return found.t if found is not None else None
