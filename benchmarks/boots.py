"""Boots with a real systemd: does the unit of `nantui service install` bring a run back by itself?

    python -m benchmarks.boots [cut|order]…

Each boot is a namespace of its own (processes, mounts, control groups) with `systemd --user` in it, as at a
login: needs root, Debian's systemd and cgroup v2, and touches nothing of the host's own systemd. In the first
one the unit is installed and a training begun under --auto, in the others nothing is started but systemd.
`cut`: everything is killed at once, as by a power cut. `order`: every process is told to end, as at a
shutdown, what the unit has brought back by its systemd.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil

from benchmarks.endings import SETTINGS, quick_home, room
from nantui.machine.process_identity import read_proc
from nantui.run.events import AttemptEnded, AttemptStarted, of_kind
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.results import current, read_results
from nantui.run.telemetry import StepFollower
from nantui.supervisor.state import read_state
from tests.waiting import eventually

SYSTEMD, UNIT, GROUP = "/lib/systemd/systemd", "nantui.service", "nantui-boots"
BOOT = """
set -e
mount -t tmpfs tmpfs /run
mkdir -p -m 700 /run/systemd/system /run/user
umount -R /sys/fs/cgroup
mount -t cgroup2 none /sys/fs/cgroup
export XDG_RUNTIME_DIR=/run/user
{systemd} --user --log-target=console &
sleep 3
{commands}
wait
sleep 600
"""
EPOCHS = 40
CUT, ORDER = "cut", "order"
TOLD = {CUT: "rebooted", ORDER: "preempted"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("ends", nargs="*", metavar="END", help="how each boot ends; default: cut order cut")
    ends = parser.parse_args().ends or [CUT, ORDER, CUT]
    with quick_home() as place, control_group() as group, room(place, "boots") as own:
        layout, began = RunLayout(own / "runs/run"), f"{sys.executable} -m nantui"
        train = {**SETTINGS, "epochs": EPOCHS, "model": place / "tiny.yaml", "data": own / "data/data.yaml"}
        words = [
            f"{name}={value}" for name, value in {**train, "project": own / "runs", "name": "run"}.items()
        ]
        commands = f"{began} service install\n{began} train --auto {shlex.join(words)}"
        for number, end in enumerate([*ends, CUT], 1):
            with booted(group, commands if number == 1 else "", place / f"boot{number}.log") as boot:
                last = number > len(ends)
                look = partial(finished, layout) if last else partial(trains, layout, number)
                eventually(look, lambda boot=boot: f"{read_state(layout.supervisor)}\n{boot.said()}")
                boot.end(end)
                print(f"boot {number} {'saw it finish' if last else f'ended ({end})'}", flush=True)
        return told(layout, ends)


class Boot:
    """A namespace in which systemd runs, until its end."""

    def __init__(self, group: Path, commands: str, log: Path) -> None:
        script = BOOT.format(systemd=SYSTEMD, commands=commands)
        namespace = "unshare --cgroup --mount --pid --fork --mount-proc sh -c"
        inside = f"echo $$ > {group}/cgroup.procs; exec {namespace} {shlex.quote(script)}"
        with log.open("wb") as output:
            self._child = subprocess.Popen(["sh", "-c", inside], stdout=output, stderr=output, cwd="/")
        self._log = log

    def said(self) -> str:
        return self._log.read_text(errors="replace")[-3000:]

    def end(self, how: str) -> None:
        """End everything in it: at once, or once systemd has ended its units."""
        if self._child.poll() is not None:
            return
        init = psutil.Process(self._child.pid).children()[0]
        if how == ORDER:
            processes = init.children(recursive=True)
            for one in processes:
                if UNIT not in read_proc(f"/proc/{one.pid}/cgroup"):
                    one.send_signal(signal.SIGTERM)
            eventually(lambda: not any(map(lives, processes)), self.said)  # init itself only sleeps then
        with contextlib.suppress(psutil.NoSuchProcess):
            init.kill()  # the kernel kills whatever is in its namespace
        self._child.wait()


@contextlib.contextmanager
def booted(group: Path, commands: str, log: Path) -> Iterator[Boot]:
    """A boot that is over afterwards, whatever happens."""
    boot = Boot(group, commands, log)
    try:
        yield boot
    finally:
        boot.end(CUT)


@contextlib.contextmanager
def control_group() -> Iterator[Path]:
    """A control group of its own, so that systemd's do not stay."""
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    group = Path(next(words[1] for words in mounts if words[2] == "cgroup2")) / GROUP
    group.mkdir(exist_ok=True)
    try:
        yield group
    finally:
        for folder, _, _ in os.walk(group, topdown=False):
            os.rmdir(folder)


def lives(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def trains(layout: RunLayout, number: int) -> bool:
    """Tell whether an attempt is well under way."""
    return len(StepFollower(layout.steps(number)).read()[0]) > 3


def finished(layout: RunLayout) -> bool:
    state = read_state(layout.supervisor)
    return state is not None and state.state == "finished"


def told(layout: RunLayout, ends: list[str]) -> int:
    """Print what each boot brought; 0 where all is as it should be."""
    events = Journal(layout.journal).events()
    endings, starts = of_kind(events, AttemptEnded), of_kind(events, AttemptStarted)
    for ended in endings:
        print(f"attempt {ended.attempt}: {ended.outcome}, {ended.cause or '-'}: {ended.evidence}")
    kinds = [ended.cause for ended in endings]
    epochs = [row.epoch for row in current(read_results(layout.results_csv))]
    good = kinds == [*(TOLD[end] for end in ends), ""] and len(starts) == len(ends) + 1
    good &= epochs == list(range(1, EPOCHS + 1))
    print("all as expected" if good else f"WRONG: {kinds}, epochs {epochs}")
    return 0 if good else 1


if __name__ == "__main__":
    raise SystemExit(main())
