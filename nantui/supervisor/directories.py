"""A run directory that was copied, renamed or deleted while it trains: whose the processes are.

What a copy says of living processes is true, but they are the original's. A worker whose directory was
renamed writes on under the old name, and is known by the mark that its processes carry.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import psutil

from nantui import entry_points
from nantui.errors import FAILED, UserError
from nantui.machine.process_identity import ProcessRef
from nantui.machine.process_tree import MARK, argv_of, end_all, members, variables_of
from nantui.run.attempts import Attempt, read_attempt
from nantui.run.binding import another_was_here
from nantui.run.layout import RunLayout
from nantui.supervisor.state import read_state

RUN = "NANTUI_RUN"
GRACE_S, DIE_S = 10.0, 20.0


def other_place(run: Path, attempt: Attempt | None) -> str:
    """Return the directory that an attempt was started in, "" where that is `run` or not known."""
    named = [*attempt.argv[1:], str(attempt.train.get("save_dir"))] if attempt else []
    place = next((word for word in named if os.path.isabs(word)), "")
    if not place or str(run) in named:
        return ""
    return "" if os.path.isdir(place) and os.path.samefile(place, run) else place


def strays_of(run: Path) -> set[str]:
    """Return the marks of living processes that were started for the directory `run`, and of which what lies
    there now (if anything) is not the run.
    """
    layout, found = RunLayout(run), set()
    for pid in psutil.pids():
        variables, words = variables_of(pid), argv_of(pid)
        worker = entry_points.WORKER in words and str(run) in words
        if (mark := variables.get(MARK)) and (worker or variables.get(RUN) == str(run)):
            found.add(mark)
    own = {attempt.uuid for number in layout.attempt_numbers() if (attempt := read_attempt(layout, number))}
    state = read_state(layout.supervisor)
    if state is not None and state.waiting is not None:
        own.add(variables_of(state.waiting.pid).get(MARK, ""))
    return found - own


def stray_words(run: Path) -> str:
    """Return what to say of a directory whose run trains on without it, "" where none does."""
    if not (another_was_here(run) and (marks := strays_of(run))):
        return ""
    now = run_of(marks)
    what = f"trains on as {now}" if now else "trains on though its directory was deleted"
    return f"`nantui stop {run}` ends what {what} and writes here"


def run_of(marks: set[str]) -> Path | None:
    """Return where the run of such processes lies now, as the supervisor that watches them has it."""
    for pid in psutil.pids():
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
    if left := end_all(living, time.sleep, grace_s=GRACE_S, limit_s=DIE_S):
        raise UserError(f"{len(left)} processes do not die: {', '.join(map(str, left[:5]))}", FAILED)
    return f"{count} processes of a run whose directory is gone were ended; no process is left"
