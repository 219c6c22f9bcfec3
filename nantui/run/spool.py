"""The spool: commands as one-file messages, put there by rename, taken only from the same owner."""

from __future__ import annotations

import json
import os
import stat
import time
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from nantui.errors import FAILED, UserError
from nantui.run.files import to_json, write_json
from nantui.run.journal import author

KINDS = ("start", "stop", "kill", "rollback", "undo", "resume", "recover", "set", "quarantine")
LARGEST = 1 << 25


@dataclass(frozen=True)
class Command:
    """One thing a person or the policy asks the supervisor to do."""

    kind: str
    options: dict[str, Any] = field(default_factory=dict)
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    by: str = field(default_factory=author)
    t: float = field(default_factory=time.time)


def put(directory: Path, command: Command) -> Path:
    """Leave `command` for the supervisor; returns its file. Raises UserError when it cannot be left."""
    if command.kind not in KINDS:
        raise ValueError(f"no such command: {command.kind}")
    path = directory / f"{int(command.t * 1000):013d}-{command.id}.json"
    if len(to_json(asdict(command))) > LARGEST // 2:
        raise UserError(f"this {command.kind} says too much at once; do it in parts", FAILED)
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_json(path, asdict(command), mode=0o600)
    except OSError as error:
        why = error.strerror
        raise UserError(f"cannot leave a command in {directory}: {why}; nothing was done", FAILED) from error
    return path


def pending(directory: Path) -> list[tuple[Path, Command]]:
    """Return the commands that wait, oldest first, leaving out other owners' files and nonsense."""
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".json") and name[0] != ".")
    except OSError:
        return []
    found = ((directory / name, _take(directory / name)) for name in names)
    return [(path, command) for path, command in found if command is not None]


def _take(path: Path) -> Command | None:
    """Read one command, checking owner and kind of file on the opened descriptor."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        state = os.fstat(file.fileno())
        if not stat.S_ISREG(state.st_mode) or state.st_uid != os.getuid() or state.st_size > LARGEST:
            return None
        try:
            return _command(json.loads(file.read()))
        except (ValueError, TypeError, KeyError):
            return None


def _command(document: dict[str, Any]) -> Command:
    command = Command(**{name: document[name] for name in Command.__dataclass_fields__})
    if command.kind not in KINDS or not isinstance(command.options, dict):
        raise ValueError(command.kind)
    return command
