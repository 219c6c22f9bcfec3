"""Who this process is among the ranks, from what torchrun put into the environment. No torch here:
a worker registers itself before the ten seconds of imports."""

from __future__ import annotations

import os


def rank() -> int:
    """Return this process' rank among all, 0 when it is alone."""
    return int(os.environ.get("RANK", "0")) if world_size() > 1 else 0


def world_size() -> int:
    """Return the number of processes that train together, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1"))
