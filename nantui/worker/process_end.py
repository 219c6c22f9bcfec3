"""How a rank's process ends: in good order without taking the interpreter down, or with its parent.

A thread of gloo lets go of the last collective's tensor a moment after `all_reduce` has returned, and needs
the interpreter for it. If that is being finalized by then, the process aborts ("terminate called without
an active exception") and torchrun kills the other ranks. `multiprocessing` ends its children as is done here.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import signal
import sys
import threading
from typing import NoReturn

from nantui.run.attempts import EXIT_CODES, FAILED, PREEMPTED_CODE

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


def leave(code: int) -> NoReturn:
    """End this process with `code`, after other threads, exit functions and what was still to be printed.

    A rank that failed, or was told to end, does so without the others. They may wait in a collective, and to
    take the group apart would wait for them: NCCL's communicators are destroyed by all ranks together
    (PyTorch's documentation of torch.distributed, "Shutdown"). torchrun ends the others once this is gone.
    """
    ranks = sys.modules.get("torch.distributed")
    alone = code in (EXIT_CODES[FAILED], PREEMPTED_CODE)
    if not alone and ranks is not None and ranks.is_available() and ranks.is_initialized():
        ranks.destroy_process_group()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # a full disk; the outcome is in the rank's own file
            stream.flush()
    os._exit(code)


def last_words(error: BaseException) -> str:
    """Return what an exception says in one line; with the second where the first only announces it, as in
    PyTorch's `load_state_dict` ("Error(s) in loading state_dict for DetectionModel:"). And what was noted
    of it where it was raised.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = " ".join(lines[:2] if lines and lines[0].endswith(":") else lines[:1])
    named = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return "; ".join([named, *getattr(error, "__notes__", ())])
