"""Find every process of an attempt, end them, and prove that none is left.

Sessions and process groups do not tell: torchrun gives each rank a session of its own, dataloaders are
orphaned when a rank is killed. What holds is the mark in the environment (NANTUI_ATTEMPT, inherited by all of
them) and descent. Signals go through pidfds, so that a pid that was reused meanwhile is never hit.

And where a process comes from: a terminal, a login, a service, or a loop that would start it again.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import psutil

from nantui.machine.process_identity import DEAD_STATES, ProcessRef, alive, read_proc, ref_of, stat_of
from nantui.terminal_text import printable

MARK = "NANTUI_ATTEMPT"
PR_SET_CHILD_SUBREAPER = 36
FIRST_LOOK_S, LONGEST_LOOK_S, TMUX_S = 0.02, 0.25, 1.0
SHELLS = frozenset({"bash", "sh", "dash", "zsh", "fish", "ksh", "tcsh", "csh"})
LOOP = re.compile(r"(?:^|[;&|({]|\b(?:do|then|else)\b)[ \t]*(?:while|until|for)\b", re.MULTILINE)
WAYS_IN = {"tmux": "tmux", "screen": "screen", "SCREEN": "screen", "sshd": "SSH"}
NOWHERE = "init or container"
SERVICE_MANAGERS = frozenset({"supervisord", "runsv", "s6-supervise", "pm2"})


def marked(uuids: Iterable[str]) -> set[int]:
    """Return the processes that carry the mark of one of these attempts; needs the same user (or root)."""
    wanted = {f"{MARK}={uuid}".encode() for uuid in uuids if uuid}
    return {pid for pid in psutil.pids() if wanted & environment_of(pid)} if wanted else set()


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


def variables_of(pid: int) -> dict[str, str]:
    """Return the environment a process was started with, bytes spelt as in file names."""
    return dict(os.fsdecode(entry).partition("=")[::2] for entry in environment_of(pid) if entry)


def argv_of(pid: int) -> list[str]:
    """Return the words of a process's command line, none where they cannot be read."""
    text = read_proc(f"/proc/{pid}/cmdline")
    return text.split("\0") if text else []


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
    parents = {pid: stat.parent for pid in psutil.pids() if (stat := stat_of(pid)) is not None}
    found, new = set[int](), set(roots)
    while new := {pid for pid, parent in parents.items() if parent in new} - found:
        found |= new
    return found


def own_children() -> list[int]:
    """Return the children of this process; to a subreaper that includes the orphans of what it started."""
    return [int(word) for word in read_proc(f"/proc/self/task/{os.getpid()}/children").split()]


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
    name, waits_in = (read_proc(f"/proc/{ref.pid}/{word}").strip() for word in ("comm", "wchan"))
    return Leftover(ref.pid, name, stat.state if stat else "?", "" if waits_in == "0" else waits_in)


def prepare_process() -> None:
    """Adopt orphans of the worker; a closed terminal and Ctrl-C are none of our business."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # A handler, not SIG_IGN: what is ignored stays ignored in the worker.
    signal.signal(signal.SIGINT, lambda number, frame: None)


def shared_memory_of(pids: Iterable[int]) -> list[Path]:
    """Return the shared-memory files that PyTorch names after the given pids (`torch_PID_…`)."""
    names = tuple(f"torch_{pid}_" for pid in pids)
    try:
        return [path for path in Path("/dev/shm").iterdir() if names and path.name.startswith(names)]
    except OSError:
        return []


def origin_of(pid: int) -> str:
    """Return where a process was started: the tmux or screen session, the SSH address, a service.

    Its environment says which session and address; of another user's process only ancestors can be seen.
    """
    environment = variables_of(pid)
    found = _by_ancestors(pid)
    socket, pane = environment.get("TMUX", "").partition(",")[0], environment.get("TMUX_PANE", "")
    session = _tmux_session(socket, pane) if socket else ""
    if screen := environment.get("STY", "").partition(".")[2]:
        session = session or f"screen session {screen}"
    if session:
        still_there = found.split()[:1] == session.split()[:1]
        found = session if still_there else f"{session} (it has left it)"
    address = environment.get("SSH_CONNECTION", "").partition(" ")[0]
    if address:
        inside = "" if found in {"SSH", NOWHERE} else found
        found = ", ".join(filter(None, [inside, f"SSH from {address}"]))
    return printable(found, 200)


@lru_cache(maxsize=64)
def _tmux_session(socket: str, pane: str) -> str:
    """Ask the server which session a pane is in; only one of our own is talked to, and not for long."""
    try:
        mine = os.stat(socket).st_uid == os.getuid()
        words = ["tmux", "-S", socket, "list-panes", "-a", "-F", "#{pane_id} #{session_name}"]
        out = subprocess.run(words, capture_output=True, timeout=TMUX_S, check=True).stdout if mine else b""
    except (OSError, subprocess.SubprocessError):
        return "tmux"
    lines = (line.partition(" ") for line in out.decode(errors="replace").splitlines())
    name = next((name for number, _, name in lines if number == pane), "")
    return f"tmux session {name}" if name else "tmux"


def _by_ancestors(pid: int) -> str:
    with contextlib.suppress(psutil.Error):
        for one in psutil.Process(pid).parents():
            name = one.name()
            if way := next((way for prefix, way in WAYS_IN.items() if name.startswith(prefix)), ""):
                return way
            if name.startswith(("slurmstepd", "cron", "systemd")) and one.pid != 1:
                return name
    return NOWHERE if stat_of(pid) else ""


def _carried_out(words: Iterable[str], cwd: str) -> Iterator[str]:
    """Yield what a shell carries out: the words before its script, which may be commands, and the script."""
    for word in words:
        if os.path.isfile(path := os.path.join(cwd, word)):
            yield read_proc(path)
            return
        yield word


def restart_loop(parent: int) -> str:
    """Return the script or service around a training that may start it again, empty for an open prompt."""
    try:
        process = psutil.Process(parent)
        name, argv = process.name(), process.cmdline()
    except psutil.Error:
        return ""
    called = {name, *(os.path.basename(word) for word in argv[:1])}  # a script that is a program has its own
    if called & SHELLS and any(map(LOOP.search, _carried_out(argv[1:], f"/proc/{parent}/cwd"))):
        return f"{printable(' '.join(argv), 120)} (process {parent})"
    if name in SERVICE_MANAGERS:
        return f"{name} (process {parent})"
    return ""
