"""Threads that look at files and devices, so that a dead disk or a slow driver never holds up a key.

They are daemon threads: `q` gives the terminal back at once, also while a read is stuck.

What threads tell the screens. A newer snapshot replaces one that waits,
so a slow screen never falls behind.

How often something large is repainted: over a slow link every repaint is felt.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textual.message import Message

from nantui.checkpoint.verdict import Verdict
from nantui.errors import UserError
from nantui.machine.gpus import Sample
from nantui.run.growing_files import LineFollower
from nantui.run.status import RunStatus
from nantui.ui.model.backend import Backend
from nantui.ui.model.run_reader import RunReader, checkpoint_at, list_checkpoints
from nantui.ui.model.snapshot import Checkpoint, RunSnapshot

TELL_EVERY_S, FIRST_RUNS_S = 0.5, 0.2
Post = Callable[[Message], object]


class Replaceable(Message):
    """What a newer one of its kind takes the place of, as long as it waits."""

    def can_replace(self, message: Message) -> bool:
        return isinstance(message, type(self))


@dataclass
class SnapshotTaken(Replaceable):
    """A new look at the run, or None and what went wrong."""

    snapshot: RunSnapshot | None
    problem: str = ""


@dataclass
class MachineMeasured(Replaceable):
    """A sample of GPUs and host."""

    machine: Sample


@dataclass
class VerdictsFound(Replaceable):
    """What the scan says about checkpoints; `waiting` are still to be looked at."""

    verdicts: dict[Checkpoint, Verdict]
    waiting: frozenset[Checkpoint]


@dataclass
class Answer(Message):
    """What a thread found out for a dialog: `value`, or the text of what went wrong."""

    about: str
    value: Any = None
    problem: str = ""


@dataclass
class FleetRead(Replaceable):
    """Where every run below a directory stands; not `whole` while more are being read."""

    statuses: list[RunStatus]
    whole: bool = True


@dataclass
class LogRead(Message):
    """New lines of the log at `path`."""

    path: Path
    lines: list[str]
    restarted: bool


@dataclass
class Counted(Replaceable):
    """How far a long look has come."""

    done: int
    total: int


@dataclass
class Stumbled(Message):
    """A watching thread met something unexpected; it goes on."""

    who: str
    problem: str


class Pace:
    """Allows a few repaints at once, and then one every `every` seconds."""

    def __init__(self, every: float, at_once: int = 3, clock: Callable[[], float] = time.monotonic) -> None:
        self._every, self._most, self._clock = every, at_once, clock
        self._left, self._counted = float(at_once), clock()

    def allows(self) -> bool:
        """Tell whether to repaint now; a yes counts."""
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._counted) / self._every)
        self._counted = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Watcher(threading.Thread, ABC):
    """Looks every `interval` seconds until stopped, or at once after `hurry`, and posts what was seen."""

    def __init__(self, name: str, interval: float, post: Post) -> None:
        super().__init__(name=f"nantui-{name}", daemon=True)
        self.interval, self.post = interval, post
        self._wake = threading.Event()
        self._stopped = False

    @abstractmethod
    def look(self) -> Iterator[Message]:
        """Look once and yield what was seen."""

    def run(self) -> None:
        while not self._stopped:
            began = time.monotonic()
            try:
                for message in self.look():
                    if self._stopped:
                        return
                    self.post(message)
            except Exception as error:
                # One bad look must not end all later ones; the person sees what it stumbled over.
                self.post(Stumbled(self.name, f"{type(error).__name__}: {error}"))
            # A look that takes long is followed by a longer rest, so that reading never fills a core.
            spent = time.monotonic() - began
            self._wake.wait(max(self.interval, spent * 4))
            self._wake.clear()

    def hurry(self) -> None:
        """Look again now."""
        self._wake.set()

    def stop(self) -> None:
        """End after the look that is under way; nobody waits for it."""
        self._stopped = True
        self._wake.set()


class RunWatcher(Watcher):
    """Takes snapshots of a run."""

    def __init__(self, run: Path, backend: Backend, post: Post) -> None:
        super().__init__("run", 1.0, post)
        self._reader = RunReader(run, backend.status, backend.now)

    def look(self) -> Iterator[Message]:
        try:
            yield SnapshotTaken(self._reader.read())
        except (OSError, UserError) as error:
            yield SnapshotTaken(None, str(error))


class MachineWatcher(Watcher):
    """Measures GPUs and host."""

    def __init__(self, run: Path, backend: Backend, post: Post) -> None:
        super().__init__("machine", 2.0, post)
        self._run, self._backend = run, backend
        self.pids: tuple[int, ...] = ()

    def look(self) -> Iterator[Message]:
        yield MachineMeasured(self._backend.hardware(self._run, self.pids))


class Scanner(Watcher):
    """Scans checkpoints, newest first, and again those that changed.

    A verdict belongs to a file as it was (path, size, time): after a rollback the same name holds another
    training, which must not be shown with the old one's badge.
    """

    def __init__(self, weights: Path, backend: Backend, post: Post) -> None:
        super().__init__("scan", 1.5, post)
        self._weights, self._backend = weights, backend
        self._listed: frozenset[Checkpoint] = frozenset()
        self._verdicts: dict[Checkpoint, Verdict] = {}

    def look(self) -> Iterator[Message]:
        listed = frozenset(list_checkpoints(self._weights))
        busy = any(verdict.badge == "busy" for verdict in self._verdicts.values())
        if listed == self._listed and not busy:
            return
        self._verdicts = {file: verdict for file, verdict in self._verdicts.items() if file in listed}
        waiting = listed - self._verdicts.keys()
        pace = Pace(TELL_EVERY_S, at_once=1)
        if pace.allows():
            yield VerdictsFound(dict(self._verdicts), waiting)
        for verdict in self._backend.verdicts(self._weights):
            file = checkpoint_at(verdict.path)
            if file is not None:
                self._verdicts[file] = verdict
                waiting -= {file}
            if pace.allows():
                yield VerdictsFound(dict(self._verdicts), waiting)
        self._listed = listed
        yield VerdictsFound(dict(self._verdicts), frozenset())


class LogWatcher(Watcher):
    """Follows a log from near its end: a log of gigabytes opens as fast as a short one."""

    TAIL_BYTES = 4 << 20

    def __init__(self, path: Path, post: Post) -> None:
        super().__init__("log", 0.5, post)
        self._lines = LineFollower(path, tail_bytes=self.TAIL_BYTES)

    def look(self) -> Iterator[Message]:
        new = self._lines.read()
        if new.lines or new.restarted:
            yield LogRead(self._lines.path, new.lines, new.restarted)


class FleetWatcher(Watcher):
    """Reads where every run below a directory stands."""

    def __init__(self, top: Path, backend: Backend, post: Post) -> None:
        super().__init__("fleet", 3.0, post)
        self._top, self._backend = top, backend
        self._looked = False

    def look(self) -> Iterator[Message]:
        """Read them all; the first time, what is read so far is shown, since a slow disk takes long."""
        statuses: list[RunStatus] = []
        pace = Pace(FIRST_RUNS_S, at_once=1)
        for status in self._backend.fleet(self._top):
            statuses.append(status)
            if not self._looked and pace.allows():
                yield FleetRead(list(statuses), whole=False)
        self._looked = True
        yield FleetRead(statuses)


def find_out(about: str, question: Callable[[], object], post: Post) -> None:
    """Answer `question` in a thread of its own and post an Answer, also when it goes wrong."""

    def ask() -> None:
        try:
            post(Answer(about, question()))
        except UserError as error:
            post(Answer(about, problem=str(error)))
        except Exception as error:
            # The cockpit must outlive whatever a plan stumbles over; the person is told what it was.
            post(Answer(about, problem=f"{type(error).__name__}: {error}"))

    threading.Thread(target=ask, name=f"nantui-{about}", daemon=True).start()
