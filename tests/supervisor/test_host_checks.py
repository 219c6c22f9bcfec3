"""What the system may do to a training."""

from __future__ import annotations

import os

import pytest

from nantui.supervisor import host_checks
from nantui.supervisor.host_checks import BAD, OK, WARN, logout, mount


@pytest.mark.parametrize(
    ("answer", "verdict", "said"),
    [
        (("echo", "b", "true"), BAD, "KillUserProcesses=yes"),
        (("echo", "b", "false"), OK, "KillUserProcesses=no"),
        (("false",), OK, "no logind answers"),
    ],
)
def test_a_logout_that_kills_is_bad_and_says_what_to_do(monkeypatch, answer, verdict, said):
    monkeypatch.setattr("os.getuid", lambda: 1000)
    check = logout(user="nobody-at-all", ask=answer)
    assert check.verdict == verdict and said in check.text
    assert ("enable-linger nobody-at-all" in check.do) == (verdict == BAD)
    monkeypatch.setattr("os.getuid", lambda: 0)
    assert logout(ask=answer).verdict == OK


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
