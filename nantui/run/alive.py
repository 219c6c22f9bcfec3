"""Which processes belong to an attempt: those that carry its mark, and the ranks that registered.

The mark stands in the environment, so that every child inherits it; a registration names a rank for good,
also where an environment cannot be read. Whoever acts on a run asks both.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from nantui.run.attempts import read_events
from nantui.run.identity import DEAD_STATES, Machine, ProcessRef, alive, ref_from, stat_of, this_machine
from nantui.run.layout import RunLayout

MARK = "NANTUI_ATTEMPT"


def living_pids() -> list[int]:
    """Return all pids of this pid namespace."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def marked(uuids: Iterable[str]) -> set[int]:
    """Return the processes that carry the mark of one of these attempts; needs the same user (or root)."""
    wanted = {f"{MARK}={uuid}".encode() for uuid in uuids if uuid}
    return {pid for pid in living_pids() if wanted & environment_of(pid)} if wanted else set()


def registered(layout: RunLayout, attempt: int) -> dict[int, ProcessRef]:
    """Return the living ranks of an attempt by what they registered; only this machine can be looked at."""
    refs: dict[int, ProcessRef] = {}
    for rank in layout.ranks(attempt):
        for event in read_events(layout.events(attempt, rank)):
            ref = ref_from(event) if event["kind"] == "registered" and _is_of_here(event) else None
            if ref is not None and alive(ref):
                refs[rank] = ref
    return refs


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


def _is_of_here(event: dict[str, Any]) -> bool:
    """A pid noted on another host, boot or container means nothing here; an unsaid part is no objection."""
    here = this_machine()
    boot_id, namespace = (
        event.get("boot_id") or here.boot_id,
        event.get("pid_namespace") or here.pid_namespace,
    )
    return here.sees_pids_of(Machine(here.host, str(boot_id), str(namespace)))
