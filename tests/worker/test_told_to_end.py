"""A rank that is told to end: what its loaders' dead workers may interrupt, and what counts as told."""

from __future__ import annotations

import contextlib
import json
import os
import signal
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

from nantui.machine.process_identity import ref_of, this_machine, this_process
from nantui.run.attempts import RankExit, write_exit
from nantui.run.layout import RunLayout
from nantui.supervisor import launch
from nantui.worker import signals
from nantui.worker.checkpoints import epoch_end

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
    signals._take(session, signal.SIGTERM)
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


def ends_at_once(session, monkeypatch, number=signal.SIGTERM):
    """Send the signal as `listening` takes it, and tell whether the rank ends there without a word."""
    monkeypatch.setattr(signals.os, "_exit", sys.exit)
    with contextlib.suppress(SystemExit):
        signals._take(session, number)
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
    registers(session.layout, 2, this_process())
    for rank in exits:
        write_exit(session.layout, 1, RankExit("stopped", rank, 1, 75, 0.0, signal="SIGTERM"))
    assert ends_at_once(session, monkeypatch) is at_once


def registers(layout, rank, process):
    own = {"kind": "registered", "rank": rank, **asdict(process), **asdict(this_machine())}
    with layout.events(1, rank).open("a") as file:
        file.write(json.dumps(own) + "\n")


def test_a_script_that_registered_as_the_first_rank_is_no_neighbour(tmp_path, monkeypatch):
    """It waits for the ranks that it has spawned, and lives on when its first one is gone."""
    ranks = {"RANK": 1, "WORLD_SIZE": 2, "LOCAL_RANK": 1, "LOCAL_WORLD_SIZE": 2}
    for name, value in ranks.items():
        monkeypatch.setenv(name, str(value))
    session = a_rank(tmp_path)
    session.layout.attempts.mkdir(parents=True)
    registers(session.layout, 1, this_process())
    registers(session.layout, 0, ref_of(os.getppid()))
    assert ends_at_once(session, monkeypatch)
    assert not ends_at_once(a_rank(tmp_path), monkeypatch, signal.SIGUSR1), "torchrun never sends that one"
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as neighbour:
        registers(session.layout, 0, ref_of(neighbour.pid))
        assert not ends_at_once(a_rank(tmp_path), monkeypatch)
        neighbour.kill()


def test_a_disk_that_is_away_makes_no_rank_deaf(tmp_path, monkeypatch):
    def away(session):
        raise OSError("Stale file handle")

    monkeypatch.setattr(signals, "_meant", away)
    assert not ends_at_once(a_rank(tmp_path), monkeypatch)


def test_a_point_that_is_whole_stays_when_another_rank_dies_before_all_have_agreed_that_it_is(
    tmp_path, monkeypatch
):
    def lost(device):
        raise RuntimeError("[gloo] Connection closed by peer")

    monkeypatch.setattr(epoch_end.distributed, "wait_for_all", lost)
    session = a_rank(tmp_path, first=True, options=SimpleNamespace(watches=False))
    session.recorder.event = lambda *kind, **fields: None
    session.layout.weights.mkdir(parents=True)
    session.progress.epoch = 2
    points = SimpleNamespace(
        part=lambda: {"batch": 1}, write_now=lambda path, point: path.write_text("after batch 1")
    )
    checks = object.__new__(epoch_end.EpochEndChecks)
    checks.session = session
    checks.trainer = SimpleNamespace(points=points, epoch=1, device="cpu", stock_save=None)
    ended = checks.stop()
    assert ended.alone and "after batch 1" in ended.text
    assert session.layout.stop_point.read_text() == "after batch 1"


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
