"""Where a training that nantui did not start comes from: tmux, a login over SSH, a loop around it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid

import psutil
import pytest

from nantui.machine.process_identity import ProcessRef, alive, ref_of
from nantui.machine.process_tree import origin_of, restart_loop
from nantui.run.commands import Command
from nantui.supervisor.client import carry_out
from nantui.supervisor.foreign import describe, find_foreign
from tests.supervisor.foreign.foreign_runs import command_line, kill_tree
from tests.waiting import eventually


@pytest.fixture
def pane(tmp_path, monkeypatch):
    """A tmux server of our own with one pane; yields how to type a line, and the shell."""
    if shutil.which("tmux") is None:
        pytest.skip("tmux is not installed")
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.7 50022 192.0.2.1 22")
    monkeypatch.delenv("TMUX", raising=False)
    server = ["tmux", "-L", f"nantui-{uuid.uuid4().hex[:8]}", "-f", "/dev/null"]
    begin = [
        *server,
        "new-session",
        "-d",
        "-s",
        "night shift",
        "-x",
        "200",
        "-c",
        str(tmp_path),
        "bash --norc -i",
    ]
    subprocess.run(begin, check=True)
    shell = int(subprocess.check_output([*server, "display-message", "-p", "#{pane_pid}"]))
    yield (lambda line: subprocess.run([*server, "send-keys", line, "Enter"], check=True)), ref_of(shell)
    subprocess.run([*server, "kill-server"], check=False)


def test_in_a_tmux_pane_the_shell_and_a_second_job_survive(pane, tmp_path):
    type_line, shell = pane
    type_line(f"{sys.executable} -c 'import time; time.sleep(600)' & echo $! > second.pid")
    second = ref_of(int(eventually(lambda: read(tmp_path / "second.pid"))))
    type_line(" ".join(command_line(tmp_path)))
    run = tmp_path / "exp"
    found = eventually(lambda: [one for one in find_foreign(run) if len(one.pids) == 3])
    assert ", from tmux session night shift, SSH from 192.0.2.7, " in describe(found[0])
    done = carry_out(run, Command("kill", {"foreign": True}))
    assert done.ok, done.text
    assert find_foreign(run) == []
    assert alive(shell) and alive(second)
    assert isinstance(shell, ProcessRef)


def test_what_left_its_tmux_session_still_says_which(pane, tmp_path):
    type_line, _ = pane
    type_line(f"(setsid {' '.join(command_line(tmp_path))} &)")
    (found,) = eventually(lambda: find_foreign(tmp_path / "exp"))
    try:
        origin = eventually(lambda: (now := origin_of(found.ref.pid)) and "left" in now and now)
        assert origin == "tmux session night shift (it has left it), SSH from 192.0.2.7"
    finally:
        kill_tree(found.ref.pid)


def test_a_restart_loop_is_noticed(pane, tmp_path):
    type_line, shell = pane
    loop = tmp_path / "loop.sh"
    words = " ".join(command_line(tmp_path))
    loop.write_text(f"while sleep 0.1; do {words}; done\n")
    type_line(f"bash {loop}")
    run = tmp_path / "exp"
    found = eventually(lambda: find_foreign(run))
    assert "loop.sh" in found[0].restarted_by
    outcome = carry_out(run, Command("kill", {"foreign": True}))
    assert not outcome.ok and "loop.sh" in outcome.text
    assert alive(shell)


@pytest.mark.parametrize(("words", "loops"), [
    (["bash", "-c", "sleep 60; true"], False),
    (["bash", "-lc", "sleep 60; echo waited for while"], False),
    (["bash", "-c", "for n in 1 2; do sleep 60; done"], True),
    (["sh", "-c", "cd . && while sleep 60; do true; done"], True),
    (["bash", "-e", "once.sh"], False),
    (["bash", "-e", "again.sh"], True),
    (["./again.sh"], True),
])  # fmt: skip
def test_a_shell_is_a_loop_only_where_it_holds_one(words, loops, tmp_path):
    (tmp_path / "once.sh").write_text("# for a while\nsleep 60\ntrue\n")
    (tmp_path / "again.sh").write_text("#!/bin/bash\n  until sleep 60; do\n  true\ndone\n")
    (tmp_path / "again.sh").chmod(0o755)
    shell = subprocess.Popen(words, cwd=tmp_path, start_new_session=True)
    try:
        eventually(lambda: psutil.Process(shell.pid).children())
        assert bool(restart_loop(shell.pid)) is loops
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()


def read(path):
    return path.read_text().strip() if path.is_file() else ""
