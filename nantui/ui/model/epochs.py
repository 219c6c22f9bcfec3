"""The epochs of a run in one row: what rollbacks trimmed, those of finished phases, and the current ones.

A plan's phases each count their epochs from 1. On the curves they follow each other, so that 150 + 50 epochs
are one training.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nantui.errors import UserError
from nantui.run.atomic_files import identity
from nantui.run.events import Event, PhaseDone, RollbackBegun, UndoDone
from nantui.run.layout import RunLayout
from nantui.run.plan import CURRENT, FINISHED, Part, read_parts, standings
from nantui.run.results import EpochRow, read_results
from nantui.run.spec import read_spec
from nantui.run.status import RunStatus
from nantui.ui.model.unchanged import Cached, EpochTable, Watched

Trimmed = tuple[tuple[str, tuple[EpochRow, ...]], ...]
CHANGES = (PhaseDone, UndoDone)
SEGMENTS = 10**6
"""More than one phase has: segments of different phases stay apart."""


@dataclass(frozen=True)
class PlanPhases:
    """`begins` is how many epochs come before each phase, `titles` what the phases are called, by number;
    `now` is the current one.
    """

    begins: Mapping[int, int] = field(default_factory=dict)
    titles: Mapping[int, str] = field(default_factory=dict)
    now: int = 1


class EpochReader:
    """Reads everything that is on the epoch axis; its answers are the same objects while nothing changed."""

    def __init__(self, layout: RunLayout) -> None:
        self._layout = layout
        self._table = EpochTable(layout.results_csv)
        self._trimmed = Watched(layout.backups, read_trimmed, ())
        self._parts = Cached[tuple[Part, ...]]()
        self._made = Cached[tuple[tuple[EpochRow, ...], PlanPhases]]()

    def read(self, status: RunStatus, journal: Sequence[Event]) -> tuple[tuple[EpochRow, ...], PlanPhases]:
        """Return the epochs of the whole run, counted through, and where its phases begin."""
        rows, trimmed, parts = self._table.read(), self._trimmed.get(), self._read_parts(status, journal)
        return self._made.get(lambda: in_a_row(rows, trimmed, parts, journal), rows, trimmed, parts)

    def _read_parts(self, status: RunStatus, journal: Sequence[Event]) -> tuple[Part, ...]:
        """Return the phases of the plan; read again only when one has ended or was given back."""
        if not status.phase:
            return ()
        changes = sum(isinstance(event, CHANGES) for event in journal)
        return self._parts.get(
            lambda: self._read_plan(journal, status.epochs),
            identity(self._layout.spec), changes, status.epochs,
        )  # fmt: skip

    def _read_plan(self, journal: Sequence[Event], epochs: int | None) -> tuple[Part, ...]:
        try:
            spec = read_spec(self._layout.spec)
        except UserError:
            return ()
        return tuple(read_parts(self._layout, spec, journal, epochs)) if spec is not None else ()


def in_a_row(
    rows: Sequence[EpochRow], trimmed: Trimmed, parts: Sequence[Part], journal: Sequence[Event]
) -> tuple[tuple[EpochRow, ...], PlanPhases]:
    """Return all epochs, those that were trimmed first, and the phases, of which there are none without a
    plan.
    """
    phases = phases_in(parts)
    begins, now = phases.begins, phases.now
    current = [_moved(row, begins.get(now, 0), now) for row in rows] if now > 1 else list(rows)
    earlier = [
        _moved(row, part.begins, part.number)
        for part in parts
        if part.state == FINISHED and part.begins is not None
        for row in part.rows
    ]
    numbers = {
        event.id: number
        for event, (number, _) in zip(journal, standings(journal), strict=True)
        if isinstance(event, RollbackBegun)
    }
    kept = {_seen_as(row) for row in (*earlier, *current)}
    old = (
        replace(row, epoch=row.epoch + begins.get(numbers.get(id, 1), 0))
        for id, found in trimmed
        for row in found
    )
    return (*(row for row in old if _seen_as(row) not in kept), *earlier, *current), phases


def phases_in(parts: Iterable[Part]) -> PlanPhases:
    """Return where the phases begin that have begun."""
    begun = [part for part in parts if part.state in (FINISHED, CURRENT) and part.begins is not None]
    return PlanPhases(
        {part.number: part.begins for part in begun if part.begins is not None},
        {part.number: part.title for part in begun},
        max((part.number for part in begun), default=1),
    )


def read_trimmed(backups: Path) -> Trimmed:
    """Return (rollback, its epochs, superseded) for each copy of results.csv that a rollback kept,
    oldest copy first, each training of an epoch once.
    """
    copies = sorted(backups.glob("*/copies/results.csv"), key=lambda path: path.stat().st_mtime)
    seen: set[tuple[int, float]] = set()
    found = []
    for number, copy in enumerate(copies):
        rows = [row for row in read_results(copy) if _seen_as(row) not in seen]
        seen.update(map(_seen_as, rows))
        old = tuple(replace(row, segment=-1 - number, superseded=True) for row in rows)
        found.append((copy.parents[1].name, old))
    return tuple(found)


def _moved(row: EpochRow, by: int, phase: int) -> EpochRow:
    return replace(row, epoch=row.epoch + by, segment=row.segment + phase * SEGMENTS)


def _seen_as(row: EpochRow) -> tuple[int, float]:
    """What tells two trainings of the same epoch apart."""
    return row.epoch, row.seconds
