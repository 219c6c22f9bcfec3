"""Dying with one's parent: ranks of a joined host must not outlive the agent that alone may end them."""

from __future__ import annotations

import ctypes
import os
import signal

TIED = "NANTUI_TIED"
PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies, where the environment names one.

    The parent may have died before this process got so far: then it ends here.
    """
    parent = os.environ.get(TIED)
    if not parent:
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):
        os._exit(1)


def tie_children() -> None:
    """Let the processes started from here on die with this one, where it is tied itself."""
    if os.environ.get(TIED):
        os.environ[TIED] = str(os.getpid())
