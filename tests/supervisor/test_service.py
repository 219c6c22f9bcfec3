"""`nantui service`: what is installed where, and which runs come back after a reboot."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nantui.cli import main
from nantui.commands import service
from nantui.machine.process_tree import send
from nantui.supervisor.state import read_state
from tests.supervisor.stub_run import StubRun
from tests.waiting import eventually

CRONTAB = """#!/bin/sh
[ "$1" = -l ] || exec cat > "{file}"
[ -f "{file}" ] && exec cat "{file}"
echo "no crontab for you" >&2
exit 1
"""


@pytest.fixture
def crontab(tmp_path, monkeypatch):
    """A crontab of the test's own, on a host without systemd; returns its file."""
    monkeypatch.setattr(service, "BOOTED", tmp_path / "no systemd")
    program = tmp_path / "bin/crontab"
    program.parent.mkdir()
    program.write_text(CRONTAB.format(file=tmp_path / "crontab"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    return tmp_path / "crontab"


def test_a_line_of_the_crontab_comes_and_goes_and_the_others_stay(crontab, capsys):
    assert main(["service", "status"]) == 1
    crontab.write_text("5 4 * * * echo 100\\% mine\n")
    for _ in range(2):
        assert main(["service", "install"]) == 0
    assert main(["service", "status"]) == 0
    mine, line = crontab.read_text().splitlines()
    assert mine == "5 4 * * * echo 100\\% mine"
    command = line.removeprefix("@reboot ").replace("\\%", "%")
    done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True)
    assert line.startswith("@reboot ") and (done.returncode, done.stderr) == (0, "")
    assert main(["service", "remove"]) == 0 and main(["service", "status"]) == 1
    assert crontab.read_text() == "5 4 * * * echo 100\\% mine\n"
    assert "your crontab: not installed" in capsys.readouterr().err


def test_read_only_installs_nothing(crontab):
    assert main(["service", "install", "--read-only"]) == 2 and not crontab.exists()


def test_without_systemd_and_crontab_one_line_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(service, "BOOTED", tmp_path / "no systemd")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["service", "install"]) == 3
    assert (
        capsys.readouterr().err == "nantui: neither systemd nor crontab is here: nothing starts at a boot\n"
    )


@pytest.mark.parametrize("folder", ["config", 'my "50%" $config'])
def test_the_unit_is_enabled_and_good_to_systemd(tmp_path, monkeypatch, capsys, folder):
    monkeypatch.setattr(service, "BOOTED", tmp_path)
    monkeypatch.setattr(service, "LINGER", tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / folder))
    assert main(["service", "install"]) == 0
    assert "loginctl enable-linger" in capsys.readouterr().err
    unit = tmp_path / folder / "systemd/user/nantui.service"
    link = unit.parent / "default.target.wants/nantui.service"
    assert link.resolve() == unit and "@" not in unit.read_text().replace("@reboot", "")
    escaped = str(tmp_path / folder).replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    assert f'"XDG_CONFIG_HOME={escaped}"' in unit.read_text()
    verify = shutil.which("systemd-analyze")
    if verify:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        done = subprocess.run([verify, "--user", "verify", str(unit)], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
    assert main(["service", "remove"]) == 0
    assert not unit.exists() and not link.is_symlink()


def rebooted(run: StubRun) -> None:
    """Say in its files that an earlier boot of this host has left them."""
    for path in (run.layout.supervisor, run.layout.attempt(1)):
        document = json.loads(path.read_text())
        at = document if "boot_id" in document else document["marks"]
        path.write_text(json.dumps({**document, "marks": {**document.get("marks", {}), "boot_id": "before"}}))
        if at is document:
            path.write_text(json.dumps({**document, "boot_id": "before"}))


def killed(run: StubRun) -> StubRun:
    """Everything at once, as a power cut does."""
    run.await_step()
    run.kill_supervisor()
    for ref in run.members():
        send(ref, signal.SIGKILL)
    eventually(lambda: run.members() == [])
    return run


def told(run: StubRun) -> StubRun:
    """In order, as a shutdown does."""
    run.await_step()
    state = read_state(run.layout.supervisor)
    assert state is not None and send(state.process, signal.SIGTERM)
    eventually(lambda: not run.supervisor_alive())
    assert run.status().ending == "preempted"
    return run


def test_a_reboot_brings_back_what_went_on_unattended_and_nothing_else(make_run, monkeypatch, capsys):
    monkeypatch.setattr(service, "MOUNTS_S", 0.0)
    dead, ended = killed(make_run("dead", auto=True)), told(make_run("ended", auto=True))
    by_hand, here = killed(make_run("by_hand")), killed(make_run("here", auto=True))
    stopped = make_run("stopped", auto=True)
    stopped.await_step()
    assert stopped.do("stop").ok
    eventually(lambda: not stopped.supervisor_alive())
    for run in (dead, ended, by_hand, stopped):
        rebooted(run)
    assert main(["service", "bring-back"]) == 0
    gone_on = [line for line in capsys.readouterr().err.splitlines() if "goes on" in line]
    assert gone_on == [f"{dead.path}: goes on", f"{ended.path}: goes on"]
    for run in (dead, ended):
        eventually(lambda run=run: run.status().attempt == 2 and run.status().state == "running", run.kinds)
    assert not any(run.supervisor_alive() for run in (by_hand, here, stopped))
    ends = [entry for entry in dead.journal() if entry["kind"] == "attempt_ended"]
    assert ends[0]["cause"] == "rebooted"


def test_a_run_of_a_batch_job_is_left_to_the_batch_system(make_run, monkeypatch, capsys):
    monkeypatch.setattr(service, "MOUNTS_S", 0.0)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    run = killed(make_run("batch", auto=True))
    rebooted(run)
    assert main(["service", "bring-back"]) == 0
    assert "goes on" not in capsys.readouterr().err and not run.supervisor_alive()


def test_what_is_started_is_this_very_installation():
    assert Path(sys.executable).samefile(service.words()[service.words().index("-c") - 1])
