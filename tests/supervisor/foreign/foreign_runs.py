"""A training that nantui did not start, for tests: its command line, its processes, its end."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

from nantui.machine.process_tree import descendants
from tests.supervisor.stub_run import PYTHON

SCRIPT = Path(__file__).with_name("foreign_train.py")


def command_line(folder: Path | str, name: str = "exp") -> list[str]:
    """Return what trains into `folder`/`name`."""
    return [PYTHON, str(SCRIPT), "train", f"project={folder}", f"name={name}"]


def below(pid: int) -> list[int]:
    """Return the processes that a process has started, and theirs."""
    return sorted(descendants([pid]))


def kill_tree(root: int) -> None:
    """End a process and all below it, those that are there."""
    for pid in [root, *below(root)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
