"""All runs below a directory, read side by side: on a slow disk hundreds of reads must not wait in line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Lock, Thread

from nantui.run.discovery import find_runs
from nantui.run.status import RunStatus
from nantui.supervise.candidates import Candidate, candidates
from nantui.supervise.status import read_status

READERS = 8


def read_fleet(top: Path) -> list[RunStatus]:
    """Return the status of every run in and below `top`, in the order of their paths."""
    return sorted(each_status(top), key=lambda status: status.path)


def each_status(top: Path) -> Iterator[RunStatus]:
    """Yield each status as soon as it is read.

    The readers are daemon threads and no executor's: one that is stuck on a dead mount holds up neither the
    others nor the end of the process.
    """
    waiting, seen = SimpleQueue[Path](), Seen()
    found = SimpleQueue[Callable[[], RunStatus]]()
    runs = list(find_runs(Path(top).resolve()))
    for run in runs:
        waiting.put(run)
    for _ in range(min(READERS, len(runs))):
        Thread(target=_read, args=(waiting, found, seen), name="nantui-fleet", daemon=True).start()
    for _ in runs:
        yield found.get()()


class Seen:
    """The processes that may be trainings, looked at once for all runs."""

    def __init__(self) -> None:
        self._lock, self._found = Lock(), list[list[Candidate]]()

    def look(self) -> list[Candidate]:
        """Return them."""
        with self._lock:
            if not self._found:
                self._found.append(candidates())
            return self._found[0]


def _read(waiting: SimpleQueue[Path], found: SimpleQueue[Callable[[], RunStatus]], seen: Seen) -> None:
    """Put a function for each waiting run that returns its status, or raises what reading it has raised."""
    while True:
        future = Future[RunStatus]()
        try:
            future.set_result(read_status(waiting.get_nowait(), foreign=seen.look))
        except Empty:
            return
        except BaseException as error:
            future.set_exception(error)
        found.put(future.result)
