"""The run's lock: one holder, dies with it, says when it cannot know."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from nantui.errors import UserError
from nantui.machine.process_identity import Machine, ref_of, this_machine
from nantui.run.atomic_files import read_json, write_json
from nantui.run.layout import RunLayout
from nantui.supervisor.client import refuse_elsewhere
from nantui.supervisor.state import RunLock, SupervisorState, read_holder, write_state

TAKE = """
import sys, time
from pathlib import Path
from nantui.supervisor.state import RunLock
lock = RunLock(Path(sys.argv[1]))
while time.time() < float(sys.argv[2]):
    pass
print(lock.acquire() is None, flush=True)
sys.stdin.read()
"""


def take_in_processes(path: Path, count: int) -> list[subprocess.Popen]:
    at = str(time.time() + 1.0)
    argv = [sys.executable, "-c", TAKE, str(path), at]
    return [
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]


def winners(processes: list[subprocess.Popen]) -> int:
    count = sum(process.stdout.readline().strip() == "True" for process in processes)
    for process in processes:
        process.communicate()
    return count


def test_only_one_of_many_gets_a_free_lock(tmp_path):
    assert winners(take_in_processes(tmp_path / "lock", 8)) == 1


def test_only_one_of_many_breaks_a_dead_holders_lock(tmp_path):
    path = tmp_path / "lock"
    dead = take_in_processes(path, 1)
    assert winners(dead) == 1
    assert read_holder(path) is not None, "it died without giving the lock back"
    assert winners(take_in_processes(path, 8)) == 1
    assert [left.name for left in tmp_path.iterdir() if "lock" in left.name] == ["lock"]


def test_a_lock_is_given_back_and_never_somebody_elses(tmp_path):
    path = tmp_path / "lock"
    mine, other = RunLock(path), RunLock(path)
    assert mine.acquire() is None
    assert other.acquire() is not None
    other.release()
    assert mine.held() and not other.held()
    mine.release()
    assert other.acquire() is None


def test_it_works_where_hard_links_do_not(tmp_path, monkeypatch):
    def refuse(source, target):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("os.link", refuse)
    first, second = RunLock(tmp_path / "lock"), RunLock(tmp_path / "lock")
    assert first.acquire() is None
    assert second.acquire() is not None
    assert first.held()


ELSEWHERE = Machine("gpu7", "another-boot", "pid:[1]")


def test_another_hosts_lock_is_broken_only_by_taking_over(tmp_path):
    path = tmp_path / "lock"
    assert RunLock(path, ELSEWHERE).acquire() is None
    here = RunLock(path)
    assert here.acquire().machine.host == "gpu7"
    assert here.acquire(take_over=True) is None
    assert here.held()


def test_an_earlier_boot_of_this_host_holds_nothing(tmp_path):
    path = tmp_path / "lock"
    before = replace(this_machine(), boot_id="before-the-reboot")
    assert RunLock(path, before).acquire() is None
    assert RunLock(path).acquire() is None


def test_a_broken_lock_file_is_replaced(tmp_path):
    path = tmp_path / "lock"
    path.write_text("{torn")
    assert RunLock(path).acquire() is None


def test_acting_on_another_hosts_run_says_where_to_act(tmp_path):
    layout = RunLayout(tmp_path)
    layout.home.mkdir()
    RunLock(layout.lock, ELSEWHERE).acquire()

    def heard(seconds_ago):
        state = SupervisorState(ref_of(os.getpid()), ELSEWHERE, heartbeat=time.time() - seconds_ago)
        write_state(layout.supervisor, state)

    heard(5)
    with pytest.raises(UserError, match="ssh gpu7"):
        refuse_elsewhere(layout, take_over=True)
    heard(500)
    with pytest.raises(UserError, match="--take-over"):
        refuse_elsewhere(layout, take_over=False)
    refuse_elsewhere(layout, take_over=True)


def test_a_clock_that_was_set_does_not_kill_a_holder(tmp_path):
    path = tmp_path / "lock"
    assert RunLock(path).acquire() is None
    document = read_json(path)
    document["process"]["created"] += 3600
    write_json(path, document)
    assert RunLock(path).acquire() is not None, "the start tick tells, not the wall clock"
