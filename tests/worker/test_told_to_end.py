"""A rank that is told to end: what its loaders' dead workers may interrupt, and what counts as told."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from nantui.worker import signals

pytestmark = pytest.mark.training  # it imports torch and forks


def a_rank(tmp_path, **fields):
    """Return as much of a session as a signal needs, in the middle of a training."""
    layout = SimpleNamespace(end_request=lambda number: tmp_path / "none")
    recorder = SimpleNamespace(stop_requested=threading.Event())
    known = {"layout": layout, "recorder": recorder, "told": "", "progress": SimpleNamespace(step=1)}
    return SimpleNamespace(**known, attempt=SimpleNamespace(attempt=1), **fields)


def test_only_the_next_batch_tells_of_dead_workers_once_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(signal_handling, "_error_if_any_worker_fails", raise_at_once)
    session = a_rank(tmp_path)
    batches = iter(DataLoader(torch.zeros(64), num_workers=2, prefetch_factor=1))
    next(batches)
    signals._take(session, signals.signal.SIGTERM)
    assert session.told == "SIGTERM" and session.recorder.stop_requested.is_set()
    assert signal_handling._error_if_any_worker_fails is not raise_at_once
    for worker in batches._workers:
        worker.kill()
        worker.join()  # SIGCHLD has come, and interrupted nothing here
    with pytest.raises(RuntimeError, match="DataLoader worker"):
        list(batches)


def raise_at_once() -> None:
    raise RuntimeError("DataLoader worker is killed by signal, in the middle of a step")


def test_a_worker_may_be_told_a_moment_before_its_rank(tmp_path):
    session, died = (
        a_rank(tmp_path),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Terminated."),
    )
    begun = time.monotonic()
    assert not signals.was_told(session, died) and time.monotonic() - begun >= signals.MOMENT_S
    threading.Timer(0.1, lambda: setattr(session, "told", "SIGTERM")).start()
    assert signals.was_told(session, died)
    session.told = ""
    assert not signals.was_told(session, ValueError("its own")), "nothing is waited for"
