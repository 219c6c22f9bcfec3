"""What a rank does at a signal: told to end it asks for the agreed stop, and one that hangs says where.

SIGTERM tells it to end, and SIGUSR1 as Slurm's `--signal` is used. docker stop, systemd and batch systems
signal every process of a job at once, and kill what is left a little later. Python's own handlers wait for
the main thread, which may be in a collective for hours: so a thread reads the signals from
`signal.set_wakeup_fd`. What it does not take for a wish to end in order: the signal with which the supervisor
ends processes, and torchrun's to the ranks that one has left behind.

Where a rank hangs is in PyTorch's flight recorder, which keeps the last collectives of a process and the
lines that asked for them. In PyTorch 2.15 it is on by itself (2,000 entries, FlightRecorder.hpp in
torch/csrc/distributed/c10d), for gloo as for NCCL; in older ones TORCH_NCCL_TRACE_BUFFER_SIZE turns it on.
Nothing is set here; the dump is asked for in this process.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil

from nantui.machine.process_identity import host_id
from nantui.run.attempts import COLLECTIVE, STACKS, STOPPED, read_exits, registered
from nantui.worker.session import Session
from nantui.worker.torchrun_env import rank, ranks_here

OF_THE_KILLED = 128
MOMENT_S = 1.0


@contextlib.contextmanager
def listening(session: Session, *, user_signal: bool = True) -> Iterator[None]:
    """Take the signals of this process meanwhile, unless it has handlers of its own; and show its stacks.

    Without `user_signal` SIGUSR1 is left to who asks for stacks by it: a supervisor of the version before,
    which does not have it ignored in what it starts.
    """
    faulthandler.register(STACKS, file=2, all_threads=True)
    if not user_signal:
        faulthandler.register(signal.SIGUSR1, file=2, all_threads=True)
    wanted = (signal.SIGTERM, signal.SIGUSR1) if user_signal else (signal.SIGTERM,)
    free: list[int] = [one for one in wanted if signal.getsignal(one) in (signal.SIG_DFL, signal.SIG_IGN)]
    if not free or threading.current_thread() is not threading.main_thread():
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        yield
        return
    free.append(COLLECTIVE)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    others = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    before = {number: signal.signal(number, lambda number, frame: None) for number in free}
    os.register_at_fork(after_in_child=lambda: _be_ordinary(free))
    follow = threading.Thread(
        target=_follow, args=(session, reader, free), name="nantui-signals", daemon=True
    )
    follow.start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})  # blocked where it was started
    try:
        yield
    finally:
        free.clear()
        signal.set_wakeup_fd(others)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writer)


def _be_ordinary(numbers: list[int]) -> None:
    """A forked loader's worker must not answer for the rank; SIGUSR1 does not kill it."""
    with contextlib.suppress(ValueError):  # forked by another thread than the main one
        if numbers:
            signal.set_wakeup_fd(-1)
        for number in numbers:
            signal.signal(number, signal.SIG_IGN if number == signal.SIGUSR1 else signal.SIG_DFL)


def _follow(session: Session, reader: int, numbers: list[int]) -> None:
    while came := os.read(reader, 1):
        if came[0] == COLLECTIVE:
            say_collective()
        elif came[0] in numbers:
            _take(session, signal.Signals(came[0]))


def _take(session: Session, number: signal.Signals) -> None:
    """Ask for the agreed stop; before the first batch there is nothing to keep, and the rank ends."""
    with contextlib.suppress(OSError):  # a disk that is away: then it counts as a wish
        if number == signal.SIGTERM and (_meant(session) or (not session.told and _left_behind(session))):
            os._exit(OF_THE_KILLED + number)
    if session.told:
        return
    session.told = number.name
    # PyTorch raises at a loader's dead worker wherever the main thread is, be it in a step or a save
    # (torch/utils/data/_utils/signal_handling.py). Now only the next batch is to tell, as it does by itself.
    if signals := sys.modules.get("torch.utils.data._utils.signal_handling"):
        vars(signals)["_error_if_any_worker_fails"] = lambda: None
    if session.progress.step is None:
        os._exit(session.end(STOPPED, "before the first batch"))
    session.recorder.stop_requested.set()


def was_told(session: Session, error: Exception) -> bool:
    """Tell whether the rank was told to end; a loader's worker may have been told a moment before it."""
    until = time.monotonic() + MOMENT_S
    while not session.told and "DataLoader worker" in str(error) and time.monotonic() < until:
        time.sleep(MOMENT_S / 20)
    return bool(session.told)


def _meant(session: Session) -> bool:
    """Tell whether who sends the signal has said that it ends the attempt."""
    layout, attempt = session.layout, session.attempt.attempt
    return layout.end_request(attempt).exists() or layout.host_end_request(attempt, host_id()).exists()


def _left_behind(session: Session) -> bool:
    """Tell whether another rank here has ended for a reason of its own, so that torchrun ends this one."""
    number, here = session.attempt.attempt, ranks_here()
    if len(here) < 2:
        return False
    told = {one.rank for one in read_exits(session.layout, number) if one.signal}
    # A script that spawns ranks registers as the first, too, and outlives it.
    above = {one.pid for one in psutil.Process().parents()}
    living = {which for which, ref in registered(session.layout, number).items() if ref.pid not in above}
    return not told.union(living).issuperset(here)


def say_collective() -> None:
    """Write it to stderr, as faulthandler does with stacks (`COLLECTIVE_SAID`), nothing without a recorder.

    Twice, the second time with the line: to look that up takes PyTorch seconds, the first time.
    """
    for lines in (False, True):
        entries: list[dict[str, Any]] = []
        for name in ("_dump_nccl_trace", "_dump_fr_trace"):
            with contextlib.suppress(Exception):
                dump = getattr(sys.modules["torch._C._distributed_c10d"], name)
                entries += pickle.loads(dump(includeStackTraces=lines))["entries"]
        with contextlib.suppress(Exception):
            os.write(2, f"flight recorder, rank {rank()}: {collective_text(entries)}\n".encode())


def collective_text(entries: list[dict[str, Any]]) -> str:
    """Return the first collective after the last finished one of its group, or else the newest: name, number,
    group, line.

    An entry is `retired` once its work was seen to end, `completed` once asked after it (FlightRecorder.hpp).
    Where none is marked so (PyTorch 2.11 over NCCL), all but the newest may long be over. Raises IndexError
    for none.
    """
    entries = sorted(entries, key=_created)
    groups: dict[tuple[object, ...], list[dict[str, Any]]] = {}
    for entry in entries:
        group = groups.setdefault((*entry["process_group"], entry.get("is_p2p")), [])
        if _ended(entry):
            group.clear()
        else:
            group.append(entry)
    marked = any(map(_ended, entries))
    waiting = [group[0] for group in groups.values() if group]
    entry = min(waiting, key=_created) if marked and waiting else entries[-1]
    number = entry["p2p_seq_id" if entry.get("is_p2p") else "collective_seq_id"]
    frames = [frame for frame in entry.get("frames") or () if "/torch/" not in frame["filename"]]
    line = f" from {os.path.basename(frames[0]['filename'])}:{frames[0]['line']}" if frames else ""
    done = "finished" if _ended(entry) else "not finished" if marked else "not seen to be finished"
    return f"{entry['profiling_name']} {number} of {entry['process_group'][-1]}{line} {done}"


def _created(entry: dict[str, Any]) -> int:
    return int(entry["time_created_ns"])


def _ended(entry: dict[str, Any]) -> bool:
    return bool(entry["retired"]) or entry.get("state") == "completed"
