"""Where each rank hangs: Python stacks through faulthandler, armed on a real-time signal.

A signal kills a process that does not handle it, so it is only sent where the kernel says that it is caught.
faulthandler writes from the signal handler in C: it answers even when Python itself is stuck in a collective.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import cast

from nantui.machine.process_identity import ProcessRef, ref_of, stat_of
from nantui.machine.process_tree import describe, send
from nantui.run.attempts import STACKS, registered
from nantui.run.layout import RunLayout
from nantui.terminal_text import printable

FRAME = re.compile(r'File "(?:.*/)?([^"]+)", line (\d+) in (\w+)')
WAIT_S, POLL_S = 1.0, 0.02
LONGEST = 8000


def collect(found: list[ProcessRef], layout: RunLayout, attempt: int) -> list[dict[str, object]]:
    """Return what is known of each rank: [{"rank", "pid", "state", "where", "stack": [lines]}]."""
    living = {ref.pid for ref in found}
    ranks = registered(layout, attempt)
    return [_look(rank, ref, layout.attempt_log(attempt)) for rank, ref in ranks.items() if ref.pid in living]


def hung_text(silent_s: float, found: list[dict[str, object]]) -> str:
    """Return in one line for how long nothing moved, and where each rank is: function, file and line.

    faulthandler writes the main thread last.
    """
    parts = []
    for rank in found:
        lines = [str(line) for line in cast("list[str]", rank["stack"])]
        begins = max((at for at, line in enumerate(lines) if "most recent call first" in line), default=0)
        frame = next(filter(None, map(FRAME.search, lines[begins:])), None)
        where = (
            f"in {frame[3]} ({frame[1]}:{frame[2]})" if frame else f"does not answer, state {rank['state']}"
        )
        parts.append(f"rank {rank['rank']} {where}")
    return f"no step for {silent_s:.0f} s; {', '.join(parts) or 'no rank is to be seen'}"


def processes_of(layout: RunLayout, attempt: int) -> list[ProcessRef]:
    """Return the process that trains in a script of the user's own, or the launcher of its ranks.

    Such a process was not started by a supervisor and carries no mark: it has only registered itself.
    """
    ranks = list(registered(layout, attempt).values())
    stat = stat_of(ranks[0].pid) if len(ranks) > 1 else None
    launcher = ref_of(stat.parent) if stat else None
    return [launcher] if launcher else ranks


def catches(pid: int, number: int) -> bool:
    """Tell whether a process has a handler for a signal, from the kernel's SigCgt mask."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    masks = [int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:")]
    return bool(masks and masks[0] >> (number - 1) & 1)


def _look(rank: int, ref: ProcessRef, log: Path) -> dict[str, object]:
    left = describe(ref)
    stack = _dump(ref, log) if catches(ref.pid, STACKS) else []
    return {"rank": rank, "pid": ref.pid, "state": left.state, "where": left.where, "stack": stack}


def _dump(ref: ProcessRef, log: Path) -> list[str]:
    """Ask for the stack and read what the log has grown by; a stopped process answers nothing."""
    before = _size(log)
    if not send(ref, STACKS):
        return []
    until, size = time.monotonic() + WAIT_S, before
    while time.monotonic() < until:
        time.sleep(POLL_S)
        now = _size(log)
        if now == size > before:
            break
        size = now
    try:
        with log.open("rb") as file:
            file.seek(before)
            text = file.read(LONGEST).decode("utf-8", errors="replace")
    except OSError:
        return []
    return [printable(line) for line in text.splitlines() if line.strip()]


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
