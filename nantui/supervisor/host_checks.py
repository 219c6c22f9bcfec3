"""What the system around a training may do to it: kill it at logout, starve it, or break its files.

Each check looks and says what it means and what to do; nothing is changed but a probe file that is removed.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nantui.run.commands import is_private

OK, WARN, BAD = "ok", "warn", "bad"
ASK_LOGIND = (
    "busctl", "get-property", "org.freedesktop.login1", "/org/freedesktop/login1",
    "org.freedesktop.login1.Manager", "KillUserProcesses",
)  # fmt: skip
ASK_S = 2.0
SMALL_SHARED_GB, SMALL_DISK_GB = 1.0, 5.0
CLOCK_SKEW_S = 5.0


@dataclass(frozen=True)
class Check:
    """One thing looked at; `do` says what to do about it, empty when nothing is to be done."""

    name: str
    verdict: str
    text: str
    do: str = ""


def check_host(directory: Path) -> Iterator[Check]:
    """Yield everything that matters for a run in `directory`."""
    yield logout()
    yield scheduler()
    yield shared_memory()
    yield disk(directory)
    yield from mount(directory)


def logout(user: str = "", ask: tuple[str, ...] = ASK_LOGIND) -> Check:
    """Does logind kill what a logout leaves? Then a detached training dies with the SSH session."""
    try:
        told = subprocess.run(ask, capture_output=True, timeout=ASK_S, check=True, text=True).stdout
    except (OSError, subprocess.SubprocessError):
        told = ""
    name = user or os.environ.get("USER") or str(os.getuid())
    lingers = Path("/var/lib/systemd/linger", name).exists()
    if told.strip() == "b true" and not lingers and os.getuid():
        do = f"run once: loginctl enable-linger {name} (or set KillUserProcesses=no in logind.conf)"
        return Check("logout", BAD, "systemd kills everything of yours at logout (KillUserProcesses=yes)", do)
    known = {"b false": "KillUserProcesses=no", "b true": "it lingers" if lingers else "not those of root"}
    why = known.get(told.strip(), "no logind answers")
    return Check("logout", OK, f"a logout leaves the training alone ({why})")


def scheduler() -> Check:
    """Inside a batch job the scheduler ends everything with the job, however detached."""
    if job := os.environ.get("SLURM_JOB_ID"):
        text = f"inside Slurm job {job}: Slurm ends the training with the job"
        return Check("scheduler", WARN, text, "let `nantui sbatch` write a job that goes on after its end")
    found = [name for name in ("PBS_JOBID", "LSB_JOBID", "JOB_ID") if os.environ.get(name)]
    if found:
        return Check("scheduler", WARN, f"inside a batch job ({found[0]}): it ends with the job")
    return Check("scheduler", OK, "not inside a batch job")


def shared_memory() -> Check:
    """Dataloader workers hand batches over through /dev/shm; containers often have 64 MB of it."""
    name, alone = "shared memory", "train with workers=0"
    try:
        total = shutil.disk_usage("/dev/shm").total / 1e9
    except OSError:
        return Check(name, WARN, "/dev/shm is missing: dataloader workers may fail", alone)
    if total < SMALL_SHARED_GB:
        do = f"start the container with --shm-size=8g or --ipc=host, or {alone}"
        return Check(name, WARN, f"/dev/shm has only {total:.2f} GB", do)
    return Check(name, OK, f"/dev/shm has {total:.1f} GB")


def disk(directory: Path) -> Check:
    """Is there room for checkpoints?"""
    try:
        free = shutil.disk_usage(directory).free / 1e9
    except OSError as error:
        return Check("disk", BAD, f"{directory}: {error.strerror}")
    if free < SMALL_DISK_GB:
        do = "make room, or use another project="
        return Check("disk", WARN, f"only {free:.1f} GB are free in {directory}", do)
    return Check("disk", OK, f"{free:.0f} GB are free")


def mount(directory: Path) -> Iterator[Check]:
    """Try what the run's files rely on, with a probe directory that is removed again."""
    probe = directory / f".nantui-doctor-{uuid.uuid4().hex[:8]}"
    try:
        probe.mkdir()
    except OSError as error:
        text = f"{directory}: cannot write here ({error.strerror})"
        yield Check("directory", BAD, text, "choose another directory")
        return
    try:
        yield from _probed(probe)
    finally:
        shutil.rmtree(probe, ignore_errors=True)


def _probed(probe: Path) -> Iterator[Check]:
    """Does the mount keep owners and modes, has it hard links, and does its clock agree?"""
    private = is_private(probe / "commands")
    if private and probe.stat().st_uid == os.getuid():
        yield Check("permissions", OK, "the mount keeps owners and modes")
    else:
        mode = stat.filemode((probe / "commands").stat().st_mode)
        squashes = f"the mount squashes owners or ignores chmod ({mode})"
        text = f"{squashes}: commands go through a folder of this host"
        yield Check("permissions", WARN, text, "send commands from the host that trains")
    (probe / "one").write_bytes(b"")
    try:
        os.link(probe / "one", probe / "two")
        yield Check("lock", OK, "hard links work: the run's lock is safe over NFS")
    except OSError:
        yield Check("lock", WARN, "no hard links here: the run's lock falls back to exclusive creation")
    skew = (probe / "one").stat().st_mtime - time.time()
    if abs(skew) > CLOCK_SKEW_S:
        text = f"the file server's clock is {skew:+.0f} s off: ages of heartbeats from other hosts are wrong"
        yield Check("clock", WARN, text, "synchronise the clocks (NTP)")
    else:
        yield Check("clock", OK, "the file server's clock agrees")
