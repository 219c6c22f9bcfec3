"""The step points of a run as restore points: which may be gone on from at all, and which a resume takes.

A point stays on disk whatever becomes of its training, so its attempt must be one whose work is in force: the
journal tells, whatever clocks say. A rollback and a change of phase also move points aside, as undo does with
what was trained since; a point that was put back by hand is of no such attempt all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nantui.checkpoint.step_point import why_unsound
from nantui.machine.gpus import device_count
from nantui.recovery.restore_points import Candidate, rank
from nantui.recovery.run_facts import classes_of
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
from nantui.run.layout import RunLayout
from nantui.run.points import StepPoint, differences
from nantui.run.record import RunRecord, in_full

RESUME = "resume"
LEFT_BEHIND = "of a training that was left behind"


def point_to_resume(run: Path, candidates: Sequence[Candidate]) -> tuple[StepPoint | None, tuple[str, ...]]:
    """Return the newest good point that is further than every other usable checkpoint, None without one.

    And in words which ones were further and are not good. Reads all of them.
    """
    best = next((one for one in candidates if one.usable and one.point is None), None)
    if best is not None and best.revive:
        return None, ()
    left_out: list[str] = []
    for one in sorted(candidates, key=lambda one: rank(one)[1:], reverse=True):
        if one is best:
            break
        if one.point is not None and one.why_not != LEFT_BEHIND:
            why = one.why_not or why_unsound(RunLayout(run), one.point)
            if not why:
                return one.point, tuple(left_out)
            left_out.append(f"the step point of {one.words} is left out: {why}")
    return None, tuple(left_out)


def why_left_out(
    record: RunRecord, points: Mapping[Path, StepPoint], asked: Mapping[str, object]
) -> dict[Path, str]:
    """Return which step points a training with what is `asked` for cannot go on from, and why.

    The worker would refuse them (`MUST_BE_THE_SAME` in worker/points/going_on.py). Of the model only its
    number of classes is known here, and processes only where the run has one host.
    """
    attempts, spec, left = in_force_of(record.journal), record.spec, dict[Path, str]()
    now = {**record.args, **(spec.train if spec else {}), **asked}
    here: dict[str, object] = {}
    if asked.get("data") not in (None, record.args.get("data")):
        here["data"] = str(in_full(record, asked)["data"])
    if spec is not None and spec.kind != "exec" and getattr(record.newest.asked, "nnodes", 1) == 1:
        here["world_size"] = device_count(now.get("device"))
    classes = classes_of(in_full(record, now).get("data"))
    if classes is not None and not now.get("single_cls") and now.get("task") != "semantic":
        here["classes"] = classes  # as the data set says it; a semantic one may have the background, too
    for path, point in points.items():
        if point.attempt not in attempts:
            left[path] = LEFT_BEHIND
        elif differ := differences(point.training, here):
            left[path] = f"it does not fit what would train now ({'; '.join(differ)})"
    return left


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
