"""What the system around a training may do to it: kill it at logout, starve it, or break its files.

Each check looks and says what it means and what to do; nothing is changed but a probe file that is removed.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nantui.run.commands import is_private

OK, WARN, BAD = "ok", "warn", "bad"
LOGIND = tuple(f"{base}/systemd/logind.conf" for base in ("/usr/lib", "/usr/local/lib", "/run", "/etc"))
"""From the least to the most important; beside each there may be a folder of drop-ins, NAME.d."""
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


def logout(places: tuple[str, ...] = LOGIND, user: str = "", ask: tuple[str, ...] = ASK_LOGIND) -> Check:
    """Does logind kill what a logout leaves? Then a detached training dies with the SSH session."""
    value = _told_by_logind(ask) or kill_user_processes(places)
    name = user or os.environ.get("USER") or str(os.getuid())
    lingers = Path("/var/lib/systemd/linger", name).exists()
    if value != "yes" or lingers or os.getuid() == 0:
        why = "it lingers" if value == "yes" and lingers else f"KillUserProcesses={value}"
        return Check("logout", OK, f"a logout leaves the training alone ({why})")
    do = f"run once: loginctl enable-linger {name} (or set KillUserProcesses=no in logind.conf)"
    return Check("logout", BAD, "systemd kills everything of yours at logout (KillUserProcesses=yes)", do)


def _told_by_logind(ask: tuple[str, ...]) -> str:
    """Return what logind itself says, whatever its files and its built-in default; empty without logind."""
    try:
        out = subprocess.run(ask, capture_output=True, timeout=ASK_S, check=True, text=True).stdout.split()
    except (OSError, subprocess.SubprocessError):
        return ""
    return {"true": "yes", "false": "no"}.get(out[-1] if out else "", "")


def kill_user_processes(places: tuple[str, ...]) -> str:
    """Return what the files of logind say, "no" (as most distributions build it) where none says anything.

    logind.conf is read first, then every drop-in by its name, wherever it lies (systemd's logind.conf(5)).
    """
    main = [Path(place) for place in places]
    drop_ins = {path.name: path for place in main for path in sorted(Path(f"{place}.d").glob("*.conf"))}
    value = "no"
    for path in [*main, *(drop_ins[name] for name in sorted(drop_ins))]:
        with suppress(OSError, UnicodeDecodeError):
            for found in re.finditer(r"^\s*KillUserProcesses\s*=\s*(\S+)", path.read_text(), re.MULTILINE):
                value = "yes" if found[1].lower() in {"yes", "true", "1", "on"} else "no"
    return value


def scheduler() -> Check:
    """Inside a batch job the scheduler ends everything with the job, however detached."""
    job = os.environ.get("SLURM_JOB_ID")
    if job:
        text = f"inside Slurm job {job}: Slurm ends the training with the job"
        return Check("scheduler", WARN, text, "let `nantui sbatch` write a job that goes on after its end")
    for name in ("PBS_JOBID", "LSB_JOBID", "JOB_ID"):
        if os.environ.get(name):
            return Check("scheduler", WARN, f"inside a batch job ({name}): it ends with the job", "")
    return Check("scheduler", OK, "not inside a batch job")


def shared_memory() -> Check:
    """Dataloader workers hand batches over through /dev/shm; containers often have 64 MB of it."""
    try:
        total = shutil.disk_usage("/dev/shm").total / 1e9
    except OSError:
        return Check(
            "shared memory", WARN, "/dev/shm is missing: dataloader workers may fail", "train with workers=0"
        )
    if total < SMALL_SHARED_GB:
        do = "start the container with --shm-size=8g or --ipc=host, or train with workers=0"
        return Check("shared memory", WARN, f"/dev/shm has only {total:.2f} GB", do)
    return Check("shared memory", OK, f"/dev/shm has {total:.1f} GB")


def disk(directory: Path) -> Check:
    """Is there room for checkpoints?"""
    try:
        free = shutil.disk_usage(directory).free / 1e9
    except OSError as error:
        return Check("disk", BAD, f"{directory}: {error.strerror}")
    if free < SMALL_DISK_GB:
        return Check(
            "disk", WARN, f"only {free:.1f} GB are free in {directory}", "make room, or use another project="
        )
    return Check("disk", OK, f"{free:.0f} GB are free")


def mount(directory: Path) -> Iterator[Check]:
    """Try what the run's files rely on, with a probe directory that is removed again."""
    probe = directory / f".nantui-doctor-{uuid.uuid4().hex[:8]}"
    try:
        probe.mkdir()
    except OSError as error:
        yield Check(
            "directory", BAD, f"{directory}: cannot write here ({error.strerror})", "choose another directory"
        )
        return
    try:
        yield _permissions(probe)
        yield _links(probe)
        yield _clock(probe)
    finally:
        shutil.rmtree(probe, ignore_errors=True)


def _permissions(probe: Path) -> Check:
    private = is_private(probe / "commands")
    mine = probe.stat().st_uid == os.getuid()
    if private and mine:
        return Check("permissions", OK, "the mount keeps owners and modes")
    mode = stat.filemode((probe / "commands").stat().st_mode)
    text = f"the mount squashes owners or ignores chmod ({mode}): commands go through a folder of this host"
    return Check("permissions", WARN, text, "send commands from the host that trains")


def _links(probe: Path) -> Check:
    (probe / "one").write_bytes(b"")
    try:
        os.link(probe / "one", probe / "two")
    except OSError:
        return Check("lock", WARN, "no hard links here: the run's lock falls back to exclusive creation")
    return Check("lock", OK, "hard links work: the run's lock is safe over NFS")


def _clock(probe: Path) -> Check:
    skew = (probe / "one").stat().st_mtime - time.time()
    if abs(skew) > CLOCK_SKEW_S:
        text = f"the file server's clock is {skew:+.0f} s off: ages of heartbeats from other hosts are wrong"
        return Check("clock", WARN, text, "synchronise the clocks (NTP)")
    return Check("clock", OK, "the file server's clock agrees")
