"""The kernel's count of processes killed for lack of memory, wherever it is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from nantui.machine import process_identity
from nantui.machine.process_identity import Machine, ProcessStat, host_marks, oom_kills, this_machine

EVENTS = "low 0\nhigh 0\nmax 3\noom 2\noom_kill 2\noom_group_kill 0\n"


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


@pytest.mark.parametrize(
    ("cgroup", "name", "text"),
    [
        ("0::/user.slice/a.scope\n", "sys/fs/cgroup/user.slice/a.scope/memory.events", EVENTS),
        ("0::/../../elsewhere\n", "sys/fs/cgroup/memory.events", EVENTS),
        (
            "4:memory:/job_7\n0::/\n",
            "sys/fs/cgroup/memory/job_7/memory.oom_control",
            "under_oom 0\noom_kill 2\n",
        ),
        ("0::/\n", "proc/vmstat", "nr_free_pages 9\noom_kill 2\n"),
    ],
)
def test_its_own_group_first_then_the_host(tmp_path: Path, cgroup: str, name: str, text: str) -> None:
    write(tmp_path, "proc/self/cgroup", cgroup)
    write(tmp_path, "proc/vmstat", "oom_kill 99\n")
    write(tmp_path, name, text)
    assert oom_kills(tmp_path) == 2


def test_nobody_counts(tmp_path: Path) -> None:
    assert oom_kills(tmp_path) is None


def test_this_host_says_which_boot_it_is() -> None:
    assert host_marks()["boot_id"] and isinstance(host_marks()["oom_kills"], int)


def test_a_container_that_was_started_anew_may_have_the_number_of_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lives = []
    for ticks in (1362210, 1362216):
        monkeypatch.setattr(process_identity.os, "readlink", lambda path: "pid:[4026532178]")
        monkeypatch.setattr(process_identity, "stat_of", lambda pid, ticks=ticks: ProcessStat("S", 0, ticks))
        this_machine.cache_clear()
        lives.append(this_machine())
    this_machine.cache_clear()
    before, now = lives
    assert now.outlived(before) and not now.sees_pids_of(before) and now.sees_pids_of(now)
    older = Machine(now.host, now.boot_id, "pid:[4026532178]")
    assert now.sees_pids_of(older) and older.sees_pids_of(now), "noted by the version before"
    assert now.outlived(Machine(now.host, "an earlier one", now.pid_namespace))
    assert now.outlived(Machine(now.host, now.boot_id, "pid:[4026532179] 1362216"))
    assert not now.sees_pids_of(Machine(now.host, now.boot_id, "")), "a file that does not say"
