"""Reads a run again and again, a bounded amount each time, and only what has changed."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from nantui.errors import UserError
from nantui.run.events import Activity, AttemptStarted, Event, InEffect, newest
from nantui.run.growing_files import LineFollower
from nantui.run.journal import pending_edits
from nantui.run.layout import RunLayout
from nantui.run.plan import standings
from nantui.run.points import step_points
from nantui.run.spec import read_spec
from nantui.run.status import RunStatus
from nantui.ui.model.backend import Backend
from nantui.ui.model.epochs import EpochReader
from nantui.ui.model.run_charts import Charts, epoch_charts, step_charts, step_extras, thinned
from nantui.ui.model.snapshot import Checkpoint, RunSnapshot, StepCurves
from nantui.ui.model.step_store import StepReader, StepStore
from nantui.ui.model.timeline import Sentence, sentences
from nantui.ui.model.unchanged import Cached, EventLog

CURVES_EVERY_S = 1.5
LOG_TAIL_BYTES, LOG_TAIL_LINES = 1 << 15, 60


class RunReader:
    """Takes snapshots of one run. Used by one thread only."""

    def __init__(
        self, run: Path, status: Callable[[Path], RunStatus], clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self.layout = RunLayout(run)
        self._status = status
        self._epochs = EpochReader(self.layout)
        self._journal = EventLog(self.layout.journal)
        self._events: dict[tuple[int, int], EventLog] = {}
        self._store = StepStore()
        self._log: LineFollower | None = None
        self._tail: tuple[str, ...] = ()
        self._steps: dict[int, StepReader] = {}
        self._curves, self._curves_made = StepCurves(), 0.0
        self._looks, self._steps_waiting = 0, False
        self._merged, self._timeline = Cached[tuple[Event, ...]](), Cached[tuple[Sentence, ...]]()
        self._listing, self._auto = Cached[tuple[Checkpoint, ...]](), Cached[bool]()
        self._of_epochs, self._of_steps, self._extras = Cached[Charts](), Cached[Charts](), Cached[Charts]()

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
        begun = newest(journal, AttemptStarted)
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
            started=begun.t if begun is not None else None,
            log_tail=self._read_log(numbers),
            guard=_guard_of(journal),
            autopilot=self._auto.get(self._is_automatic, journal),
            waiting=tuple(pending_edits(journal)),
            log_path=self.layout.attempt_log(numbers[-1]) if numbers else None,
            timeline=self._timeline.get(lambda: tuple(sentences(journal, events)), journal, events),
        )
        return self._with_charts(snapshot)

    def _with_charts(self, now: RunSnapshot) -> RunSnapshot:
        """Add the charts, those over epochs with the curves that are only known by steps at their end."""
        epochs = self._of_epochs.get(
            lambda: thinned(epoch_charts(now)), now.rows, now.journal, now.steps.losses
        )
        steps = self._of_steps.get(lambda: thinned(step_charts(now)), now.steps, now.journal)
        extras = self._extras.get(lambda: thinned(step_extras(now)), now.steps, now.journal)
        return replace(now, epoch_charts=(*epochs, *extras), step_charts=(*steps, *extras))

    def _is_automatic(self) -> bool:
        """Tell whether the ladder may recover the run by itself."""
        with contextlib.suppress(UserError):  # a spec that makes no sense is told where it is acted on
            spec = read_spec(self.layout.spec)
            return spec is not None and spec.auto
        return False

    def _read_events(self, numbers: list[int]) -> tuple[Event, ...]:
        """Return the events of the newest attempt's ranks, by time."""
        logs = {(number, rank) for number in numbers for rank in self.layout.ranks(number)}
        logs |= {key for key in self._events if key[0] in numbers}
        self._events = {
            key: self._events.get(key) or EventLog(self.layout.events(*key)) for key in sorted(logs)
        }
        found = [log.read() for log in self._events.values()]
        return self._merged.get(
            lambda: tuple(sorted((event for events in found for event in events), key=lambda one: one.t)),
            *found,
        )

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
        return self._listing.get(lambda: found, found)


def one_look(run: Path, backend: Backend) -> RunSnapshot:
    """Return a run as it is now, without its steps; for a thread."""
    return RunReader(run, backend.status, backend.now).read()


def list_checkpoints(weights: Path) -> list[Checkpoint]:
    """Return the .pt files in `weights` and the run's step points, in no order; a missing folder has none."""
    layout = RunLayout(weights.parent)
    found = [
        replace(file, point=point)
        for point in step_points(layout)
        if (file := checkpoint_at(layout.point(point.name)))
    ]
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
