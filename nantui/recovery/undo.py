"""Take the last rollback, resume or phase back: everything outside nantui/ as it was, byte for byte.

A manifest says what lay there. A rollback moves checkpoints and copies everything else, which a later attempt
may overwrite; before a plain resume checkpoints are copied, too. What a later attempt has made or changed
moves into the undo's own backups first.
"""

from __future__ import annotations

import os
import shutil
import stat
import uuid
from collections.abc import Collection, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from pathlib import Path

from nantui.errors import FAILED, NO, UserError
from nantui.recovery import transaction
from nantui.run.atomic_files import read_json, write_json
from nantui.run.documents import Large, fields_of
from nantui.run.events import CommandReceived, Event, Kept, PhaseBegun, UndoDone, newest, of_kind
from nantui.run.inside import inside, parts_of, refuse_foreign
from nantui.run.journal import UNDOABLE, Journal, Undoable, in_force, newest_in_force
from nantui.run.layout import RunLayout
from nantui.run.points import in_words
from nantui.run.record import RunRecord
from nantui.run.spec import own_uids

FILE, LINK, FOLDER = "file", "link", "folder"
LARGEST_COPY = 256 << 20
LARGEST_TOTAL = 1 << 30
NAME, COPIES, OURS = "manifest.json", "copies", "nantui"


@dataclass(frozen=True)
class Item:
    """One file, link or folder outside nantui/; `path` is relative to the run, `copied` tells of a copy."""

    path: str
    kind: str
    size: Large = 0
    mtime_ns: Large = 0
    copied: bool = False

    def matches(self, other: Item | None) -> bool:
        """Tell whether `other` is this very thing, unchanged."""
        if other is None or self.kind != other.kind:
            return False
        return self.kind == FOLDER or (self.size, self.mtime_ns) == (other.size, other.mtime_ns)


def items_now(layout: RunLayout) -> dict[str, Item]:
    """Return everything outside nantui/ by relative path, without following links out of the run."""
    return {item.path: item for item in _walk(layout.run, layout.run)}


def keep_copies(layout: RunLayout, id: str, in_place: Collection[str] = ()) -> list[str]:
    """Write down what is there and copy what a later attempt may overwrite, below backups/ID.

    `in_place` are checkpoints that stay and may be overwritten where they are. Returns the paths that were
    too large to copy. Raises OSError (disk full).
    """
    items, left_out, total = items_now(layout), [], 0
    for path, item in items.items():
        if item.kind != FILE or (path.startswith("weights/") and path not in in_place):
            continue
        if path not in in_place and (item.size > LARGEST_COPY or total + item.size > LARGEST_TOTAL):
            left_out.append(path)
            continue
        total += item.size
        copy = f"nantui/backups/{id}/{COPIES}/{path}"
        with inside(layout.run, path) as source, inside(layout.run, copy, make=True) as target:
            target.unlink(missing_ok=True)
            transaction.copy_durably(source, target)
        items[path] = replace(item, copied=True)
    write_manifest(layout, id, items)
    return left_out


def read_manifest(layout: RunLayout, id: str) -> dict[str, Item] | None:
    """Return what `keep_copies` wrote for the transaction `id`, None where it is missing or makes no sense.

    Raises UserError where it belongs to another user, or leads out of the run.
    """
    refuse_foreign(layout.backups / id / NAME, own_uids(layout.lock))
    try:
        with inside(layout.run, f"nantui/backups/{id}/{NAME}") as place:
            items = [Item(**fields_of(Item, entry)) for entry in (read_json(place) or {})["items"]]
    except (OSError, KeyError, TypeError):
        return None
    for item in items:
        if parts_of(item.path)[0] == OURS:
            raise UserError(f"{item.path!r} in {NAME} is nantui's own file; nothing was moved", FAILED)
    return {item.path: item for item in items}


def write_manifest(layout: RunLayout, id: str, items: dict[str, Item]) -> None:
    """Write down what was there before the transaction `id`. Raises OSError."""
    with inside(layout.run, f"nantui/backups/{id}/{NAME}", make=True) as place:
        write_json(place, {"items": [asdict(item) for item in items.values()]})


def _walk(top: Path, run: Path) -> Iterator[Item]:
    with os.scandir(top) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = os.path.relpath(entry.path, run)
        if path == OURS or entry.name.lstrip(".").startswith(transaction.STAGED.lstrip(".")):
            continue
        state = entry.stat(follow_symlinks=False)
        if stat.S_ISDIR(state.st_mode) or (path == "weights" and entry.is_dir()):
            yield Item(path, FOLDER)
            yield from _walk(Path(entry.path), run)
        elif stat.S_ISLNK(state.st_mode) or stat.S_ISREG(state.st_mode):
            kind = LINK if stat.S_ISLNK(state.st_mode) else FILE
            yield Item(path, kind, state.st_size, state.st_mtime_ns)


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
        keep_copies(layout, id, in_place=weights)
    except OSError as error:
        shutil.rmtree(layout.backups / id, ignore_errors=True)
        text = f"weights/ could not be copied for undo ({error}): make room; nothing was started"
        raise UserError(text, FAILED) from error
    journal = Journal(layout.journal)
    journal.append("kept", by=by, id=id, epoch=epoch)
    events = journal.events()
    for old in {one.id for one in of_kind(events, Kept)} - {one.id for one in in_force(events)}:
        shutil.rmtree(layout.backups / old, ignore_errors=True)


def what_it_was(begun: Undoable, journal: Iterable[Event]) -> str:
    """Return what an undo takes back, as its question and its result name it."""
    if isinstance(begun, Kept):
        return f"the resume after epoch {begun.epoch}"
    if isinstance(begun, PhaseBegun):
        return f"phase {begun.phase or 2}"
    place = in_words(Path(begun.restore_point or "the beginning").name, begun.epoch)
    asked = newest(takewhile(lambda event: event is not begun, journal), CommandReceived)
    resumed = asked is not None and asked.command.kind in ("start", "resume")
    return f"the resume with changed settings from {place}" if resumed else f"the rollback to {place}"


def undo(layout: RunLayout, *, by: str, asked: str = "", shown: str | None = None) -> Undone:
    """Take back the last rollback, change of phase or resume that is in force.

    Once for the command `asked`, however often it comes; where an id was `shown`, no other one.

    Raises UserError (status NO) when there is none, (FAILED) when it cannot be done; nothing is changed then.
    """
    refuse_foreign(layout.journal, own_uids(layout.lock))
    journal, id = RunRecord(layout).journal, f"undo-{asked[:12] or uuid.uuid4().hex[:8]}"
    aside = str((layout.backups / id).relative_to(layout.run))
    for undone in of_kind(journal, UndoDone):
        if undone.id == id:
            return Undone(undone.of, undone.text, (), aside)
    rollback = newest_in_force(journal)
    if rollback is None or rollback.id != (shown or rollback.id):
        why = "it is not the last any more, look again" if rollback else f"no {UNDOABLE} to take back"
        raise UserError(f"{layout.run}: {why}", NO)
    of = "/".join(parts_of(rollback.id))
    before = read_manifest(layout, of)
    if before is None:
        gone = f"nantui/backups/{of}/{NAME}"
        raise UserError(f"{gone} is missing; the rollback cannot be taken back", FAILED)
    done = () if isinstance(rollback, Kept) else rollback.steps
    try:
        steps, missing = _steps(layout, id, of, before, [transaction.step_from(step) for step in done])
    except OSError as error:
        transaction.discard_staged(layout, id)
        raise UserError(f"undo could not be prepared ({error}); nothing was changed", FAILED) from error
    text = f"{what_it_was(rollback, journal)} was taken back"
    text += f"; phase {(rollback.phase or 2) - 1} is as it ended" if isinstance(rollback, PhaseBegun) else ""
    about = {"of": of, "text": text, "missing": missing}
    transaction.carry_out(layout, transaction.Transaction(id, transaction.UNDO, tuple(steps), about), by=by)
    return Undone(of, text, tuple(missing), aside)


def _steps(
    layout: RunLayout, id: str, of: str, before: dict[str, Item], done: list[transaction.Step]
) -> tuple[list[transaction.Step], list[str]]:
    now, aside = items_now(layout), f"nantui/backups/{id}"
    moves = (
        step
        for step in done
        if step.kind == transaction.MOVE and not Path(step.source).name.startswith(transaction.STAGED)
    )
    came_from = {step.target: step for step in moves}
    returning = {step.source: step for step in came_from.values()}
    away = [path for path, item in now.items() if item.kind != FOLDER and not item.matches(before.get(path))]
    # What lies where the rollback put an original is that original: it goes back rather than aside.
    own = {
        path
        for path in away
        if path in came_from and transaction.is_file_of(layout.run, path, came_from[path])
    }
    # Of our own files spec.yaml was replaced; step points go together.
    ours = [path for path in returning if path.startswith("nantui/") and "/points/" not in path]
    away += [path for path in ours if os.path.lexists(layout.run / path)]
    steps = [transaction.move(layout.run, path, f"{aside}/{path}") for path in away if path not in own]
    steps += transaction.points_aside(layout, aside) if done else []
    missing = []
    for path, item in before.items():
        if item.kind == FOLDER or item.matches(now.get(path)):
            continue
        step = _back(layout, id, of, path, item, returning)
        steps += step
        missing += [] if step else [path]
    steps += [
        transaction.Step(transaction.MOVE, step.source, step.target, step.size, step.mtime_ns)
        for path, step in returning.items()
        if path not in before and transaction.is_file_of(layout.run, step.target, step)
    ]
    made = [path for path, item in now.items() if item.kind == FOLDER and path not in before]
    return steps + [transaction.Step(transaction.RMDIR, path) for path in sorted(made, reverse=True)], missing


def _back(
    layout: RunLayout, id: str, of: str, path: str, item: Item, returning: dict[str, transaction.Step]
) -> list[transaction.Step]:
    step = returning.get(path)
    if step is not None and transaction.is_file_of(layout.run, step.target, step):
        return [transaction.Step(transaction.MOVE, path, step.target, step.size, step.mtime_ns)]
    kept = f"nantui/backups/{of}/{COPIES}/{path}"
    state = transaction.state_at(layout.run, kept) if item.kind == FILE and item.copied else None
    if state is None or not stat.S_ISREG(state.st_mode):
        return []
    staged = f"nantui/{transaction.STAGED}{id}-{uuid.uuid4().hex[:8]}"
    with inside(layout.run, kept) as copy, inside(layout.run, staged) as beside:
        transaction.copy_durably(copy, beside)
    return [transaction.move(layout.run, staged, path)]
