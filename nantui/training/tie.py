"""Dying with one's parent: ranks of a joined host must not outlive the agent that alone may end them."""

from __future__ import annotations

import ctypes
import os
import signal

TIED = "NANTUI_TIED"
PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, where the environment asks for it."""
    if not os.environ.get(TIED):
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
