"""Where commands for a run are left: in the run directory, or in a private folder of this host.

Commands are obeyed because only the owner can write there. Where the mount squashes owners or ignores chmod
that does not hold, so commands go through a 0700 folder below the user's own state directory instead.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from functools import lru_cache
from pathlib import Path

from nantui.run import spool
from nantui.run.layout import RunLayout
from nantui.run.spool import Command


def is_private(directory: Path) -> bool:
    """Tell whether only this user can write into `directory`, making it (0700) where it does not exist."""
    with contextlib.suppress(FileExistsError):
        try:
            directory.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            raise
        except OSError:
            return False
    try:
        state = os.lstat(directory)
    except OSError:
        return False
    if stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid() and state.st_mode & 0o077:
        with contextlib.suppress(OSError):
            os.chmod(directory, 0o700)
            state = os.lstat(directory)
    return stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid() and not state.st_mode & 0o077


def local_spool(layout: RunLayout) -> Path:
    """Return this host's private folder for commands to the run."""
    return _local_spool(layout.run, os.environ.get("XDG_STATE_HOME") or "")


@lru_cache(maxsize=64)
def _local_spool(run: Path, state_home: str) -> Path:
    """Worked out once: a supervisor looks there several times a second."""
    base = Path(state_home) if state_home else Path.home() / ".local" / "state"
    name = hashlib.sha256(os.fsencode(run.resolve())).hexdigest()[:16]
    return base / "nantui" / "commands" / name


def spool_for(layout: RunLayout) -> Path:
    """Return where to leave a command for the run."""
    return layout.commands if is_private(layout.commands) else local_spool(layout)


def pending(layout: RunLayout) -> list[tuple[Path, Command]]:
    """Return the commands that wait in either place, oldest first; only private places are read."""
    places = [layout.commands, local_spool(layout)]
    found = [
        item
        for place in places
        if os.path.isdir(place) and is_private(place)
        for item in spool.pending(place)
    ]
    return sorted(found, key=lambda item: item[0].name)
