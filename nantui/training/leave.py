"""The end of a rank's process: in good order, and without taking the interpreter down.

A thread of gloo lets go of the last collective's tensor a moment after `all_reduce` has returned, and needs
the interpreter for it. If that is being finalized by then, the process aborts ("terminate called without
an active exception") and torchrun kills the other ranks. `multiprocessing` ends its children as is done here.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """End this process with `code`, after other threads, exit functions and what was still to be printed."""
    _leave_the_ranks()
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # a full disk; the outcome is in the rank's own file
            stream.flush()
    os._exit(code)


def _leave_the_ranks() -> None:
    if "torch" not in sys.modules:
        return
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
