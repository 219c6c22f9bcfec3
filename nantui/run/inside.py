"""Paths that a file of a run names, checked where they are used: inside the run, and across no link.

A journal or a manifest may come from somebody else. What it names is opened folder by folder, from the run's
own descriptor, so that neither `..` nor a link, nor one that is put there in between, leads out.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from nantui.errors import FAILED, UserError
from nantui.run.binding import HERE, standing
from nantui.run.layout import RunLayout

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
LINKED = "weights"
"""The one folder that may be a link, to a larger disk, in a run that is its owner's, where it was made."""


def parts_of(path: object) -> list[str]:
    """Return the parts of a relative path inside a run. Raises UserError for any other."""
    parts = path.split("/") if isinstance(path, str) else []
    if not parts or {"", ".", ".."} & set(parts) or "\0" in str(path):
        raise UserError(f"{path!r} is no path inside the run; nothing was moved", FAILED)
    return parts


@contextlib.contextmanager
def inside(run: Path, path: str, *, make: bool = False) -> Iterator[Path]:
    """Give the place of `path` below an open descriptor of its folder; with `make` folders are made.

    Its last part is not looked at: whoever uses it must not follow a link. Raises UserError for a path that
    leads out of the run by its words, OSError where a folder is missing or a link.
    """
    *folders, name = parts_of(path)
    held = os.open(run, FOLDER)
    try:
        for depth, folder in enumerate(folders):
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(folder, dir_fd=held)
            inner = _open(run, held, folder, may_link=depth == 0 and folder == LINKED)
            os.close(held)
            held = inner
        yield Path(f"/proc/self/fd/{held}/{name}")
    except OSError as error:
        error.filename, error.filename2 = path, None
        raise
    finally:
        os.close(held)


def _open(run: Path, held: int, folder: str, may_link: bool) -> int:
    try:
        return os.open(folder, FOLDER | os.O_NOFOLLOW, dir_fd=held)
    except OSError:
        state = os.stat(folder, dir_fd=held, follow_symlinks=False)
        own_link = stat.S_ISLNK(state.st_mode) and state.st_uid == os.getuid()
        if not (may_link and own_link and standing(run) == HERE):
            raise
        return os.open(folder, FOLDER, dir_fd=held)


def refuse_links(layout: RunLayout) -> None:
    """Raise UserError where our own files or folders in the run are links: writing would leave the run.

    What may not be read just now is none: whoever writes there finds that out.
    """
    weights = () if os.path.isdir(layout.weights) and standing(layout.run) == HERE else (layout.weights,)
    folders = (layout.backups, layout.attempts, layout.commands, layout.hosts, layout.home / "phases")
    files = (layout.journal, layout.supervisor, layout.supervisor_log, layout.lock, layout.spec)
    own = (layout.home, *weights, layout.corrupted_backup, layout.quarantine, *folders, *files)
    with contextlib.suppress(OSError):
        own += tuple(layout.attempts.iterdir())
    for path in own:
        if os.path.islink(path):
            raise UserError(f"{path} is a link: nantui writes into no other place; nothing was done", FAILED)


def refuse_foreign(path: Path, mine: frozenset[int]) -> None:
    """Raise UserError where `path`, by which files are moved, belongs to another user, or is a link."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        state = os.lstat(path)
        if state.st_uid not in mine or stat.S_ISLNK(state.st_mode):
            why = f"belongs to another user (uid {state.st_uid})" if state.st_uid not in mine else "is a link"
            raise UserError(f"{path} {why}: nothing is moved by what it says", FAILED)
