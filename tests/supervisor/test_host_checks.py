"""What the system may do to a training, from the files that decide it."""

from __future__ import annotations

import os

import pytest

from nantui.supervisor import host_checks
from nantui.supervisor.host_checks import BAD, OK, WARN, kill_user_processes, logout, mount


def test_drop_ins_win_over_logind_conf(tmp_path):
    (tmp_path / "logind.conf").write_text("[Login]\n#KillUserProcesses=yes\n KillUserProcesses = no\n")
    (tmp_path / "logind.conf.d").mkdir()
    places = (str(tmp_path / "vendor.conf"), str(tmp_path / "logind.conf"))
    (tmp_path / "vendor.conf.d").mkdir()
    (tmp_path / "vendor.conf.d" / "50.conf").write_text("[Login]\nKillUserProcesses=no\n")
    assert kill_user_processes(places) == "no"
    (tmp_path / "logind.conf.d" / "50.conf").write_text("[Login]\nKillUserProcesses=true\n")
    assert kill_user_processes(places) == "yes"


def test_a_logout_that_kills_is_bad_and_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "logind.conf").write_text("KillUserProcesses=yes\n")
    monkeypatch.setattr("os.getuid", lambda: 1000)
    check = logout((str(tmp_path / "logind.conf"),), user="nobody-at-all", ask=("false",))
    assert check.verdict == BAD and "enable-linger nobody-at-all" in check.do
    monkeypatch.setattr("os.getuid", lambda: 0)
    assert logout((str(tmp_path / "logind.conf"),), ask=("false",)).verdict == OK


@pytest.mark.parametrize(("said", "verdict"), [("true", BAD), ("false", OK)])
def test_logind_itself_knows_better_than_its_files(tmp_path, monkeypatch, said, verdict):
    monkeypatch.setattr("os.getuid", lambda: 1000)
    (tmp_path / "logind.conf").write_text(f"KillUserProcesses={'no' if said == 'true' else 'yes'}\n")
    check = logout((str(tmp_path / "logind.conf"),), user="nobody-at-all", ask=("echo", "b", said))
    assert check.verdict == verdict


def test_inside_slurm_is_said(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    assert host_checks.scheduler().verdict == WARN


def test_a_mount_that_ignores_chmod_is_said_and_the_probe_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(host_checks, "is_private", lambda directory: directory.mkdir() or False)
    found = {check.name: check for check in mount(tmp_path)}
    assert found["permissions"].verdict == WARN and "squashes" in found["permissions"].text
    assert found["lock"].verdict == OK
    assert list(tmp_path.glob(".nantui-doctor*")) == []


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_directory_without_write_permission_is_bad(tmp_path):
    tmp_path.chmod(0o500)
    assert [check.verdict for check in mount(tmp_path)] == [BAD]
