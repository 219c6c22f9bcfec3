"""Who holds a run and where it stands: its lock, and supervisor.json, which its holder alone writes.

The lock dies with its holder and needs nothing but atomic link and rename. It is a file that names its
holder, created by `link`, which is atomic on NFS too, where flock and O_EXCL may not be. A dead holder's lock
is broken by one process only: whoever holds the claim named after the dead holder's token, itself a lock of
the same kind. A holder on another host cannot be judged from here; taking over is then the person's word
(`--take-over`), and only once its heartbeat has gone stale.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nantui.errors import FAILED, UserError
from nantui.machine import process_identity
from nantui.run.atomic_files import read_json, read_text, to_json, write_atomic, write_json
from nantui.run.commands import local_copies
from nantui.run.documents import known_fields
from nantui.run.layout import RunLayout
from nantui.run.status import STARTING

TRIES = 50
BEING_WRITTEN_S = 2.0
"""An unreadable lock that is younger may be one that is just being written, on mounts without links."""
UNREADABLE = "unreadable"


@dataclass(frozen=True)
class Holder:
    """Who holds a lock."""

    machine: process_identity.Machine
    process: process_identity.ProcessRef
    token: str

    def is_dead(self, here: process_identity.Machine) -> bool:
        """Tell whether the holder is certainly gone; False also means "cannot be known from here"."""
        if here.sees_pids_of(self.machine):
            return not process_identity.alive(self.process)
        return here.outlived(self.machine)


class RunLock:
    """The lock file at `path`; one object is one holder, with a token of its own."""

    def __init__(self, path: Path, machine: process_identity.Machine | None = None, token: str = "") -> None:
        """`token` is that of a lock which this process holds already, and which has moved to `path`."""
        self.path = path
        self.machine = machine or process_identity.this_machine()
        self.token = token or uuid.uuid4().hex

    def acquire(self, *, take_over: bool = False) -> Holder | None:
        """Take the lock. Returns None once held, or the other holder.

        Raises OSError where nothing can be written, UserError where the file changes all the time.
        """
        for _ in range(TRIES):
            if self._create():
                return None
            holder = read_holder(self.path)
            if holder is not None and holder.token == self.token:
                return None
            elsewhere = holder is not None and not self.machine.sees_pids_of(holder.machine)
            if holder is not None and not (holder.is_dead(self.machine) or (take_over and elsewhere)):
                return holder
            if holder is None and _just_made(self.path):
                time.sleep(BEING_WRITTEN_S / TRIES * 2)
                continue
            self._break(holder.token if holder else UNREADABLE, take_over)
        raise UserError(f"{self.path} cannot be taken: others take and leave it; try again", FAILED)

    def held(self) -> bool:
        """Tell whether the lock is still ours; somebody may have taken it over.

        A file that cannot be read just now (a file server that is away) is not taken for lost.
        """
        holder = read_holder(self.path)
        if holder is not None:
            return holder.token == self.token
        try:
            self.path.stat()
        except OSError as error:
            return not isinstance(error, FileNotFoundError)
        return True

    def release(self) -> None:
        """Give the lock back, if it is ours."""
        if self.held():
            self.path.unlink(missing_ok=True)

    def _create(self) -> bool:
        beside = self.path.with_name(f".{self.path.name}.{self.token}")
        document = {
            "token": self.token, "process": asdict(process_identity.this_process()),
            **asdict(self.machine), "t": time.time(),
        }  # fmt: skip
        write_json(beside, document)
        try:
            os.link(beside, self.path)
        except FileExistsError:
            return False
        except OSError:
            return self._create_exclusively(beside)
        finally:
            beside.unlink(missing_ok=True)
        return True

    def _create_exclusively(self, beside: Path) -> bool:
        """For mounts without hard links (FAT, some FUSE): O_EXCL is the best there is."""
        try:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        except FileExistsError:
            return False
        with os.fdopen(descriptor, "wb") as file:
            file.write(beside.read_bytes())
        return True

    def _break(self, token: str, take_over: bool) -> None:
        """Remove the lock that carries `token`, as the only one who does."""
        claim = RunLock(self.path.with_name(f"{self.path.name}.break-{token}"), self.machine)
        if claim.acquire(take_over=take_over) is not None:
            return
        try:
            holder = read_holder(self.path)
            if (holder.token if holder else UNREADABLE) == token:
                self.path.unlink(missing_ok=True)
        finally:
            claim.release()


def read_holder(path: Path) -> Holder | None:
    """Return who holds the lock at `path`, None when nobody does (or the file is broken)."""
    document = read_json(path)
    process = process_identity.ref_from((document or {}).get("process"))
    if document is None or process is None:
        return None
    return Holder(process_identity.machine_from(document), process, str(document.get("token", "")))


def _just_made(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime < BEING_WRITTEN_S
    except OSError:
        return False


@dataclass(frozen=True)
class SupervisorState:
    """One snapshot. `heartbeat` and `since` are s since the epoch; `worker` is the process the supervisor
    started.
    """

    process: process_identity.ProcessRef
    machine: process_identity.Machine
    heartbeat: float = 0.0
    state: str = STARTING
    attempt: int | None = None
    attempt_uuid: str = ""
    worker: process_identity.ProcessRef | None = None
    since: float = 0.0
    text: str = ""
    doing: dict[str, object] | None = None
    last_incident: dict[str, object] | None = None
    guarded: bool | None = None
    ending: str = ""
    waiting: process_identity.ProcessRef | None = None
    """What becomes the next worker, brought up early."""

    def to_json(self) -> dict[str, object]:
        """Return the document as docs/file-formats.md describes it."""
        own = asdict(self)
        return {"format": 1, **own.pop("process"), **own.pop("machine"), **own}


def write_state(path: Path, state: SupervisorState) -> None:
    """Replace supervisor.json; where the disk refuses, a copy on this host. Raises OSError for the first."""
    beside = _copy_of(path)
    try:
        write_json(path, state.to_json())
    except OSError:
        with contextlib.suppress(OSError):
            beside.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_json(beside, state.to_json())
        raise
    beside.unlink(missing_ok=True)


def _copy_of(path: Path) -> Path:
    return local_copies(RunLayout(path.parent.parent)) / path.name


def keep_unwritten(layout: RunLayout, entries: Sequence[Mapping[str, Any]]) -> None:
    """Keep the journal's lines that its disk refuses, on this host; none any more removes them."""
    path = local_copies(layout) / layout.journal.name
    with contextlib.suppress(OSError):
        if entries:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomic(path, "".join(to_json(entry) + "\n" for entry in entries))
        else:
            path.unlink(missing_ok=True)


def unwritten_lines(layout: RunLayout) -> list[str]:
    """Return the journal's lines that wait on this host."""
    return (read_text(local_copies(layout) / layout.journal.name) or "").splitlines()


def read_state(path: Path) -> SupervisorState | None:
    """Return what supervisor.json says, or the newer copy on this host; None without one that is whole."""
    both = [state for file in (path, _copy_of(path)) if (state := _read(file)) is not None]
    return max(both, key=lambda state: state.heartbeat, default=None)


def _read(path: Path) -> SupervisorState | None:
    document = read_json(path)
    process = process_identity.ref_from(document)
    if document is None or process is None:
        return None
    own = {"process": process, "machine": process_identity.machine_from(document)}
    refs = {name: process_identity.ref_from(document.get(name)) for name in ("worker", "waiting")}
    return known_fields(SupervisorState, {"state": "", **document, **own, **refs})
