"""What becomes the next worker, brought up early: `python -m nantui.worker.waiting MODULE ARGUMENTS…`.

It has imported what the worker imports, in the same order, directory and environment, and waits for a message
(nantui.machine.waiting_process). Until then it has no GPU, and is the first that the kernel ends for lack of
memory. Where a file that it has read changed since, it begins anew, in the same process: whoever mends a loss
function and resumes must not train with the old one. With nobody at the other end it ends.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import runpy
import select
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from nantui import entry_points
from nantui.machine.patient_output import print_patiently
from nantui.machine.waiting_process import BECOME, LARGEST, MOST_DESCRIPTORS
from nantui.paths import go_to_work

IMPORTED = (
    "nantui.worker.ultralytics_api", "nantui.worker.points.going_on", "nantui.worker.trainer",
    "ultralytics.models", "torchvision", "matplotlib.font_manager", "requests",
)  # fmt: skip
"""What a worker imports before its first step, in this order (`nantui.worker.__main__.train`); torchvision
takes as long as all before it. Another, torchrun, imports itself: what a rebase needs more takes 0.3 s.
"""
NO_ANSWER, NOT_YET = 255, -1


def main(words: list[str]) -> None:
    """Import and wait, then be `python -m MODULE ARGUMENTS…`."""
    begun, here, environment, score = time.time(), os.getcwd(), dict(os.environ), be_ended("1000")
    sys.argv[:] = words
    output, problem = NOT_YET, ""
    with socket.socket(fileno=os.dup(0)) as asked, open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        for problem in _importing(words[0]):
            if not problem and output == NOT_YET and select.select([asked], [], [], 0)[0]:
                output = _do_asked(asked, begun)
        while output == NOT_YET:
            output = _do_asked(asked, begun)
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    _print_into(output)
    be_ended(score)
    if problem := problem or changed_since(begun):
        print(f"nantui: begun anew: {problem}", flush=True)
        os.chdir(here)
        os.execve(sys.executable, [sys.executable, "-m", *words], environment)
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


def be_ended(score: str, path: Path = Path("/proc/self/oom_score_adj")) -> str:
    """Say how soon the kernel is to end this process for lack of memory; returns what was said before."""
    before = "0"
    with suppress(OSError):
        before = path.read_text()
        path.write_text(score)
    return before


def _importing(module: str) -> Iterator[str]:
    """Import what is needed to be `module`, piece by piece: a rebase can be done in a fork while the rest is
    imported. Yields why a piece cannot be, which the worker itself is to find, else "".
    """
    worker = module == entry_points.WORKER
    if worker:  # another, torchrun, starts interpreters: they begin where it does (`WORK_IN`)
        print_patiently()
        go_to_work()
    for name in IMPORTED if worker else (module,):
        try:
            importlib.import_module(name)
        except Exception as error:
            yield f"{type(error).__name__}: {error}"
            return
        yield ""
    sys.modules.pop("" if worker else module, None)  # it is to be run yet


def _do_asked(asked: socket.socket, begun: float) -> int:
    """Wait for one message and do what it asks, in a fork; returns where to print once this is to be the
    worker, else NOT_YET.
    """
    message, descriptors, _, _ = socket.recv_fds(asked, LARGEST, MOST_DESCRIPTORS)
    if message == BECOME:
        return descriptors[0]
    if not message:
        os._exit(0)
    if not changed_since(begun):
        _run_beside(json.loads(message), *descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    return NOT_YET


def changed_since(begun: float) -> str:
    """Return a file that was imported, or read while importing, and is younger than `begun`; else ""."""
    files = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    settings = getattr(sys.modules.get("ultralytics.utils"), "SETTINGS", None)
    for path in filter(None, [*files, getattr(settings, "file", None)]):
        if not os.path.isabs(path):  # of a module that is made up, such as torch.classes
            continue
        try:
            if os.stat(path).st_ctime > begun:
                return f"{path} has changed"
        except OSError as error:
            return str(error)
    return ""


def _run_beside(words: list[str], stdout: int, stderr: int, ended: int, *held: int) -> None:
    """Run a module in a fork; another says how it ended, so that imports go on. `held` are open in both."""
    with warnings.catch_warnings():  # Python 3.12 warns of other threads: numpy's, which wait
        warnings.simplefilter("ignore")
        if os.fork():
            return
    if child := os.fork():
        _, status = os.waitpid(child, 0)
        with suppress(OSError):
            os.write(ended, str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    _be_helper(words)


def _be_helper(words: list[str]) -> NoReturn:
    code = NO_ANSWER
    try:
        os.chdir("/")
        for name, module in list(sys.modules.items()):  # as `OFFLINE` would have it, had it been set before
            if name.startswith("ultralytics."):
                vars(module).update(dict.fromkeys({"ONLINE", "AUTOINSTALL"} & set(vars(module)), False))
        logging.getLogger("ultralytics").setLevel(logging.ERROR)
        sys.argv[:] = words
        runpy.run_module(words[0], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else NO_ANSWER
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    os._exit(code)


def _print_into(output: int) -> None:
    """Print into `output` from now on, and what was printed while importing, too."""
    said = os.pread(1, LARGEST, 0)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.close(output)
    os.write(1, said)


if __name__ == "__main__":
    main(sys.argv[1:])
