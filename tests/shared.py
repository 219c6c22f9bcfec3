"""What is made once for all tests of a session: finished trainings, data sets, what Ultralytics was asked.

Several processes share the tests (pytest-xdist). A lock lets one of them make a thing while the others that
want it wait; what is there is taken by all, and read only: a test that changes files works on a copy.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest


class Shared:
    """A directory of the session, the same one in all its processes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def made(self, name: str, make: Callable[[], object]) -> Path:
        """Return `root / name`, put there by `make`, once. Where it raises, the next caller tries."""
        place = self.root / name
        done = self.root / f"{name}.done"
        if done.exists():
            return place
        done.parent.mkdir(parents=True, exist_ok=True)
        with (self.root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(place, ignore_errors=True)  # what one that failed, or was killed, has left
                make()
                done.touch()
        return place


def folder_of_session(factory: pytest.TempPathFactory) -> Path:
    """Return the temporary directory that all processes of this session see."""
    base = factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


def owner_of_session() -> int:
    """Return the process that lasts as long as this session."""
    return os.getppid() if "PYTEST_XDIST_WORKER" in os.environ else os.getpid()
