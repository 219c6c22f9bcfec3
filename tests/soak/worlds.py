"""What trials are made of: a home of their own, runs of the stub, and disturbances of their system calls."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from tests import waiting
from tests.soak.harness import NotPossible
from tests.supervisor.stub_run import Runs, own_home, stub_interpreter

PATIENCE_S = 90.0
"""A machine that soaks is busy; what takes longer hangs."""
DISTURBED = """
import builtins, io, os, random, sys, time

with open("/proc/self/cmdline", "rb") as file:
    chosen = os.environ["DISTURBED_PROCESS"].encode() in file.read()

def late(call):
    def wait(path, *arguments, **options):
        named = isinstance(path, (str, os.PathLike))
        if named and os.fspath(path).startswith(os.environ["DISTURBED_PATH"]):
            longest = float(os.environ.get("DISTURBED_LATE_S", "0"))
            time.sleep(dice.random() ** 4 * longest)
            while access(os.environ["DISTURBED_HANGS"], os.F_OK):
                time.sleep(0.05)
        return call(path, *arguments, **options)
    return wait

def shifted(call):
    def jumped():
        try:
            return call() + float(os.readlink(os.environ["DISTURBED_CLOCK"]))
        except OSError:
            return call()
    return jumped

if chosen:
    dice, access = random.Random(os.environ["DISTURBED_SEED"]), os.access
    for name in ("open", "stat", "lstat", "scandir", "listdir", "unlink", "replace", "link", "mkdir"):
        setattr(os, name, late(getattr(os, name)))
    io.open = builtins.open = late(io.open)
    time.time = shifted(time.time)
"""


@contextmanager
def world(folder: Path, place: Path | None = None, **variables: str) -> Iterator[Runs]:
    """A home in `folder`, and runs below `place` (default: there too); none is left with a process."""
    patient = mock.patch.object(waiting, "PATIENCE_S", PATIENCE_S)
    with patient, mock.patch.dict(os.environ, {**own_home(folder), **variables}):
        runs = Runs(place or folder, stub_interpreter(folder))
        try:
            yield runs
        finally:
            runs.end()


class Disturbance:
    """Files are slow or hang, the clock jumps: for one kind of process, through a sitecustomize of ours."""

    def __init__(
        self, folder: Path, path: Path, dice: random.Random, process: str, late_s: float = 0.0
    ) -> None:
        (folder / "site").mkdir()
        (folder / "site" / "sitecustomize.py").write_text(DISTURBED)
        self._hangs, self._clock = folder / "hangs", folder / "clock"
        self.variables = {
            "PYTHONPATH": str(folder / "site"),
            "DISTURBED_PROCESS": process,
            "DISTURBED_PATH": str(path),
            "DISTURBED_LATE_S": str(late_s),
            "DISTURBED_HANGS": str(self._hangs),
            "DISTURBED_CLOCK": str(self._clock),
            "DISTURBED_SEED": str(dice.random()),
        }

    def hang(self, hangs: bool) -> None:
        """From now on (not any more) no file call below the path returns."""
        if hangs:
            self._hangs.touch()
        else:
            self._hangs.unlink()

    def jump(self, seconds: float) -> None:
        """Set the clock that far from the true one."""
        beside = self._clock.with_name("clock.new")
        beside.symlink_to(str(seconds))
        beside.replace(self._clock)


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own in memory. Raises NotPossible where it cannot be mounted."""
    disk = folder / "disk"
    disk.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "none", str(disk)]
    try:
        subprocess.run(words, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        raise NotPossible("a tmpfs cannot be mounted") from None
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def without_override() -> list[str]:
    """Return the words before Python's arguments under which permissions count for root, too.

    Raises NotPossible without setpriv.
    """
    if shutil.which("setpriv") is None:
        raise NotPossible("root may do everything, and setpriv is not there")
    lost = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={lost}", f"--inh-caps={lost}", "--", sys.executable]
