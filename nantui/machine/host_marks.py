"""What tells, after a training has ended, whether its host went on: noted when it begins.

The kernel counts the processes that it kills for lack of memory, per control group (memory.events, v2;
memory.oom_control, v1) or, where there is none, for the whole host (/proc/vmstat, since Linux 4.13).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from nantui.machine.process_identity import this_machine

JOB = "SLURM_JOB_ID"
_COUNT = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def host_marks() -> dict[str, Any]:
    """Return boot, pid namespace, batch job and the kernel's count of processes killed for lack of memory."""
    here = this_machine()
    job = os.environ.get(JOB, "")
    return {
        "boot_id": here.boot_id,
        "pid_namespace": here.pid_namespace,
        "job": job,
        "oom_kills": oom_kills(),
    }


def oom_kills(root: Path = Path("/")) -> int | None:
    """Return that count for this process' control group, else for the host, None where nobody counts."""
    try:
        groups = [line.split(":", 2) for line in (root / "proc/self/cgroup").read_text().splitlines()]
    except OSError:
        groups = []
    base, places = root / "sys/fs/cgroup", []
    for _, controllers, path in (group for group in groups if len(group) == 3):
        if not controllers:
            places += [base / path.lstrip("/") / "memory.events", base / "memory.events"]
        elif "memory" in controllers.split(","):
            places += [base / "memory" / path.lstrip("/") / "memory.oom_control"]
    for place in (*places, root / "proc/vmstat"):
        try:
            found = _COUNT.search(place.read_text())
        except OSError:
            continue
        if found:
            return int(found[1])
    return None
