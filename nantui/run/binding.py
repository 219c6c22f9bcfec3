"""Where a run was made: what is kept of it outside the run, so that no file in a run can claim it.

A run directory is copied, unpacked, handed on. What its files name (interpreter, command, waiting commands,
unattended recovery, lock) counts only where this user made the run on this host, or has agreed to it there.
That is written down in the user's own state directory: path, device and inode, host, owner.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from nantui.errors import refused
from nantui.machine.process_identity import host_name
from nantui.paths import user_state_dir
from nantui.run.atomic_files import Identity, identity, read_json, read_text
from nantui.run.attempts import read_attempt
from nantui.run.documents import Large, known_fields
from nantui.run.events import documents
from nantui.run.layout import RunLayout

HERE, MOVED, STRANGE = "here", "moved", "strange"
STARTS = frozenset({"start", "resume", "recover", "rollback", "set"})
"""Commands that run, or keep, what a run names: they need one that was made, or agreed to, here."""


class Record(NamedTuple):
    """Which directory it was, and on which host."""

    path: str
    dev: Large
    ino: Large
    host: str
    owner: Large


def bind(run: Path) -> None:
    """Write down that the run in `run` is this user's, here. Raises UserError where that cannot be kept.

    Commands that somebody else has left waiting in it are put aside first, and are never carried out.
    """
    run, known = run.resolve(), standing(run)
    if known == STRANGE:
        commands = RunLayout(run).commands
        with refused(f"{commands} cannot be put aside"), contextlib.suppress(FileNotFoundError):
            commands.rename(commands.with_name(f"commands-not-carried-out-{os.urandom(4).hex()}"))
    if known != HERE or not any(one.path == str(run) for one in _records(identity(_file()))):
        _append(run)


def standing(run: Path) -> str:
    """Return HERE for a run that was made or agreed to in this place, MOVED for one that was and lies
    elsewhere on this host now, else STRANGE.
    """
    try:
        return _standing(_record(run.resolve()), identity(_file()))
    except OSError:
        return STRANGE


def another_was_here(run: Path) -> bool:
    """Tell whether a run was bound in this place that is not the directory which lies there now."""
    now = os.stat(run).st_ino if run.exists() else None
    return bool(_inodes(identity(_file())).get(str(run), set()) - {now})


@lru_cache(maxsize=2)
def _inodes(seen: Identity) -> dict[str, set[object]]:
    """Return which directories were bound in each place of this host: asked of every run, every second."""
    found: dict[str, set[object]] = {}
    for one in (one for one in _records(seen) if one.host == host_name()):
        found.setdefault(one.path, set()).add(one.ino)
    return found


def bound_here() -> list[Path]:
    """Return where this user's runs of this host lay when they were bound, in that order."""
    own = (one.path for one in _records(identity(_file())) if one.host == host_name())
    return [Path(path) for path in dict.fromkeys(own)]


def was_in(run: Path) -> str:
    """Return where a run that was moved was bound last, "" where nothing is known of it."""
    now = _record(run.resolve())
    return next((one.path for one in reversed(_records(identity(_file()))) if one[1:] == now[1:]), "")


def _record(run: Path) -> Record:
    state = os.stat(run)
    return Record(str(run), state.st_dev, state.st_ino, host_name(), state.st_uid)


@lru_cache(maxsize=256)
def _standing(now: Record, seen: Identity) -> str:
    who = (now.ino, now.host, now.owner)
    own = [one for one in _records(seen) if (one.ino, one.host, one.owner) == who]
    # The number of a network's or container's device changes with each mount, an inode's does not.
    if any(one.path == now.path for one in own):
        return HERE
    if any(one.dev == now.dev for one in own):
        return MOVED
    return HERE if _lay_here_before(RunLayout(Path(now.path))) else STRANGE


@lru_cache(maxsize=2)
def _records(seen: Identity) -> list[Record]:
    """Return every record, oldest first; `seen` is the file as it was, read again once it has changed."""
    found = (known_fields(Record, one) for one in _lines())
    return [one for one in found if one is not None]


def _lay_here_before(layout: RunLayout) -> bool:
    """Tell whether a version that kept no records made the run here.

    Its files name this place, and they lay in it before the first record was kept: the time of an inode's
    last change is the kernel's, so that no archive brings an older one along.
    """
    first, asked = layout.attempt(1), read_attempt(layout, 1)
    began = next((one["t"] for one in _lines() if isinstance(one, dict) and "t" in one), time.time())
    try:
        if not layout.is_ours() or {os.lstat(path).st_uid for path in (layout.home, first)} != {os.getuid()}:
            return False
        if os.lstat(first).st_ctime > began or asked is None:
            return False
    except OSError:
        return False
    host = (read_json(layout.supervisor) or {}).get("host", host_name())
    return host == host_name() and str(layout.run) in [*asked.argv, asked.train.get("save_dir")]


def _lines() -> Iterator[Any]:
    return documents((read_text(_file()) or "").splitlines())


def begin_records() -> None:
    """Write down since when runs are recorded, once. Raises UserError where no run can be: whoever makes one
    asks before there is a directory.
    """
    if not os.access(_file(), os.W_OK):
        _append()


def _append(run: Path | None = None) -> None:
    with refused(f"{_file().parent} cannot be written", "set XDG_STATE_HOME"):
        about = _record(run)._asdict() if run else {}
        _file().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(_file(), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "ab") as file:
            file.write((json.dumps({"t": time.time(), **about}) + "\n").encode())


def _file() -> Path:
    return user_state_dir() / "runs.jsonl"
