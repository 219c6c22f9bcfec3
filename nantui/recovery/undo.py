"""Take the last rollback or resume back: everything outside nantui/ as it was, byte for byte.

What a later attempt has made or changed meanwhile is not lost: it moves into the undo's own backups first.
A rollback moves what was there; a plain resume writes over it, so copies are made before it.
"""

from __future__ import annotations

import os
import shutil
import stat
import uuid
from dataclasses import dataclass
from pathlib import Path

from nantui.errors import FAILED, NO, UserError
from nantui.recovery import manifest
from nantui.recovery.history import Undoable, in_force, newest_in_force
from nantui.recovery.manifest import COPIES, FILE, FOLDER, Item
from nantui.recovery.resume_point import points_aside
from nantui.recovery.transaction import (
    MOVE,
    RMDIR,
    STAGED,
    UNDO,
    Step,
    Transaction,
    carry_out,
    copy_durably,
    discard_staged,
    is_file_of,
    move,
    state_at,
    step_from,
)
from nantui.run.events import Kept, PhaseBegun, UndoDone, of_kind
from nantui.run.inside import inside, parts_of, refuse_foreign
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.points import in_words
from nantui.run.record import RunRecord
from nantui.run.spec import own_uids


@dataclass(frozen=True)
class Undone:
    """What undo gave back: the rollback's `id`, what could not be given back, where later files went."""

    of: str
    text: str
    missing: tuple[str, ...]
    aside: str


def keep_for_undo(layout: RunLayout, epoch: int, *, id: str, by: str) -> None:
    """Copy what an attempt may overwrite that resumes after `epoch` (from 1) without a rollback.

    Those are last.pt, best.pt, a stop point, and the files of later epochs. Raises UserError
    where there is no room; nothing is changed then.
    """
    trained = {f"epoch{number}.pt" for number in range(epoch)}
    weights = {f"weights/{path.name}" for path in layout.weights.glob("*.pt") if path.name not in trained}
    try:
        manifest.keep(layout, id, in_place=weights)
    except OSError as error:
        shutil.rmtree(layout.backups / id, ignore_errors=True)
        text = f"weights/ could not be copied for undo ({error}): make room; nothing was started"
        raise UserError(text, FAILED) from error
    journal = Journal(layout.journal)
    journal.append("kept", by=by, id=id, epoch=epoch)
    events = journal.events()
    for old in {one.id for one in of_kind(events, Kept)} - {one.id for one in in_force(events)}:
        shutil.rmtree(layout.backups / old, ignore_errors=True)


def taken_back(begun: Undoable) -> str:
    """Return what undoing it means, in one line."""
    if isinstance(begun, Kept):
        return f"the resume after epoch {begun.epoch} was taken back"
    if isinstance(begun, PhaseBegun):
        number = begun.phase or 2
        return f"phase {number} was taken back; phase {number - 1} is as it ended"
    name = Path(str(begun.restore_point)).name
    return f"the rollback to {in_words(name, begun.epoch)} was taken back"


def undo(layout: RunLayout, *, by: str, asked: str = "") -> Undone:
    """Take back the last rollback, change of phase or resume that is in force.

    Once for the command `asked`, however often it comes.

    Raises UserError (status NO) when there is none, (FAILED) when it cannot be done; nothing is changed then.
    """
    refuse_foreign(layout.journal, own_uids(layout.lock))
    journal, id = RunRecord(layout).journal, f"undo-{asked[:12] or uuid.uuid4().hex[:8]}"
    aside = str((layout.backups / id).relative_to(layout.run))
    for undone in of_kind(journal, UndoDone):
        if undone.id == id:
            return Undone(undone.of, undone.text, (), aside)
    rollback = newest_in_force(journal)
    if rollback is None:
        raise UserError(f"{layout.run}: there is no rollback to take back", NO)
    of = "/".join(parts_of(rollback.id))
    before = manifest.load(layout, of)
    if before is None:
        gone = f"nantui/backups/{of}/{manifest.NAME}"
        raise UserError(f"{gone} is missing; the rollback cannot be taken back", FAILED)
    done = () if isinstance(rollback, Kept) else rollback.steps
    try:
        steps, missing = _steps(layout, id, of, before, [step_from(step) for step in done])
    except OSError as error:
        discard_staged(layout, id)
        raise UserError(f"undo could not be prepared ({error}); nothing was changed", FAILED) from error
    text = taken_back(rollback)
    carry_out(
        layout, Transaction(id, UNDO, tuple(steps), {"of": of, "text": text, "missing": missing}), by=by
    )
    return Undone(of, text, tuple(missing), aside)


def _steps(
    layout: RunLayout, id: str, of: str, before: dict[str, Item], done: list[Step]
) -> tuple[list[Step], list[str]]:
    """Return the moves that give back what `before` lists, and what cannot be given back."""
    now, aside = manifest.items_now(layout), f"nantui/backups/{id}"
    moves = (step for step in done if step.kind == MOVE and not Path(step.source).name.startswith(STAGED))
    came_from = {step.target: step for step in moves}
    returning = {step.source: step for step in came_from.values()}
    away = [path for path, item in now.items() if item.kind != FOLDER and not item.matches(before.get(path))]
    # What lies where the rollback put an original is that original: it goes back rather than aside.
    own = {path for path in away if path in came_from and is_file_of(layout.run, path, came_from[path])}
    steps = [move(layout.run, path, f"{aside}/{path}") for path in away if path not in own]
    steps += _ours_away(layout, aside, returning)
    steps += points_aside(layout, aside) if done else []
    missing = []
    for path, item in before.items():
        if item.kind == FOLDER or item.matches(now.get(path)):
            continue
        step = _back(layout, id, of, path, item, returning)
        steps.extend(step)
        missing += [] if step else [path]
    steps += [
        Step(MOVE, step.source, step.target, step.size, step.mtime_ns)
        for path, step in returning.items()
        if path not in before and is_file_of(layout.run, step.target, step)
    ]
    folders = sorted(
        (path for path, item in now.items() if item.kind == FOLDER and path not in before), reverse=True
    )
    return steps + [Step(RMDIR, path) for path in folders], missing


def _ours_away(layout: RunLayout, aside: str, returning: dict[str, Step]) -> list[Step]:
    """Return the moves for our own files inside nantui/ that it replaced: spec.yaml; step points go apart."""
    points = f"{layout.points.relative_to(layout.run)}/"
    own = (path for path in returning if path.startswith("nantui/") and not path.startswith(points))
    ours = [path for path in own if os.path.lexists(layout.run / path)]
    return [move(layout.run, path, f"{aside}/{path}") for path in ours]


def _back(
    layout: RunLayout, id: str, of: str, path: str, item: Item, returning: dict[str, Step]
) -> list[Step]:
    """Return the move that brings `path` back, from where the rollback put it or from its copy."""
    step = returning.get(path)
    if step is not None and is_file_of(layout.run, step.target, step):
        return [Step(MOVE, path, step.target, step.size, step.mtime_ns)]
    kept = f"nantui/backups/{of}/{COPIES}/{path}"
    state = state_at(layout.run, kept) if item.kind == FILE and item.copied else None
    if state is None or not stat.S_ISREG(state.st_mode):
        return []
    staged = f"nantui/{STAGED}{id}-{uuid.uuid4().hex[:8]}"
    with inside(layout.run, kept) as copy, inside(layout.run, staged) as beside:
        copy_durably(copy, beside)
    return [move(layout.run, staged, path)]
