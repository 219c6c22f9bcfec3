"""The spool: commands as one-file messages, put there by rename, taken only from the same owner.

Where commands for a run are left: in the run directory, or in a private folder of this host.

Commands are obeyed because only the owner can write there. Where the mount squashes owners or ignores chmod
that does not hold, so commands go through a 0700 folder below the user's own state directory instead.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import stat
import time
import uuid
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

from nantui.errors import FAILED, UserError
from nantui.paths import user_state_dir
from nantui.run import binding
from nantui.run.atomic_files import read_own_json, to_json, write_json
from nantui.run.documents import LARGEST_JSON, JsonObject, fields_of
from nantui.run.journal import author
from nantui.run.layout import RunLayout

KINDS = ("start", "stop", "kill", "rollback", "undo", "resume", "recover", "rewind", "set", "quarantine")
ENDS = frozenset({"stop", "kill"})
POLICY = "policy"
"""Who asks for what nobody asked for, where a run may go on unattended."""
_PUT = itertools.count()


@dataclass(frozen=True)
class Command:
    """One thing a person or the policy asks the supervisor to do."""

    kind: str
    options: JsonObject = field(default_factory=dict)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    by: str = field(default_factory=author)
    t: float = field(default_factory=time.time)


def put(directory: Path, command: Command, instead: Path | None = None) -> Path:
    """Leave `command` for the supervisor, `instead` in another folder where the disk refuses it.

    Returns its file. Raises UserError when it cannot be left.
    """
    if command.kind not in KINDS:
        raise ValueError(f"no such command: {command.kind}")
    # The time in µs, which sorts after an older version's in ms, and what tells apart those of one moment.
    path = directory / f"{int(command.t * 1e6):016d}-{next(_PUT):06d}-{command.id}.json"
    if len(to_json(asdict(command))) > LARGEST_JSON // 2:
        raise UserError(f"this {command.kind} says too much at once; do it in parts", FAILED)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(path, asdict(command), mode=0o600)
    except OSError as error:
        if instead is not None and is_private(instead):
            return put(instead, command)
        why = error.strerror
        raise UserError(f"cannot leave a command in {directory}: {why}; nothing was done", FAILED) from error
    return path


def pending(directory: Path) -> list[tuple[Path, Command]]:
    """Return the commands that wait, oldest first, leaving out other owners' files and nonsense."""
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".json") and name[0] != ".")
    except OSError:
        return []
    found = []
    for path in (directory / name for name in names):
        known = fields_of(Command, read_own_json(path) or {})
        if known.get("kind") in KINDS and len(known) == len(Command.__dataclass_fields__):
            found.append((path, Command(**known)))
    return found


def is_private(directory: Path) -> bool:
    """Tell whether only this user can write into `directory`, making it (0700) where it does not exist."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        state = os.lstat(directory)
        mine = stat.S_ISDIR(state.st_mode) and state.st_uid == os.getuid()
        if mine and state.st_mode & 0o077:
            with contextlib.suppress(OSError):
                os.chmod(directory, 0o700)
            state = os.lstat(directory)
    except OSError:
        return False
    return mine and not state.st_mode & 0o077


def local_spool(layout: RunLayout) -> Path:
    """Return this host's private folder for commands to the run."""
    return user_state_dir() / "commands" / _spool_name(layout.run)


def local_copies(layout: RunLayout) -> Path:
    """Return this host's private folder for what the run's disk refuses just now: state and journal lines."""
    return user_state_dir() / "unwritten" / _spool_name(layout.run)


@lru_cache(maxsize=64)
def _spool_name(run: Path) -> str:
    """Worked out once: a supervisor looks there several times a second."""
    return hashlib.sha256(os.fsencode(run.resolve())).hexdigest()[:16]


def spool_for(layout: RunLayout) -> Path:
    """Return where to leave a command for the run; what waits in one made elsewhere is nobody's command."""
    own = binding.standing(layout.run) == binding.HERE and is_private(layout.commands)
    return layout.commands if own else local_spool(layout)


def pending_commands(layout: RunLayout) -> list[tuple[Path, Command]]:
    """Return the commands that wait in either place, oldest first; only private places are read."""
    places = [layout.commands, local_spool(layout)]
    places = places if binding.standing(layout.run) == binding.HERE else places[1:]
    private = (place for place in places if os.path.isdir(place) and is_private(place))
    return sorted((one for place in private for one in pending(place)), key=lambda one: one[0].name)
