"""Is anybody still training into this run? A rollback under a living writer would be overwritten.

The supervisor has stopped and verified before it asks for a rollback; this is the second look, taken by
the process that acts: ranks that registered in this run, and processes that carry an attempt's mark.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import psutil

from nantui.run.attempts import read_attempt, read_events
from nantui.run.layout import RunLayout

MARK = "NANTUI_ATTEMPT"
SAME_S = 3.0
"""Two create times of one process may differ by this much: they are computed from the wall clock."""


def living_writers(layout: RunLayout) -> list[str]:
    """Return the processes that may write into the run, in words; only this machine can be looked at."""
    marks = {attempt.uuid for n in layout.attempt_numbers()[-3:] if (attempt := read_attempt(layout, n))}
    found = {pid: f"pid {pid} (rank {rank})" for pid, rank in _registered(layout)}
    found |= {pid: f"pid {pid}" for pid in _marked(marks) if pid not in found}
    return [found[pid] for pid in sorted(found) if pid != os.getpid()]


def _registered(layout: RunLayout) -> Iterator[tuple[int, int]]:
    for number in layout.attempt_numbers()[-3:]:
        for rank in layout.ranks(number):
            for event in read_events(layout.events(number, rank)):
                if event["kind"] == "registered" and _lives(event):
                    yield int(event["pid"]), rank


def _lives(event: dict[str, object]) -> bool:
    try:
        if event.get("boot_id") and event["boot_id"] != _boot_id():
            return False
        process = psutil.Process(int(str(event["pid"])))
        same = abs(process.create_time() - float(str(event["created"]))) < SAME_S
        return same and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.Error, KeyError, ValueError):
        return False


def _marked(marks: set[str]) -> Iterator[int]:
    """Yield processes whose environment carries one of `marks`; another user's cannot be read."""
    wanted = {f"{MARK}={mark}".encode() for mark in marks}
    for pid in psutil.pids() if wanted else ():
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                if wanted & set(file.read().split(b"\0")):
                    yield pid
        except OSError:
            continue


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""
