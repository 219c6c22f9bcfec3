"""The epochs of a run in one row: what rollbacks trimmed, those of finished phases, and the current ones.

A plan's phases each count their epochs from 1. On the curves they follow each other, so that 150 + 50 epochs
are one training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nantui.errors import UserError
from nantui.run.atomic_files import identity
from nantui.run.events import Event, PhaseDone, RollbackBegun, UndoDone
from nantui.run.layout import RunLayout
from nantui.run.plan import CURRENT, FINISHED, Part, read_parts, standings
from nantui.run.results import EpochRow, read_results
from nantui.run.spec import read_spec
from nantui.run.status import RunStatus
from nantui.ui.model.snapshot import Kept, PlanPhases

Rows = tuple[EpochRow, ...]
Trimmed = tuple[tuple[str, Rows], ...]
SEGMENTS = 10**6
"""More than one phase has: segments of different phases stay apart."""


def read_epochs(
    layout: RunLayout, status: RunStatus, journal: Sequence[Event], kept: Kept
) -> tuple[Rows, PlanPhases]:
    """Return the epochs of the whole run, counted through, and where its phases begin."""
    results, backups = layout.results_csv, layout.backups
    rows = kept.get("results", lambda: tuple(read_results(results)), identity(results))
    trimmed = kept.get("trimmed", lambda: read_trimmed(backups), identity(backups))
    changes = sum(isinstance(event, (PhaseDone, UndoDone)) for event in journal)
    of = (bool(status.phase), identity(layout.spec), changes, status.epochs)
    parts = kept.get("parts", lambda: _read_parts(layout, status, journal), *of)
    return kept.get("epochs", lambda: in_a_row(rows, trimmed, parts, journal), rows, trimmed, parts)


def _read_parts(layout: RunLayout, status: RunStatus, journal: Sequence[Event]) -> tuple[Part, ...]:
    """Return the phases of the plan, none where there is no plan or no spec that makes sense."""
    try:
        spec = read_spec(layout.spec) if status.phase else None
    except UserError:
        return ()
    return tuple(read_parts(layout, spec, journal, status.epochs)) if spec is not None else ()


def in_a_row(
    rows: Rows, trimmed: Trimmed, parts: Sequence[Part], journal: Sequence[Event]
) -> tuple[Rows, PlanPhases]:
    """Return all epochs, trimmed ones first, and the phases that have begun: none without a plan."""
    begun = {part.number: part for part in parts if part.state in (FINISHED, CURRENT)}
    begins = {number: part.begins for number, part in begun.items() if part.begins is not None}
    now = max(begins, default=1)
    current = [_moved(row, begins.get(now, 0), now) for row in rows] if now > 1 else list(rows)
    finished = (number for number in begins if begun[number].state == FINISHED)
    earlier = [_moved(row, begins[number], number) for number in finished for row in begun[number].rows]
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
    left = (row for row in old if _seen_as(row) not in kept)
    titles = {number: begun[number].title for number in begins}
    return (*left, *earlier, *current), PlanPhases(begins, titles, now)


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
