"""Is anybody still training into this run? A rollback under a living writer would be overwritten.

The supervisor has stopped and verified before it asks for a rollback; this is the second look, taken by
the process that acts: ranks that registered in this run, and processes that carry an attempt's mark.
"""

from __future__ import annotations

import os

from nantui.run.alive import marked, registered
from nantui.run.attempts import read_attempt
from nantui.run.layout import RunLayout

RECENT = 3
"""Attempts before these were seen to end by the ones that followed."""


def living_writers(layout: RunLayout) -> list[str]:
    """Return the processes that may write into the run, in words; only this machine can be looked at."""
    recent = layout.attempt_numbers()[-RECENT:]
    ranks = [item for number in recent for item in registered(layout, number).items()]
    found = {ref.pid: f"pid {ref.pid} (rank {rank})" for rank, ref in ranks}
    marks = {attempt.uuid for number in recent if (attempt := read_attempt(layout, number))}
    found |= {pid: f"pid {pid}" for pid in marked(marks) if pid not in found}
    return [found[pid] for pid in sorted(found) if pid != os.getpid()]
