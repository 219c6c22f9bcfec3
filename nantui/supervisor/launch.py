"""Start the worker of an attempt: record first what it is asked to do, then one process (or torchrun).

Ultralytics' own DDP spawn is never used: it deletes run directories and leaves orphans. One device trains in
plain Python, several under `torch.distributed.run`, and every process carries the attempt's mark.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterable
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import psutil

from nantui import entry_points
from nantui.errors import FAILED, UserError, refused
from nantui.machine.gpus import device_count
from nantui.machine.process_identity import host_marks
from nantui.machine.process_tree import MARK
from nantui.machine.training_python import training_python
from nantui.machine.waiting_process import WaitingProcess, both_ends
from nantui.run.attempts import Attempt, write_attempt
from nantui.run.documents import Settings
from nantui.run.events import Created, Event, newest
from nantui.run.layout import RunLayout
from nantui.run.plan import place_of
from nantui.run.quarantine import quarantined
from nantui.run.spec import Spec
from nantui.supervisor.helper_process import start_python

START, RESUME, RESTART = "start", "resume", "restart"
DEVICE, TIED, LISTENER = "NANTUI_DEVICE", "NANTUI_TIED", "NANTUI_LISTEN_FD"
"""What a rank of several hosts trains on, the process it dies with, and the socket of the endpoint."""
ROOM = 3 << 30
"""Bytes of memory that must be available to bring a worker up early; it takes about a quarter of that."""
INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def new_attempt(
    layout: RunLayout, spec: Spec, mode: str, checkpoint: str | None = None,
    asked: dict[str, object] | None = None, probation_epochs: int = 0, gpus: Settings | None = None,
    **hosts: Any,
) -> Attempt:  # fmt: skip
    """Return the next attempt of a run, and put it on disk for the worker. `gpus` is what its GPUs have
    counted of errors, `hosts` the fields of one on several: `nnodes`, `endpoint` and `facts`. Raises
    UserError where nothing may be started.
    """
    number = layout.newest_attempt() + 1
    if os.path.lexists(layout.attempt(number)):
        raise UserError(f"{layout.attempts} cannot be listed: no attempt has a number; try again", FAILED)
    with refused("nothing was started"):
        quarantined(layout)
    place, marks = place_of(spec.plan), {"gpus": gpus, "kernel_s": time.monotonic()} if gpus else {}
    attempt = Attempt(
        attempt=number, uuid=mark_of(layout.run, number), created=time.time(), mode=mode,
        checkpoint=checkpoint, train=_for_ranks(spec.train), ours=spec.ours, faults=spec.faults,
        python=training_python(spec.python), asked=asked or {}, probation_epochs=probation_epochs,
        devices=1 if spec.kind == "exec" else device_count(spec.train.get("device")),
        phase=asdict(place) if place else None, marks={**host_marks(), **marks}, **hosts,
    )  # fmt: skip
    if attempt.nnodes > 1:
        argv = _node_argv(layout, attempt, 0)
    else:
        argv = _own_argv(layout, number, attempt.python, attempt.devices)
    attempt = replace(attempt, argv=argv)
    write_attempt(layout, attempt)
    return attempt


def _for_ranks(train: dict[str, object]) -> dict[str, object]:
    """Return the arguments as each rank gets them: "cpu,cpu" (two ranks, no GPU) is "cpu" to Ultralytics."""
    words = {word.strip() for word in str(train.get("device")).split(",")}
    return {**train, "device": "cpu"} if words == {"cpu"} else train


@cache
def mark_of(run: Path, number: int) -> str:
    """Return the mark of an attempt that this process starts, or brings a worker up for."""
    return uuid.uuid4().hex


def _own_argv(layout: RunLayout, number: int, python: str, devices: int) -> list[str]:
    module = ["-m", entry_points.WORKER, str(layout.run), f"{number:03d}"]
    if devices == 1:
        return [python, *module]
    ranks = ["--standalone", "--nproc_per_node", str(devices)]
    return [python, "-m", "torch.distributed.run", *ranks, *module]


def _node_argv(layout: RunLayout, attempt: Attempt, node: int) -> list[str]:
    """Return the command line of one host's ranks, in an attempt on several; `devices` are this host's."""
    place = [str(layout.run), f"{attempt.attempt:03d}", str(node), str(attempt.devices)]
    return [attempt.python, "-m", entry_points.LAUNCH_RANKS, *place]


def start_worker(
    layout: RunLayout, attempt: Attempt, cwd: str | None, interface: str = "", listener: int | None = None
) -> subprocess.Popen[bytes]:
    """Start the worker (with several hosts the leading one's ranks, `listener` is the endpoint's socket) in a
    session of its own, its output in the attempt's log. Raises UserError.
    """
    variables = {MARK: attempt.uuid, **({} if listener is None else {LISTENER: str(listener)})}
    log, passed = layout.attempt_log(attempt.attempt), () if listener is None else (listener,)
    variables |= _through(interface)
    return _start(attempt.argv, working_place(layout, cwd), log, variables, pass_fds=passed)


def working_place(layout: RunLayout, cwd: str | None) -> str:
    """Return where a worker works: in `cwd`, or in the run where that is gone."""
    return cwd if cwd and os.path.isdir(cwd) else str(layout.run)


def next_worker(layout: RunLayout, spec: Spec, cwd: str | None) -> WaitingProcess:
    """Bring up what becomes the next attempt's worker, if that is as the run is now. Raises UserError."""
    free = psutil.virtual_memory().available
    if free < ROOM:
        raise UserError(f"{free / 1e9:.1f} GB of memory are free, {ROOM / 1e9:.1f} wanted", FAILED)
    number, place = layout.newest_attempt() + 1, working_place(layout, cwd)
    argv = _own_argv(layout, number, training_python(spec.python), device_count(spec.train.get("device")))
    words, variables = [argv[0], "-m", entry_points.WAITING, *argv[2:]], {MARK: mark_of(layout.run, number)}
    ours, its = both_ends()
    with its:
        child = _start(words, place, None, variables, stdin=its)
    return WaitingProcess(argv, place, child, ours)


def start_joined_node(
    layout: RunLayout, attempt: Attempt, node: int, device: str, mark: str, interface: str, log: Path
) -> subprocess.Popen[bytes]:
    """Start a joined host's ranks on `device`; they die with the process that calls. Raises UserError."""
    own = str(_for_ranks({"device": device})["device"])
    variables = {MARK: mark, DEVICE: own, TIED: str(os.getpid()), **_through(interface)}
    return _start(_node_argv(layout, attempt, node), str(layout.run), log, variables)


def _through(interface: str) -> dict[str, str]:
    """Gloo looks up the host's own name, which many machines answer with 127.0.1.1."""
    return {name: interface for name in INTERFACES if interface and name not in os.environ}


def _start(
    argv: list[str], cwd: str, log: Path | None, variables: dict[str, str], **how: Any
) -> subprocess.Popen[bytes]:
    """Start an interpreter whose output goes into `log`, or into a file without a name."""
    variables = {"PYTHONUNBUFFERED": "1", **variables}
    with (
        refused(f"cannot start {argv[0]}: {log}"),
        log.open("ab") if log else tempfile.TemporaryFile() as output,
    ):
        how |= {"stdout": output, "stderr": subprocess.STDOUT, "start_new_session": True}
        return start_python(argv, cwd, variables, preexec_fn=_ignore_user_signal, **how)


def _ignore_user_signal() -> None:
    """SIGUSR1 would kill torchrun and loaders' workers; ranks take it as a wish to end. The kernel keeps one
    that is blocked until they listen, a script's after its imports.
    """
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})


def cwd_of(events: Iterable[Event]) -> str | None:
    """Return the directory in which the run was asked for, so that relative paths mean the same."""
    created = newest(events, Created)
    return (created.cwd or None) if created else None


def beginning_text(mode: str, checkpoint: str | None) -> str:
    """Return how an attempt begins, for people: `(resume from weights/last.pt)`."""
    return f"({mode}{' from ' + checkpoint if checkpoint else ''})"
