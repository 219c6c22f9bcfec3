"""Trainings whose run directory was renamed or deleted: found by the mark that their processes carry.

A worker names the directory it was started for; where that went, its supervisor follows by its inode.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from nantui import entry_points
from nantui.errors import FAILED, UserError
from nantui.machine.process_identity import ProcessRef
from nantui.machine.process_tree import MARK, argv_of, end_all, environment_of, living_pids, members
from nantui.run.attempts import read_attempt
from nantui.run.layout import RunLayout

RUN = "NANTUI_RUN"
DELETED = " (deleted)"
TERMINATE_S, DIE_S = 10.0, 20.0


def place_of(descriptor: int) -> Path | None:
    """Return where an open directory lies now, None where it was deleted."""
    path = os.readlink(f"/proc/self/fd/{descriptor}")
    return None if path.endswith(DELETED) else Path(path)


def strays_of(run: Path) -> set[str]:
    """Return the marks of living processes that were started for the directory `run`, and of which what lies
    there now (if anything) is not the run.
    """
    layout, found = RunLayout(run), set()
    for pid in living_pids():
        variables = dict(entry.partition(b"=")[::2] for entry in environment_of(pid))
        mark = os.fsdecode(variables.get(MARK.encode(), b""))
        words = argv_of(pid)
        worker = entry_points.WORKER in words and str(run) in words
        if mark and (worker or variables.get(RUN.encode()) == os.fsencode(run)):
            found.add(mark)
    own = {attempt.uuid for number in layout.attempt_numbers() if (attempt := read_attempt(layout, number))}
    return found - own


def run_of(marks: set[str]) -> Path | None:
    """Return where the run of such processes lies now, as the supervisor that watches them has it."""
    for pid in living_pids():
        words = argv_of(pid)
        if entry_points.SUPERVISOR in words[:-1]:
            layout = RunLayout(Path(words[words.index(entry_points.SUPERVISOR) + 1]))
            attempt = read_attempt(layout, layout.newest_attempt())
            if attempt is not None and attempt.uuid in marks:
                return layout.run
    return None


def end_strays(marks: set[str]) -> str:
    """End every process of trainings whose directory is gone. Raises UserError for what does not die."""

    def living() -> list[ProcessRef]:
        return [ref for mark in marks for ref in members(mark)]

    count = len(living())
    if left := end_all(living, time.sleep, grace_s=TERMINATE_S, limit_s=DIE_S):
        raise UserError(f"{len(left)} processes do not die: {', '.join(map(str, left[:5]))}", FAILED)
    return f"{count} processes of a run whose directory is gone were ended; no process is left"
