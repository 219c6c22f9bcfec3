"""The step point that a plain resume goes on from, where one is further than the newest checkpoint.

A point stays on disk whatever becomes of its training, so its attempt must be one whose work is in force: the
journal tells, whatever clocks say. A rollback and a change of phase also move points aside, as undo does with
what was trained since; a point that was put back by hand is of no such attempt all the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from nantui.checkpoint.step_point import why_unsound
from nantui.recovery.plan import RESUME, Plan
from nantui.recovery.restore_points import STOP_POINT
from nantui.recovery.transaction import Step, move
from nantui.run.events import (
    AttemptStarted,
    Event,
    Kept,
    PhaseBegun,
    RollbackBegun,
    RollbackReverted,
    UndoDone,
)
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.points import StepPoint, step_points


def point_to_resume(plan: Plan) -> tuple[StepPoint | None, tuple[str, ...]]:
    """Return the newest good point that is further than the plan's restore point, None without one.

    And in words which ones were further and are not good.
    """
    layout = RunLayout(plan.run)
    left_out: list[str] = []
    if plan.restore is not None and plan.restore.revive:
        return None, ()
    attempts = in_force_of(Journal(layout.journal).events())
    for point in step_points(layout):
        if point.attempt in attempts and _is_further(layout, point, plan):
            why = why_unsound(layout, point)
            if not why:
                return point, tuple(left_out)
            left_out.append(f"the step point of epoch {point.epoch} step {point.batch} is left out: {why}")
    return None, tuple(left_out)


def _is_further(layout: RunLayout, point: StepPoint, plan: Plan) -> bool:
    """Tell whether a point is after the restore point and in an epoch before the first sign of trouble.

    A stop point does not say how far into its epoch it is: it was saved after every point before it.
    """
    restore, trouble = plan.restore, plan.trouble
    if trouble is not None and point.epoch >= trouble.epoch:
        return False
    if restore is None:
        return True
    newer = layout.point(point.name).stat().st_mtime_ns > restore.path.stat().st_mtime_ns
    return point.epochs_done > (restore.work or 0) and (newer or restore.name != STOP_POINT)


def in_force_of(journal: Iterable[Event]) -> frozenset[int]:
    """Return the attempts whose steps the present weights may hold: since the newest rollback, change of
    phase or beginning, and without what was taken back.
    """
    now: frozenset[int] = frozenset()
    before: dict[str, frozenset[int]] = {}
    for event in journal:
        if isinstance(event, AttemptStarted) and event.attempt is not None:
            now = (now if event.mode == RESUME else frozenset()) | {event.attempt}
        elif isinstance(event, (Kept, RollbackBegun, PhaseBegun)):
            before[event.id] = now
            now = now if isinstance(event, Kept) else frozenset()
        elif isinstance(event, UndoDone):
            now = before.get(event.of, frozenset())
        elif isinstance(event, RollbackReverted):
            now = before.get(event.id, now)
    return now


def points_aside(layout: RunLayout, aside: str) -> list[Step]:
    """Return the moves of all step points into the folder `aside` of the run. Raises OSError."""
    files = sorted(path.relative_to(layout.run) for path in layout.points.glob("*") if path.is_file())
    return [move(layout.run, str(path), f"{aside}/{path}", "a step point of before") for path in files]
