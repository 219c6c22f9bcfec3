"""Who a process is, for certain.

A pid alone is reused, a create time alone moves with the clock, and both mean nothing after a reboot or in
another container. A process is the same one only if boot id, pid namespace, pid and start tick agree.

Which host this is, in one place, so that locks, process identities and heartbeats agree.

`NANTUI_HOST` replaces the host name and makes another host of this one: tests play two hosts on one
machine, and containers with the same host name can be told apart.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import psutil

VARIABLE = "NANTUI_HOST"
LARGEST_PID = 1 << 22
SAME_CREATE_TIME_S = 3.0
"""Create times are computed from the wall clock at boot, which a clock that is being set shifts a little."""
DEAD_STATES = frozenset("ZXx")
JOB = "SLURM_JOB_ID"

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_OOM_KILLS = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def host_name() -> str:
    """Return the name of this host."""
    return os.environ.get(VARIABLE) or socket.gethostname()


def read_proc(path: Path | str) -> str:
    """Return what the kernel says in a file, bytes spelt as in file names; empty where it says nothing."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def boot_id() -> str:
    """Return what tells this boot of this host from every other, empty where the kernel does not say."""
    kernel = read_proc(_BOOT_ID).strip()
    played = os.environ.get(VARIABLE)
    return f"{kernel}/{played}" if played else kernel


def host_id() -> str:
    """Return the host's name as a folder can be called."""
    return re.sub(r"[^\w.-]", "_", host_name()).lstrip(".") or "host"


@dataclass(frozen=True)
class Machine:
    """The kernel and the pid namespace in which a pid means something."""

    host: str
    boot_id: str
    pid_namespace: str

    def sees_pids_of(self, other: Machine) -> bool:
        """Tell whether a pid noted on `other` can be looked up here."""
        (here, _, since), (there, _, then) = (one.pid_namespace.partition(" ") for one in (self, other))
        return (self.boot_id, here) == (other.boot_id, there) and (since == then or not (since and then))

    def outlived(self, other: Machine) -> bool:
        """Tell whether `other` is an earlier life of this host: rebooted, or its container restarted."""
        return self.host == other.host and not self.sees_pids_of(other)


@dataclass(frozen=True)
class ProcessRef:
    """One process: `created` in s since the epoch, `ticks` its start in clock ticks since boot, or 0."""

    pid: int
    created: float
    ticks: int = 0


@dataclass(frozen=True)
class ProcessStat:
    """The few fields of /proc/PID/stat that matter here."""

    state: str
    parent: int
    ticks: int


@lru_cache(maxsize=1)
def this_machine() -> Machine:
    """Return where this process runs. The kernel gives the number of a namespace that has ended to the next:
    only the start of its first process tells a container from the same one started anew. A boot has its id.
    """
    namespace, first = "", stat_of(1)
    with contextlib.suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    if first is not None and namespace not in ("", "pid:[4026531836]"):  # PROC_PID_INIT_INO
        namespace = f"{namespace} {first.ticks}"
    return Machine(host_name(), boot_id(), namespace)


def stat_of(pid: int) -> ProcessStat | None:
    """Return what the kernel says about `pid`, None when there is no such process."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            after_name = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return ProcessStat(after_name[0].decode(), int(after_name[1]), int(after_name[19]))


def ref_of(pid: int) -> ProcessRef | None:
    """Return the identity of a living process, None when there is none."""
    stat = stat_of(pid)
    try:
        created = psutil.Process(pid).create_time()
    except psutil.Error:
        return None
    return None if stat is None else ProcessRef(pid, created, stat.ticks)


def this_process() -> ProcessRef:
    """Return the identity of this very process."""
    own = ref_of(os.getpid())
    assert own is not None, "this process exists"
    return own


def ref_from(document: Any) -> ProcessRef | None:
    """Return the identity that a file holds, None where it holds none."""
    try:
        ref = ProcessRef(int(document["pid"]), float(document["created"]), int(document.get("ticks") or 0))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    return ref if 0 < ref.pid <= LARGEST_PID else None


def machine_from(document: dict[str, Any]) -> Machine:
    """Return the machine that a file names, "" for what it does not tell."""
    return Machine(*(str(document.get(name, "")) for name in Machine.__dataclass_fields__))


def alive(ref: ProcessRef | None) -> bool:
    """Tell whether exactly this process lives here; a zombie does not."""
    stat = stat_of(ref.pid) if ref is not None else None
    if ref is None or stat is None or stat.state in DEAD_STATES:
        return False
    if ref.ticks:
        return stat.ticks == ref.ticks
    now = ref_of(ref.pid)
    return now is not None and abs(now.created - ref.created) < SAME_CREATE_TIME_S


def host_marks() -> dict[str, Any]:
    """Return what tells, after a training has ended, whether its host went on: noted when it begins."""
    here, job = this_machine(), os.environ.get(JOB, "")
    marks = {"boot_id": here.boot_id, "pid_namespace": here.pid_namespace}
    return {**marks, "job": job, "oom_kills": oom_kills()}


def oom_kills(root: Path = Path("/")) -> int | None:
    """Return how many processes the kernel has killed for lack of memory, None where nobody counts.

    Of this process' control group (memory.events, v2; memory.oom_control, v1), else of the whole host
    (/proc/vmstat, since Linux 4.13).
    """
    base, places = root / "sys/fs/cgroup", list[Path]()
    for line in read_proc(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            places += [base / path.lstrip("/") / "memory.events", base / "memory.events"]
        elif "memory" in controllers.split(","):
            places += [base / "memory" / path.lstrip("/") / "memory.oom_control"]
    counts = (_OOM_KILLS.search(read_proc(place)) for place in (*places, root / "proc/vmstat"))
    return next((int(found[1]) for found in counts if found), None)
