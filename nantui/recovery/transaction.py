"""A journaled transaction over a run directory: it is finished or taken back, whatever kills it.

Its steps are in the journal before the first one is done. They only move files, never delete and never
overwrite one. Whether a step was done follows from where the file with the expected size and modification
time lies, so nobody has to trust a counter. The images that a rollback leaves out go on their list with it,
and come off it with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import filecmp
import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nantui.errors import FAILED, UserError
from nantui.run.atomic_files import sync_directory
from nantui.run.documents import JsonObject, Large, fields_of
from nantui.run.events import PhaseBegun, RollbackBegun, UndoBegun, document_of
from nantui.run.inside import inside, parts_of, refuse_foreign
from nantui.run.journal import Journal, interrupted
from nantui.run.layout import RunLayout
from nantui.run.quarantine import quarantine_add, quarantine_undo
from nantui.run.spec import own_uids

RENAME_NOREPLACE = 1
AT_FDCWD = -100
FICLONE = 0x40049409
"""The ioctl that lets a file share the blocks of another (btrfs, XFS)."""
ROLLBACK, UNDO, PHASE = "rollback", "undo", "phase"
LEFT_OUT = "recovery {:.8}"  # why a rollback leaves images out: its undo knows them by that
STAGED = ".nantui-"
"""Files that are prepared before anything moves begin with this, followed by the transaction's id."""

MKDIR, MOVE, RMDIR = "mkdir", "move", "rmdir"
TO_DO, DONE, IMPOSSIBLE = "to do", "done", "impossible"


@dataclass(frozen=True)
class Transaction:
    """What is to be done: `kind` is ROLLBACK, UNDO or PHASE, `about` goes into the journal with the steps."""

    id: str
    kind: str
    steps: tuple[Step, ...]
    about: JsonObject


def carry_out(layout: RunLayout, transaction: Transaction, *, by: str) -> None:
    """Do every step, or none.

    Raises UserError when it could not be done; everything is then as it was, and the text says so.
    """
    if blocked := _blocked(layout, transaction):
        discard_staged(layout, transaction.id)
        where = f"{blocked.source} or {blocked.target}" if blocked.source else blocked.target
        raise UserError(f"{where} was changed by somebody else; nothing was done", FAILED)
    planned = {**transaction.about, "steps": [asdict(step) for step in transaction.steps]}
    try:
        Journal(layout.journal).append(f"{transaction.kind}_begun", by=by, id=transaction.id, **planned)
        _do_all(layout, transaction, by)
    except OSError as error:
        take_back(layout, transaction, by=by, why=str(error))
        text = f"{transaction.kind} failed ({error}); everything was put back as it was"
        raise UserError(text, FAILED) from error


def _blocked(layout: RunLayout, transaction: Transaction) -> Step | None:
    """Return the first step that cannot be done any more; what an earlier one moves away is in no way."""
    for index, step in enumerate(transaction.steps):
        made = any(earlier.source == step.target for earlier in transaction.steps[:index])
        if not made and state_of(layout.run, step) == IMPOSSIBLE:
            return step
    return None


def _do_all(layout: RunLayout, transaction: Transaction, by: str) -> None:
    journal, id = Journal(layout.journal), transaction.id
    quarantine_add(layout, transaction.about.get("images") or (), LEFT_OUT.format(id), by)
    for index, step in enumerate(transaction.steps):
        journal.append("rollback_step", by=by, id=id, index=index)
        do(layout.run, step)
    said = {name: value for name, value in transaction.about.items() if name in ("text", "of", "phase")}
    journal.append(f"{transaction.kind}_done", by=by, id=id, **said)


def take_back(layout: RunLayout, transaction: Transaction, *, by: str, why: str) -> None:
    """Revert every step that was done, newest first, and say so in the journal.

    What somebody else has put in the way meanwhile moves into nantui/backups. Raises UserError when a
    file cannot be put back; nothing is lost then either, and the next start tries again.
    """
    try:
        for step in reversed(transaction.steps):
            _clear_the_way(layout, transaction, step)
            revert(layout.run, step)
    except OSError as error:
        stopped = f"putting back stopped at {error}; every file still exists, see nantui/journal.jsonl"
        raise UserError(f"{why}; and {stopped}", FAILED) from error
    discard_staged(layout, transaction.id)
    with contextlib.suppress(OSError):
        # A full disk may refuse even this line. Without the staged files the next start can only take
        # back what is already back, and writes the line then.
        quarantine_undo(layout, by, LEFT_OUT.format(transaction.id))
        Journal(layout.journal).append("rollback_reverted", by=by, id=transaction.id, text=why)


def pending(layout: RunLayout) -> Transaction | None:
    """Return the transaction that was begun and neither done nor taken back, if any.

    Raises UserError where the journal belongs to another user or leads out of the run.
    """
    refuse_foreign(layout.journal, own_uids(layout.lock))
    begun = interrupted(Journal(layout.journal).events())
    if begun is None:
        return None
    parts_of(begun.id)
    kind = {RollbackBegun: ROLLBACK, UndoBegun: UNDO, PhaseBegun: PHASE}[type(begun)]
    return Transaction(begun.id, kind, tuple(map(step_from, begun.steps)), document_of(begun))


def settle(layout: RunLayout, *, by: str) -> str:
    """Finish or take back what a crash left half done; returns what was done in words, "" for nothing.

    Only whoever holds the run may call this. Raises UserError when neither is possible now.
    """
    transaction = pending(layout)
    if transaction is None:
        discard_staged(layout)
        return ""
    was = f"an interrupted {transaction.kind}"
    if _blocked(layout, transaction):
        take_back(layout, transaction, by=by, why="it was interrupted and could not be finished")
        return f"{was} was taken back: everything is as it was before"
    try:
        _do_all(layout, transaction, by)
    except OSError as error:
        take_back(layout, transaction, by=by, why=str(error))
        return f"{was} could not be finished ({error}) and was taken back"
    return f"{was} was finished"


def discard_staged(layout: RunLayout, id: str = "") -> None:
    """Remove what was prepared by the transaction `id` (default: by any, none being under way)."""
    for directory in (layout.run, layout.weights, layout.home):
        with contextlib.suppress(OSError):
            staged = [*directory.glob(f"{STAGED}{id}*"), *directory.glob(f".{STAGED}{id}*.tmp")]
            for path in staged:  # the second kind is what a kill inside `write_atomic` leaves
                path.unlink()


def _clear_the_way(layout: RunLayout, transaction: Transaction, step: Step) -> None:
    waits = step.kind == MOVE and state_of(layout.run, step) == DONE
    if not waits or not state_at(layout.run, step.source) or is_file_of(layout.run, step.source, step):
        return
    aside = f"nantui/backups/{transaction.id}/in_the_way/{step.source}"
    do(layout.run, move(layout.run, step.source, aside, "in the way"))


@dataclass(frozen=True)
class Step:
    """One operation; paths are relative to the run. `size` and `mtime_ns` identify the file that moves."""

    kind: str
    target: str
    source: str = ""
    size: Large = 0
    mtime_ns: Large = 0
    why: str = ""


def step_from(document: Mapping[str, Any]) -> Step:
    """Return the step that the journal kept. Raises UserError for one that leads out of the run."""
    known = fields_of(Step, document)
    if known.get("kind") not in (MKDIR, MOVE, RMDIR):
        raise UserError("nantui/journal.jsonl names a step that is none; nothing was moved", FAILED)
    for path in (known.get("target"), *([known.get("source")] if known["kind"] == MOVE else [])):
        parts_of(path)
    return Step(**known)


def move(run: Path, source: str, target: str, why: str = "") -> Step:
    """Return the step that moves the file now at `source`. Raises OSError when it is not there."""
    state = state_at(run, source)
    if state is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), source)
    return Step(MOVE, target, source, state.st_size, state.st_mtime_ns, why)


def state_at(run: Path, path: str) -> os.stat_result | None:
    """Return the state of what lies at `path` in the run, None for nothing, or what only a link leads to."""
    try:
        with inside(run, path) as place:
            return os.lstat(place)
    except OSError:
        return None


def is_file_of(run: Path, path: str, step: Step) -> bool:
    """Tell whether the file at `path` in the run is the one that `step` moves."""
    state = state_at(run, path)
    return state is not None and (state.st_size, state.st_mtime_ns) == (step.size, step.mtime_ns)


def state_of(run: Path, step: Step) -> str:
    """Return TO_DO, DONE or IMPOSSIBLE, from the disk alone."""
    target = state_at(run, step.target)
    is_folder = target is not None and stat.S_ISDIR(target.st_mode)
    if step.kind == MKDIR:
        return DONE if is_folder else IMPOSSIBLE if target else TO_DO
    if step.kind == RMDIR:
        return TO_DO if is_folder else DONE
    if is_file_of(run, step.target, step):
        return DONE
    return TO_DO if target is None and is_file_of(run, step.source, step) else IMPOSSIBLE


def do(run: Path, step: Step) -> None:
    """Carry the step out, also when it was half done before. Raises OSError; then it is as it was."""
    if step.kind == MKDIR:
        _make_folder(run, step.target)
    elif step.kind == RMDIR:
        _remove_empty(run, step.target)
    elif is_file_of(run, step.target, step):
        _drop_leftover(run, step)
    else:
        _move(run, step.source, step.target, step)


def revert(run: Path, step: Step) -> None:
    """Take the step back, if it was done. Raises OSError when something stands in the way."""
    if step.kind == RMDIR:
        _make_folder(run, step.target)
    elif step.kind == MKDIR:
        _remove_empty(run, step.target)
    elif is_file_of(run, step.target, step) and not is_file_of(run, step.source, step):
        _move(run, step.target, step.source, step)
    if step.kind == MOVE:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError), inside(run, step.target) as target:
            _beside(target).unlink()


def _make_folder(run: Path, path: str) -> None:
    with inside(run, path, make=True) as place:
        if not place.is_dir() or place.is_symlink():
            place.mkdir()
        sync_directory(place.parent)


def _move(run: Path, source_path: str, target_path: str, step: Step) -> None:
    if not is_file_of(run, source_path, step):
        raise FileNotFoundError(errno.ENOENT, "gone or changed by somebody else", source_path)
    with inside(run, source_path) as source, inside(run, target_path, make=True) as target:
        try:
            rename_without_replacing(source, target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            _move_to_other_disk(source, target)
        sync_directory(target.parent)
        sync_directory(source.parent)


def rename_without_replacing(source: Path, target: Path) -> None:
    """Rename, failing with FileExistsError instead of replacing, also when two do it at once.

    Linux renames that way in one call (renameat2); where the kernel or the file system cannot, the name is
    looked at first.
    """
    library = ctypes.CDLL(None, use_errno=True)
    call = getattr(library, "renameat2", None)
    if call is not None:
        if call(AT_FDCWD, os.fsencode(source), AT_FDCWD, os.fsencode(target), RENAME_NOREPLACE) == 0:
            return
        code = ctypes.get_errno()
        if code not in (errno.ENOSYS, errno.EINVAL, errno.EPERM):
            raise OSError(code, os.strerror(code), str(source), None, str(target))
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
    os.rename(source, target)


def _move_to_other_disk(source: Path, target: Path) -> None:
    beside = _beside(target)
    beside.unlink(missing_ok=True)
    try:
        copy_durably(source, beside)
        rename_without_replacing(beside, target)
    finally:
        beside.unlink(missing_ok=True)
    sync_directory(target.parent)
    source.unlink()


def _beside(target: Path) -> Path:
    """Return where a move between disks copies to first; a kill may leave it there."""
    return target.with_name(f".nantui-moving-{target.name}")


def _drop_leftover(run: Path, step: Step) -> None:
    """After a crash between the two halves of a move between disks the file exists twice."""
    if step.source != step.target and is_file_of(run, step.source, step):
        with inside(run, step.source) as source, inside(run, step.target) as target:
            if filecmp.cmp(source, target, shallow=False) and not os.path.samefile(source, target):
                source.unlink()


def _remove_empty(run: Path, path: str) -> None:
    """Remove a directory that is empty; one that somebody has put something into stays."""
    try:
        with inside(run, path) as directory:
            directory.rmdir()
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise


def copy_durably(source: Path, target: Path) -> None:
    """Copy a file (shared blocks where the file system can, never a hard link) with its times, and fsync it.

    Raises OSError (disk full, no permission); the target may then be there in part.
    """
    if source.is_symlink():
        os.symlink(os.readlink(source), target)
        return
    with source.open("rb") as reader, target.open("xb") as writer:
        try:
            fcntl.ioctl(writer, FICLONE, reader.fileno())
        except OSError:
            shutil.copyfileobj(reader, writer, 1 << 22)
        writer.flush()
        os.fsync(writer.fileno())
    shutil.copystat(source, target)


def points_aside(layout: RunLayout, aside: str) -> list[Step]:
    """Return the moves of all step points into the folder `aside` of the run. Raises OSError."""
    files = sorted(path.relative_to(layout.run) for path in layout.points.glob("*") if path.is_file())
    return [move(layout.run, str(path), f"{aside}/{path}", "a step point of before") for path in files]
