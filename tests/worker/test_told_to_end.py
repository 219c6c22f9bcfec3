"""A rank that is told to end: what its loaders' dead workers may interrupt, and what counts as told."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader
from torch.utils.data._utils import signal_handling

from nantui.machine.process_identity import this_machine, this_process
from nantui.run.attempts import RankExit, write_exit
from nantui.run.layout import RunLayout
from nantui.supervisor import launch
from nantui.worker import signals

pytestmark = pytest.mark.training  # it imports torch and forks


def a_rank(tmp_path, **fields):
    """Return as much of a session as a signal needs, in the middle of a training."""
    layout = RunLayout(tmp_path)
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


def ends_at_once(session, monkeypatch):
    """Send SIGTERM as `listening` takes it, and tell whether the rank ends there without a word."""
    monkeypatch.setattr(signals.os, "_exit", sys.exit)
    with contextlib.suppress(SystemExit):
        signals._take(session, signals.signal.SIGTERM)
    assert session.recorder.stop_requested.is_set() == bool(session.told)
    return not session.told


@pytest.mark.parametrize(("host", "at_once"), [("b", True), ("a", False)])
def test_an_agent_ends_the_ranks_of_its_own_host_and_of_no_other(tmp_path, monkeypatch, host, at_once):
    monkeypatch.setenv("NANTUI_HOST", "b")
    request = a_rank(tmp_path).layout.host_end_request(1, host)
    request.parent.mkdir(parents=True)
    request.write_text("{}")
    assert ends_at_once(a_rank(tmp_path), monkeypatch) is at_once


@pytest.mark.parametrize(
    ("local", "exits", "at_once"),
    [(1, [], False), (2, [], True), (2, [1], False), (2, [0], True)],
    ids=["alone on its host", "its neighbour is gone", "its neighbour was told, too", "one elsewhere was"],
)
def test_torchrun_ends_what_a_rank_of_the_same_host_left_behind(tmp_path, monkeypatch, local, exits, at_once):
    """Ranks 1 and 2 of three on this host, or 2 alone: as the end of another host is no signal here."""
    ranks = {"RANK": 2, "WORLD_SIZE": 3, "LOCAL_RANK": local - 1, "LOCAL_WORLD_SIZE": local}
    for name, value in ranks.items():
        monkeypatch.setenv(name, str(value))
    session = a_rank(tmp_path)
    session.layout.attempts.mkdir(parents=True)
    own = {"kind": "registered", "rank": 2, **asdict(this_process()), **asdict(this_machine())}
    session.layout.events(1, 2).write_text(json.dumps(own) + "\n")
    for rank in exits:
        write_exit(session.layout, 1, RankExit("stopped", rank, 1, 75, 0.0, signal="SIGTERM"))
    assert ends_at_once(session, monkeypatch) is at_once


IMPORTING = """
import sys, time
from pathlib import Path
from types import SimpleNamespace
print("imports", flush=True)
sys.stdin.readline()
from nantui.run.layout import RunLayout
from nantui.worker.signals import listening

session = SimpleNamespace(
    layout=RunLayout(Path("none")),
    attempt=SimpleNamespace(attempt=1), told="", progress=SimpleNamespace(step=None),
    end=lambda outcome, text: print(outcome, session.told, text, flush=True) or 75,
)
with listening(session):
    time.sleep(60)
"""


def test_a_signal_that_comes_before_the_rank_listens_is_heard_then():
    started = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(
        [sys.executable, "-c", IMPORTING], preexec_fn=launch._ignore_user_signal, **started
    ) as rank:
        assert rank.stdout.readline() == "imports\n"
        rank.send_signal(signals.signal.SIGUSR1)
        said, _ = rank.communicate("\n", timeout=60)
    assert (said, rank.returncode) == ("stopped SIGUSR1 before the first batch\n", 75)
