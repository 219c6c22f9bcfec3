"""The steps of a rollback: moves that never overwrite, whose state can be read from the disk.

A transaction that only moves files, never deletes and never overwrites one, cannot lose a byte. Whether a
step was done follows from where the file with the expected size and modification time lies, so after a
crash nobody has to trust a counter.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import filecmp
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nantui.run.files import sync_directory

MKDIR, MOVE, RMDIR = "mkdir", "move", "rmdir"
TO_DO, DONE, IMPOSSIBLE = "to do", "done", "impossible"
RENAME_NOREPLACE = 1
AT_FDCWD = -100


@dataclass(frozen=True)
class Step:
    """One operation; paths are relative to the run. `size` and `mtime_ns` identify the file that moves."""

    kind: str
    target: str
    source: str = ""
    size: int = 0
    mtime_ns: int = 0
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the step as the journal keeps it."""
        return asdict(self)


def step_from(document: Mapping[str, Any]) -> Step:
    """Return the step that the journal kept."""
    return Step(**{name: document[name] for name in Step.__dataclass_fields__ if name in document})


def move(run: Path, source: str, target: str, why: str = "") -> Step:
    """Return the step that moves the file now at `source`. Raises OSError when it is not there."""
    state = os.lstat(run / source)
    return Step(MOVE, target, source, state.st_size, state.st_mtime_ns, why)


def is_file_of(path: Path, step: Step) -> bool:
    """Tell whether the file at `path` is the one that `step` moves."""
    try:
        state = os.lstat(path)
    except OSError:
        return False
    return (state.st_size, state.st_mtime_ns) == (step.size, step.mtime_ns)


def state_of(run: Path, step: Step) -> str:
    """Return TO_DO, DONE or IMPOSSIBLE, from the disk alone."""
    target = run / step.target
    if step.kind == MKDIR:
        return DONE if target.is_dir() else IMPOSSIBLE if os.path.lexists(target) else TO_DO
    if step.kind == RMDIR:
        return TO_DO if target.is_dir() else DONE
    if is_file_of(target, step):
        return DONE
    free = not os.path.lexists(target)
    return TO_DO if free and is_file_of(run / step.source, step) else IMPOSSIBLE


def do(run: Path, step: Step) -> None:
    """Carry the step out, also when it was half done before. Raises OSError; then it is as it was."""
    if step.kind == MKDIR:
        (run / step.target).mkdir(parents=True, exist_ok=True)
        sync_directory((run / step.target).parent)
    elif step.kind == RMDIR:
        _remove_empty(run / step.target)
    elif is_file_of(run / step.target, step):
        _drop_leftover(run / step.source, run / step.target, step)
    else:
        _move(run / step.source, run / step.target, step)


def revert(run: Path, step: Step) -> None:
    """Take the step back, if it was done. Raises OSError when something stands in the way."""
    if step.kind == RMDIR:
        (run / step.target).mkdir(parents=True, exist_ok=True)
    elif step.kind == MKDIR:
        _remove_empty(run / step.target)
    elif is_file_of(run / step.target, step) and not is_file_of(run / step.source, step):
        _move(run / step.target, run / step.source, step)
    if step.kind == MOVE:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            _beside(run / step.target).unlink()


def _move(source: Path, target: Path, step: Step) -> None:
    if not is_file_of(source, step):
        raise FileNotFoundError(errno.ENOENT, "gone or changed by somebody else", str(source))
    target.parent.mkdir(parents=True, exist_ok=True)
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
    """Move between file systems: a whole and durable copy first, the original goes last."""
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


def _drop_leftover(source: Path, target: Path, step: Step) -> None:
    """After a crash between the two halves of a move between disks the file exists twice."""
    if is_file_of(source, step) and filecmp.cmp(source, target, shallow=False):
        source.unlink()


def _remove_empty(directory: Path) -> None:
    """Remove a directory that is empty; one that somebody has put something into stays."""
    try:
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
        if not _reflink(reader.fileno(), writer.fileno()):
            shutil.copyfileobj(reader, writer, 1 << 22)
        writer.flush()
        os.fsync(writer.fileno())
    shutil.copystat(source, target)


def _reflink(source: int, target: int) -> bool:
    """Let `target` share the blocks of `source` (btrfs, XFS); False where the file system cannot."""
    import fcntl

    ficlone = 0x40049409
    try:
        fcntl.ioctl(target, ficlone, source)
    except OSError:
        return False
    return True
