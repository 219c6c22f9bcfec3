"""The journal: everything that was done to a run, append-only and on the disk before it is done.

Only the holder of the run's lock appends. Readers skip a torn or foreign line, so a crash in the middle
of a write costs at most the line that was being written.

Whoever moves a run's files holds its journal (flock) while it does: the helper that carries a rollback out
outlives the supervisor that asked for it, and the run's own lock then belongs to the next supervisor, which
would start a second helper on the same files. What the helper starts inherits the descriptor: the lock is
free when all of them have ended, whatever killed which. NFS passes it on to the server; a mount without locks
leaves the run's own lock to do it alone.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import getpass
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

from nantui.errors import FAILED, UserError, refused
from nantui.machine.process_identity import host_name
from nantui.run import events as kinds
from nantui.run.atomic_files import read_text, to_json
from nantui.run.documents import LARGEST_TEXT, JsonObject
from nantui.run.events import Event, newest, of_kind, parse_lines
from nantui.run.layout import RunLayout
from nantui.terminal_text import printable

LONGEST_S = 900.0
POLL_S = 0.02
TAKEN = frozenset({errno.EAGAIN, errno.EACCES})
RESUMES_KEPT = 2
"""How many resumes can be taken back: the copies of older ones have gone."""
Undoable: TypeAlias = kinds.RollbackBegun | kinds.PhaseBegun | kinds.Kept
UNDOABLES = (kinds.RollbackBegun, kinds.PhaseBegun, kinds.Kept)
UNDOABLE = "rollback, resume or change of phase"
VIA, LONGEST_VIA = "NANTUI_VIA", 20
"""A variable in which a program that acts for a person says what it is."""


def author() -> str:
    """Return who acts, as `user@host`, and through what, where that is told in the environment (`VIA`)."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    via = os.environ.get(VIA, "")
    return f"{user}@{host_name()}" + (f" via {printable(via, LONGEST_VIA)}" if via else "")


class Journal:
    """Appends to and reads `journal.jsonl`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, kind: str, *, by: str = "supervisor", **fields: object) -> dict[str, object]:
        """Write one entry and wait until it is on the disk. Raises OSError when it cannot be kept."""
        entry: dict[str, object] = {"t": time.time(), "kind": kind, "by": by, **fields}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o666)
        try:
            size = os.fstat(descriptor).st_size
            torn = size and os.pread(descriptor, 1, size - 1) != b"\n"
            data = (b"\n" if torn else b"") + (to_json(entry) + "\n").encode()
            if os.write(descriptor, data) < len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return entry

    def events(self) -> list[Event]:
        """Return all whole entries as typed events, oldest first; an unreadable journal is an empty one.

        Raises UserError for one that is too large: nobody may act as if it were empty.
        """
        text = read_text(self.path)
        if text is None and os.path.isfile(self.path) and os.path.getsize(self.path) > LARGEST_TEXT:
            raise UserError(f"{self.path} is larger than {LARGEST_TEXT >> 20} MiB: move it away", FAILED)
        return parse_lines((text or "").split("\n"))


def rolled_back_before(events: Sequence[Event], id: str) -> JsonObject | None:
    """Return the answer of a rollback finished for the command `id` and not trained on, else None."""
    own = (one for one in of_kind(events, kinds.RollbackBegun) if one.id == id)
    begun = newest(own, kinds.RollbackBegun)
    others = (one for one in events if not (isinstance(one, kinds.AttemptStarted) and one.command == id))
    latest = newest(others, kinds.RollbackDone, kinds.AttemptStarted)
    if begun is None or not isinstance(latest, kinds.RollbackDone) or latest.id != id:
        return None
    return {"mode": begun.mode, "asked": begun.changed, "text": begun.text}


def newest_in_force(journal: Iterable[Event]) -> Undoable | None:
    """Return what `undo` would take back: a rollback, a change of phase or a resume; None without one."""
    return next(reversed(in_force(journal)), None)


def in_force(journal: Iterable[Event]) -> list[Undoable]:
    """Return what can be taken back, oldest first; of resumes only the newest, whose copies are there."""
    begun: dict[str, Undoable] = {}
    found: dict[str, Undoable] = {}
    for event in journal:
        if isinstance(event, (kinds.RollbackBegun, kinds.PhaseBegun)):
            begun[event.id] = event
        elif isinstance(event, (kinds.RollbackDone, kinds.PhaseDone)) and event.id in begun:
            found[event.id] = begun[event.id]
        elif isinstance(event, kinds.Kept):
            found[event.id] = event
            for old in of_kind(found.values(), kinds.Kept)[:-RESUMES_KEPT]:
                del found[old.id]
        elif isinstance(event, kinds.UndoDone):
            found.pop(event.of, None)
    return list(found.values())


def not_taken_back(journal: Iterable[Event]) -> list[Event]:
    """Return what happened, oldest first, without each change that was undone and all that came of it."""
    kept: list[Event] = []
    for event in journal:
        if isinstance(event, kinds.UndoDone):
            own = (at for at, one in enumerate(kept) if isinstance(one, UNDOABLES) and one.id == event.of)
            del kept[next(own, len(kept)) :]
        else:
            kept.append(event)
    return kept


def attempts_in_force(journal: Iterable[Event]) -> frozenset[int]:
    """Return the attempts whose steps the present weights may hold, whatever clocks say: since the newest
    rollback, change of phase or beginning, and without what was taken back.
    """
    now: frozenset[int] = frozenset()
    before: dict[str, frozenset[int]] = {}
    for event in journal:
        if isinstance(event, kinds.AttemptStarted) and event.attempt is not None:
            now = (now if event.mode == "resume" else frozenset()) | {event.attempt}
        elif isinstance(event, UNDOABLES):
            before[event.id] = now
            now = now if isinstance(event, kinds.Kept) else frozenset()
        elif isinstance(event, kinds.UndoDone):
            now = before.get(event.of, frozenset())
        elif isinstance(event, kinds.RollbackReverted):
            now = before.get(event.id, now)
    return now


def standing_attempt(events: Sequence[Event], made: int) -> int:
    """Return the attempt whose work stands: after an undo that of before, else the newest that was `made`, as
    where the journal knows nothing of that one (under `attach`).
    """
    begun = newest(events, kinds.AttemptStarted)
    known = begun is not None and begun.attempt == made
    return max(attempts_in_force(events), default=made) if known else made


def interrupted(events: Iterable[Event]) -> kinds.RollbackBegun | kinds.UndoBegun | kinds.PhaseBegun | None:
    """Return how the transaction was begun that was neither finished nor taken back, None without one."""
    begun: kinds.RollbackBegun | kinds.UndoBegun | kinds.PhaseBegun | None = None
    for event in events:
        if isinstance(event, kinds.TRANSACTION_BEGINS):
            begun = event
        elif isinstance(event, kinds.TRANSACTION_ENDS):
            begun = None if begun is not None and event.id == begun.id else begun
    return begun


def pending_edits(events: Iterable[Event]) -> dict[str, object]:
    """Return what was set since the last attempt started and not taken back, from the run's journal."""
    edits, events = dict[str, object](), list(events)
    refused = {one.id for one in of_kind(events, kinds.CommandDone) if not one.ok}
    for event in events:
        if isinstance(event, kinds.AttemptStarted):
            edits = {}
        elif isinstance(event, kinds.CommandReceived) and event.command.kind == "set":
            if event.command.id in refused:
                continue
            values, back = event.command.options.get("set"), event.command.options.get("back")
            edits.update(values if isinstance(values, dict) else {})
            for name in back if isinstance(back, list) else ():
                edits.pop(name, None)
    return edits


@contextlib.contextmanager
def sole_doer(layout: RunLayout, longest_s: float = LONGEST_S, untouched: bool = False) -> Iterator[None]:
    """Wait for whoever is at work on the run's files, then be the only one while this lasts. Who leaves them
    `untouched` waits only for others who do: its lock is the directory's, and no file is made.

    Raises UserError when the other does not end in time, or the journal cannot be opened.
    """
    with refused(str(layout.journal), "nothing was done"):
        if untouched:
            descriptor = os.open(layout.run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        else:
            layout.home.mkdir(exist_ok=True)
            descriptor = _open(layout, os.O_CREAT)
    try:
        if not take(descriptor, longest_s):
            text = f"another process has been at work on it for {longest_s:.0f} s"
            raise UserError(f"{layout.run.name}: {text}; nothing was done", FAILED)
        os.set_inheritable(descriptor, True)
        yield
    finally:
        os.close(descriptor)


def is_being_done(layout: RunLayout) -> bool:
    """Tell whether some process is at work on the run's files now."""
    try:
        descriptor = _open(layout)
    except OSError:
        return False
    try:
        return not take(descriptor)
    finally:
        os.close(descriptor)


def _open(layout: RunLayout, flags: int = 0) -> int:
    return os.open(layout.journal, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | flags, 0o666)


def take(descriptor: int, longest_s: float = 0.0) -> bool:
    """Take the lock once it is free, False where it is not within `longest_s`; True also where this mount has
    no locks at all.
    """
    until = time.monotonic() + longest_s
    while not (free := _take_now(descriptor)) and time.monotonic() < until:
        time.sleep(POLL_S)
    return free


def _take_now(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in TAKEN
    return True
