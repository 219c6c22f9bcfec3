"""Find every process of an attempt, end them, and prove that none is left.

Sessions and process groups do not tell: torchrun gives each rank a session of its own, dataloaders are
orphaned when a rank is killed. What holds is the mark in the environment (NANTUI_ATTEMPT, inherited by all of
them) and descent. Signals go through pidfds, so that a pid that was reused meanwhile is never hit.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from nantui.machine.process_identity import DEAD_STATES, ProcessRef, alive, ref_of, stat_of

MARK = "NANTUI_ATTEMPT"
PR_SET_CHILD_SUBREAPER = 36
FIRST_LOOK_S, LONGEST_LOOK_S = 0.02, 0.25


def living_pids() -> list[int]:
    """Return all pids of this pid namespace."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def marked(uuids: Iterable[str]) -> set[int]:
    """Return the processes that carry the mark of one of these attempts; needs the same user (or root)."""
    wanted = {f"{MARK}={uuid}".encode() for uuid in uuids if uuid}
    return {pid for pid in living_pids() if wanted & environment_of(pid)} if wanted else set()


def environment_of(pid: int) -> set[bytes]:
    """Return the NAME=value entries a process was started with; none where they cannot be read."""
    try:
        stat = stat_of(pid)
        if stat is None or stat.state in DEAD_STATES:
            return set()
        with open(f"/proc/{pid}/environ", "rb") as file:
            return set(file.read().split(b"\0"))
    except OSError:
        return set()


def argv_of(pid: int) -> list[str]:
    """Return the words of a process's command line, none where they cannot be read."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
    return [os.fsdecode(word) for word in words]


@dataclass(frozen=True)
class Leftover:
    """A process that does not die: `state` as in ps (D: uninterruptible, in the kernel), `where` it waits."""

    pid: int
    name: str
    state: str
    where: str

    def __str__(self) -> str:
        return f"{self.pid} ({self.name}, state {self.state}{', in ' + self.where if self.where else ''})"


def descendants(roots: Iterable[int]) -> set[int]:
    """Return all processes below `roots`, without the roots, from one look at the process table."""
    children: dict[int, list[int]] = {}
    for pid in living_pids():
        stat = stat_of(pid)
        if stat is not None:
            children.setdefault(stat.parent, []).append(pid)
    found: set[int] = set()
    todo = list(roots)
    while todo:
        new = [pid for pid in children.get(todo.pop(), []) if pid not in found]
        found.update(new)
        todo += new
    return found


def own_children() -> list[int]:
    """Return the children of this process; to a subreaper that includes the orphans of what it started."""
    try:
        text = Path(f"/proc/self/task/{os.getpid()}/children").read_text()
    except OSError:
        return []
    return [int(word) for word in text.split()]


def members(uuid: str, roots: Iterable[int] = ()) -> list[ProcessRef]:
    """Return every living process of an attempt: marked, or descending from one that is or from `roots`."""
    known = set(roots) | marked([uuid])
    pids = (known | descendants(known)) - {os.getpid()}
    return [ref for pid in sorted(pids) if (ref := ref_of(pid)) is not None and alive(ref)]


def send(ref: ProcessRef, number: int) -> bool:
    """Send a signal to exactly this process; False when it is gone or not ours."""
    descriptor = -1  # where the system has no pidfd, the pid has to do
    try:
        with contextlib.suppress(OSError, AttributeError):
            descriptor = os.pidfd_open(ref.pid)
        if not alive(ref):
            return False
        if descriptor >= 0:
            signal.pidfd_send_signal(descriptor, number)
        else:
            os.kill(ref.pid, number)
    except OSError:
        return False
    finally:
        if descriptor >= 0:
            os.close(descriptor)
    return True


def end_all(
    find: Callable[[], list[ProcessRef]], pump: Callable[[float], None], *, grace_s: float, limit_s: float
) -> list[Leftover]:
    """SIGTERM all that `find` finds, SIGKILL what is left after `grace_s`, again until none is left.

    `pump(seconds)` is called to wait, so that the caller can go on with its chores. Returns what did not die
    within `limit_s` after the first SIGKILL.
    """
    begun = time.monotonic()
    look_s = FIRST_LOOK_S
    for ref in find():
        send(ref, signal.SIGTERM)
        send(ref, signal.SIGCONT)
    while left := find():
        waited = time.monotonic() - begun
        if waited > grace_s:
            for ref in left:
                send(ref, signal.SIGKILL)
        if waited > grace_s + limit_s:
            return [describe(ref) for ref in left]
        pump(look_s)
        look_s = min(look_s * 1.5, LONGEST_LOOK_S)
    return []


def describe(ref: ProcessRef) -> Leftover:
    """Return what is known about a process that is still there."""
    stat = stat_of(ref.pid)
    return Leftover(ref.pid, _word(ref.pid, "comm"), stat.state if stat else "?", _word(ref.pid, "wchan"))


def prepare_process() -> None:
    """Adopt orphans of the worker; a closed terminal and Ctrl-C are none of our business."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # A handler, not SIG_IGN: what is ignored stays ignored in the worker.
    signal.signal(signal.SIGINT, lambda number, frame: None)


def shared_memory_of(pids: Iterable[int], place: Path = Path("/dev/shm")) -> list[Path]:
    """Return the shared-memory files that PyTorch names after the given pids (`torch_PID_…`)."""
    names = tuple(f"torch_{pid}_" for pid in pids)
    try:
        return [path for path in place.iterdir() if names and path.name.startswith(names)]
    except OSError:
        return []


def _word(pid: int, name: str) -> str:
    try:
        word = Path(f"/proc/{pid}/{name}").read_text().strip()
    except OSError:
        return ""
    return "" if word == "0" else word
