"""The queue as a file: which runs of this user wait on this host, which go, and how the last ones ended.

`queue.json` in the user's own state directory is changed by whoever holds `change.lock` (flock: the kernel
gives it back whatever kills the holder), beside, fsynced and renamed. The process that starts runs holds
`process.lock` for as long as it lives; any command, and each supervisor that ends, starts it again where it
should live and does not.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path

from nantui import entry_points
from nantui.errors import FAILED, UserError, refused
from nantui.machine.process_identity import host_id
from nantui.paths import user_state_dir
from nantui.run.atomic_files import Identity, identity, read_json, write_json
from nantui.run.documents import known_fields
from nantui.run.journal import take
from nantui.run.layout import RunLayout
from nantui.supervisor.helper_process import hash_of, worker_environment

WAITING, GOING = "waiting", "going"
KEPT_ENDED = 50
"""Of what has ended only the newest stay in the list: the runs themselves tell the rest."""
MOST = 20_000
CHANGE_S = 30.0
ASKED_S = 1.0
"""Whoever only asks whether the process lives holds its lock for an instant."""


@dataclass(frozen=True)
class Entry:
    """A run in the queue. `device` is as asked for: "0,1", "cpu", "-1,-1" for any two GPUs, "" for any one;
    `on` are the devices that it has, and `gets` how Ultralytics is told which, "" where that is not changed.
    `id` is that of the command that starts it. Once it has ended, `state` is the run's own.
    """

    number: int
    run: str
    cwd: str
    device: str = ""
    share: bool = False
    asks: str = ""
    environment: str = ""
    state: str = WAITING
    on: list[str] = field(default_factory=list)
    gets: str = ""
    text: str = ""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    added: float = field(default_factory=time.time)

    @property
    def layout(self) -> RunLayout:
        return RunLayout(Path(self.run))

    @property
    def name(self) -> str:
        """How sentences call it."""
        return f"#{self.number} ({os.path.basename(self.run)})"


@dataclass(frozen=True)
class Queue:
    """All entries in their order; `environments` by the name that entries have for theirs."""

    entries: tuple[Entry, ...] = ()
    paused: bool = False
    last: int = 0
    environments: Mapping[str, dict[str, str]] = field(default_factory=dict)

    def in_state(self, state: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.state == state]

    @property
    def busy(self) -> bool:
        """Whether its process has anything to do."""
        return bool(self.in_state(GOING) or (self.in_state(WAITING) and not self.paused))

    def refuse_more(self, new: int) -> None:
        """Raise UserError for more than it holds."""
        if len(self.in_state(WAITING)) + new > MOST:
            raise UserError(f"the queue holds {MOST:,} waiting runs at most; nothing was added", FAILED)

    def added(self, new: list[Entry], environment: dict[str, str]) -> Queue:
        """Return it with `new` entries at its end, numbered."""
        name = hash_of(repr(sorted(environment.items())))
        numbered = [
            replace(entry, number=number, environment=name) for number, entry in enumerate(new, self.last + 1)
        ]
        return replace(
            self, entries=(*self.entries, *numbered), last=self.last + len(new),
            environments={**self.environments, name: environment},
        )  # fmt: skip

    def without_old(self) -> Queue:
        """Return it without what ended long ago, and without environments that nobody waits for."""
        ended = [one.id for one in self.entries if one.state not in (WAITING, GOING)]
        old = set(ended[:-KEPT_ENDED])
        entries = tuple(one for one in self.entries if one.id not in old)
        used = {one.environment for one in entries if one.state in (WAITING, GOING)}
        kept = {name: value for name, value in self.environments.items() if name in used}
        return replace(self, entries=entries, environments=kept)


def folder() -> Path:
    """Return where this user's queue of this host lies: a home may be shared by many."""
    return user_state_dir() / "queue" / host_id()


def queue_file() -> Path:
    return folder() / "queue.json"


def read_queue() -> Queue:
    """Return the queue. Raises UserError for a file that is none: nobody may act as if it were empty."""
    document = read_json(queue_file())
    if document is None and not os.path.lexists(queue_file()):
        return Queue()
    queue, told = known_fields(Queue, document), (document or {}).get("entries")
    if queue is None or not isinstance(told, list) or len(told) != len(queue.entries):
        raise UserError(f"{queue_file()} cannot be read as a queue; mend it or move it away", FAILED)
    return queue


@lru_cache(maxsize=2)
def _places(seen: Identity) -> tuple[dict[str, int], bool]:
    queue = read_queue()
    waiting = {entry.run: place for place, entry in enumerate(queue.in_state(WAITING), 1)}
    return waiting, queue.paused


def place_of(run: Path) -> tuple[int, str]:
    """Return a waiting run's place in the queue from 1, and the words for it; 0 where it does not wait."""
    try:
        places, paused = _places(identity(queue_file()))
    except UserError:
        return 0, ""
    place = places.get(str(run), 0)
    return place, f"place {place} of {len(places)}" + (", paused" if paused else "")


def change(how: Callable[[Queue], Queue]) -> Queue:
    """Change the queue as the only one who does, and return it. Raises UserError where that is not possible;
    it is as it was then.
    """
    with _lock("change.lock", CHANGE_S) as held:
        if not held:
            raise UserError(f"the queue has been locked by another process for {CHANGE_S:.0f} s", FAILED)
        before = read_queue()
        after = how(before).without_old()
        if after != before:
            with refused(f"cannot write {queue_file()}", "nothing was changed"):
                write_json(queue_file(), asdict(after), mode=0o600)
        return after


def update(entry: Entry, changed: Entry) -> bool:
    """Put `changed` in an entry's place; False where somebody has changed it meanwhile, or paused all."""

    def how(queue: Queue) -> Queue:
        if (queue.paused and changed.state == GOING) or entry not in queue.entries:
            return queue
        return replace(queue, entries=tuple(changed if one == entry else one for one in queue.entries))

    return changed in change(how).entries


def numbered(queue: Queue, words: Sequence[str]) -> list[Entry]:
    """Return the waiting entries of these numbers or runs, or `all`. Raises UserError for any other."""
    waiting = queue.in_state(WAITING)
    found = {word: one for one in waiting for word in (str(one.number), one.run)}
    for word in words if [*words] != ["all"] else ():
        if word not in found:
            going = [one.run for one in queue.in_state(GOING) if word in (str(one.number), one.run)]
            ends = f"it trains, end it with: nantui stop {going[0]}" if going else ""
            raise UserError(f"{word}: {ends or 'no run of this number waits'}; see nantui queue")
    return waiting if [*words] == ["all"] else [found[word] for word in dict.fromkeys(words)]


def moved(queue: Queue, word: str, place: int) -> Queue:
    """Return the queue with a waiting entry at this place, from 1, or the nearest that there is. Raises
    UserError as `numbered` does.
    """
    (entry,) = numbered(queue, [word])
    others = [one for one in queue.in_state(WAITING) if one != entry]
    before = [one for one in queue.entries if one.state != WAITING]
    others.insert(max(0, place - 1), entry)
    return replace(queue, entries=(*before, *others))


def move_by(run: str, by: int) -> str:
    """Put a waiting run so many places further back; returns a line for people. Raises UserError."""

    def place(queue: Queue) -> int:
        return [*(one.run for one in queue.in_state(WAITING)), run].index(run) + 1

    now = change(lambda queue: moved(queue, run, place(queue) + by))
    return f"{os.path.basename(run)} is at place {place(now)} of the queue"


def take_out(words: Sequence[str]) -> int:
    """Take waiting entries out, and away the directories that were made for them; returns how many. Raises
    UserError as `numbered` does, and nothing is taken out then.
    """
    gone: list[Entry] = []

    def without(queue: Queue) -> Queue:
        gone.extend(numbered(queue, words))
        return replace(queue, entries=tuple(one for one in queue.entries if one not in gone))

    change(without)
    for entry in gone:
        _forget(entry.layout)
    return len(gone)


def _forget(layout: RunLayout) -> None:
    """Take away the directory of a run that never began: only where it holds no more than its spec."""
    with contextlib.suppress(OSError):
        if os.listdir(layout.run) == [layout.home.name] and os.listdir(layout.home) == [layout.spec.name]:
            layout.spec.unlink()
            layout.home.rmdir()
            layout.run.rmdir()


def served() -> contextlib.AbstractContextManager[bool]:
    """Be the one process that starts what waits; False where another is."""
    return _lock("process.lock", ASKED_S)


def is_served() -> bool:
    """Tell whether the queue's process lives."""
    with _lock("process.lock") as free:
        return not free


@contextlib.contextmanager
def _lock(name: str, longest_s: float = 0.0) -> Iterator[bool]:
    with refused(f"{folder()} cannot be written", "set XDG_STATE_HOME"):
        folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder() / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        yield take(descriptor, longest_s)
    finally:
        os.close(descriptor)


def wake() -> None:
    """Start the queue's process where something is to be done and none lives. Raises UserError."""
    if not queue_file().exists() or not read_queue().busy or is_served():
        return
    argv = [sys.executable, "-m", entry_points.QUEUE]
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    try:
        with os.fdopen(os.open(folder() / "process.log", flags, 0o600), "ab") as log:
            subprocess.Popen(
                argv, cwd="/", env=worker_environment(), stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
    except OSError as error:
        raise UserError(f"cannot start the queue's process: {error}; what waits stays", FAILED) from None


def pause(paused: bool) -> None:
    """Start nothing new from now on, or go on. Raises UserError."""
    change(lambda queue: replace(queue, paused=paused))
    wake()
