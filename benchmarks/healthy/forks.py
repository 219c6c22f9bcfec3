"""Processes forked from one that has torch, Ultralytics and the worker imported: none starts Python anew.

The first process must not touch a GPU and keeps torch at one thread, or its children could use neither.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

LOOK_EVERY_S = 0.05
LATER = ("torch._dynamo", "torch.onnx", "torchvision", "sympy", "ultralytics.utils.callbacks.base",
         "ultralytics.models.yolo.model", "ultralytics.models.rtdetr.train", "matplotlib.pyplot")  # fmt: skip
"""What a training imports only as it goes: seconds each time."""


def warm_up() -> None:
    """Import what every training needs. CUDA is only asked for through the driver's library."""
    os.environ.update(
        OMP_NUM_THREADS="1", YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", PYTORCH_NVML_BASED_CUDA_CHECK="1"
    )
    import torch

    torch.set_num_threads(1)
    import ultralytics
    from ultralytics import RTDETR, YOLO
    from ultralytics.utils import torch_utils

    torch_utils.NUM_THREADS = 1  # `select_device` would set up to eight for the CPU, whatever OMP_NUM_THREADS
    import nantui.worker.__main__
    import nantui.worker.trainer

    for name in LATER:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    assert ultralytics.__version__ and RTDETR and YOLO and nantui.worker.trainer.guarded
    assert not torch.cuda.is_initialized()
    gc.freeze()


def forked(work: Callable[[], None], log: Path) -> int:
    """Do `work` in a child whose output goes to `log`; returns the child's pid.

    The child leads a process group, so that it can be ended with what it has forked itself.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        os.setpgid(0, 0)
        _die_with(parent)
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        logging.disable(logging.WARNING)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _die_with(parent: int) -> None:
    """Have the kernel end this process when its parent dies, however that comes."""
    from nantui.worker.process_end import PR_SET_PDEATHSIG

    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def wait_for(pid: int, seconds: float) -> int | None:
    """Return a child's exit code; None where it had to be killed after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(LOOK_EVERY_S)
    kill(pid)
    return None


def kill(pid: int) -> None:
    """End a child and what it has forked."""
    for end in (os.killpg, os.kill):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            end(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, 0)


def side_by_side(
    jobs: Iterable[tuple[str, Callable[[], None], Path]], lanes: int, no_new_after: float, all_dead_by: float
) -> Iterator[tuple[str, bool]]:
    """Do jobs (name, work, log), `lanes` at a time; yields (name, whether it came to its end).

    Both times are those of `time.monotonic()`.
    """
    waiting, running = iter(jobs), {}
    more = True
    while more or running:
        while more and len(running) < lanes:
            job = next(waiting, None) if time.monotonic() < no_new_after else None
            more = job is not None
            if job:
                running[forked(job[1], job[2])] = job[0]
        ended = [(pid, *os.waitpid(pid, os.WNOHANG)) for pid in running]
        for pid, done, status in ended:
            if done:
                yield running.pop(pid), status == 0
        if time.monotonic() > all_dead_by:
            for pid in list(running):
                kill(pid)
                yield running.pop(pid), False
        time.sleep(LOOK_EVERY_S)
