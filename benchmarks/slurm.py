"""`nantui sbatch` on a real Slurm: requeued, out of time, preempted, cancelled, on one node and on two.

    make slurm        (as root, on Debian or Ubuntu: installs slurm-wlm and munge)

Slurm's own programs on this machine alone, with configuration and key in a folder of their own, ended at the
end. The second node is this machine under another host name (a UTS namespace). A tiny YOLO trains on the CPU;
a row says how often its job began again, and how many steps the attempts after it trained again.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.random_signals import torn, trained
from nantui.entry_points import command_line
from tests import waiting
from tests.supervisor.stub_run import StubRun
from tests.waiting import eventually
from tests.worker.runs import draw_data_set, tiny_model

PACKAGES = ("slurm-wlm", "munge")
SECOND = "second"
CONFIGURATION = """
ClusterName=nantui
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={place}/munge/socket,cred_expire=20
StateSaveLocation={place}/state
SlurmdSpoolDir={place}/spool-%n
SlurmctldPidFile={place}/slurmctld.pid
SlurmdPidFile={place}/slurmd-%n.pid
SlurmctldLogFile={place}/slurmctld.log
SlurmdLogFile={place}/slurmd-%n.log
ProctrackType=proctrack/{track}
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SelectType=select/linear
SchedulerParameters=bf_interval=5,batch_sched_delay=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
NodeName={host} NodeHostname={host} NodeAddr=127.0.0.1 Port=16818 State=UNKNOWN
NodeName={second} NodeHostname={second} NodeAddr=127.0.0.1 Port=16819 State=UNKNOWN
PartitionName=low Nodes={host},{second} Default=YES PriorityTier=1 GraceTime=60
PartitionName=high Nodes={host},{second} PriorityTier=2
"""
"""Requeued jobs wait until earlier credentials have expired: 20 s here, 120 s where nobody says otherwise."""
CGROUP = "CgroupPlugin=cgroup/v1\nCgroupMountpoint=/sys/fs/cgroup\nCgroupAutomount=no\n"
FREEZER = Path("/sys/fs/cgroup/freezer")
AGAIN_S = 900.0


@dataclass
class Job:
    """One job of a run, and what was seen of it."""

    run: StubRun
    number: str
    seen: list[str] = field(default_factory=list)

    def shown(self, name: str) -> str:
        """Return a field of `scontrol show job`."""
        said = subprocess.run(["scontrol", "show", "job", self.number], capture_output=True, text=True).stdout
        found = re.search(rf"\b{name}=(\S+)", said)
        return found[1] if found else ""

    def trains(self, attempt: int, steps: int = 8) -> None:
        eventually(lambda: len(trained(self.run, attempt)) >= steps, self.told)

    def told(self) -> str:
        logs = [path.read_text()[-1500:] for path in self.run.layout.home.glob("slurm-*.log")]
        return f"{self.shown('JobState')} {self.run.status()} {logs}"


def requeued(job: Job) -> None:
    """By hand, twice: SIGTERM to every process, 30 s (KillWait) until SIGKILL."""
    for attempt in (1, 2):
        job.trains(attempt)
        call("scontrol", "requeue", job.number)
    job.trains(3)


def out_of_time(job: Job) -> None:
    """Twice over its limit: whole minutes, and told up to one minute earlier than asked for."""
    job.trains(3)


def preempted(job: Job) -> None:
    """By a job of a partition before it, which takes both nodes for a while."""
    job.trains(1)
    call("sbatch", "--partition=high", "--nodes=2", "--output=/dev/null", "--wrap=sleep 15")
    job.trains(2)


def cancelled(job: Job) -> None:
    """Ended in order, and not queued again."""
    job.trains(1)
    call("scancel", job.number)
    eventually(lambda: job.shown("JobState") == "CANCELLED", job.told)
    eventually(lambda: job.run.status().state == "stopped", job.told)
    assert job.run.layout.stop_point.is_file(), job.told()


@dataclass(frozen=True)
class Case:
    """What happens to a job; `again` is how often it is to begin again."""

    happens: Callable[[Job], None]
    again: int
    words: tuple[str, ...] = ()


TWO = ("nnodes=2",)
CASES = {
    "scontrol requeue, twice": Case(requeued, 2),
    "out of time, twice": Case(out_of_time, 2, ("--slurm", "time=2", "--grace", "30")),
    "preempted by another job": Case(preempted, 1),
    "scancel": Case(cancelled, 0),
    "--auto: scontrol requeue, twice": Case(requeued, 2, ("--auto",)),
    "--auto: out of time, twice": Case(out_of_time, 2, ("--auto", "--slurm", "time=2", "--grace", "30")),
    "two nodes: scontrol requeue, twice": Case(requeued, 2, TWO),
    "two nodes: out of time, twice": Case(out_of_time, 2, (*TWO, "--slurm", "time=3", "--grace", "30")),
    "two nodes: preempted by another job": Case(preempted, 1, TWO),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", default=list(CASES))
    chosen = parser.parse_args()
    install()
    waiting.PATIENCE_S = AGAIN_S
    wrong = []
    with tempfile.TemporaryDirectory(prefix="nantui-slurm-") as folder, slurm(Path(folder)):
        print("| what happens to the job | began again | steps trained before each | trained again |")
        print("| --- | --- | --- | --- |", flush=True)
        for name in chosen.cases:
            wrong += [] if carried_out(Path(folder) / "runs", name, CASES[name]) else [name]
    print(f"wrong: {wrong}" if wrong else "all as expected")
    return 1 if wrong else 0


def install() -> None:
    """Install Slurm where it is missing. Debian starts nothing of it without a configuration."""
    if shutil.which("slurmctld") is None or shutil.which("munged") is None:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        words = ["apt-get", "install", "--yes", "--no-install-recommends", *PACKAGES]
        subprocess.run(words, env=environment, check=True)


@contextlib.contextmanager
def slurm(place: Path) -> Iterator[None]:
    """Slurm with its two nodes meanwhile; nothing of it is left afterwards."""
    place.chmod(0o711)
    (place / "state").mkdir()
    track = "cgroup" if FREEZER.is_dir() else "linuxproc"
    host = socket.gethostname()
    text = CONFIGURATION.format(place=place, host=host, second=SECOND, track=track)
    (place / "slurm.conf").write_text(text)
    (place / "cgroup.conf").write_text(CGROUP)
    home = {f"XDG_{name}_HOME": str(place / name.lower()) for name in ("CONFIG", "CACHE", "STATE")}
    os.environ.update(home, SLURM_CONF=str(place / "slurm.conf"), OMP_NUM_THREADS="1", YOLO_OFFLINE="true")
    started = [munge(place / "munge")]
    try:
        second = ["unshare", "--uts", "sh", "-c", f"hostname {SECOND}; exec slurmd -D"]
        for words in (["slurmctld", "-D"], ["slurmd", "-D"], second):
            started.append(subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            time.sleep(1)
        eventually(lambda: call("sinfo", "-h", "-t", "idle", "-o", "%D").split()[:1] == ["2"])
        print(f"{call('sinfo', '--version').strip()}, processes tracked by {track}", flush=True)
        yield
    finally:
        subprocess.run(["scancel", "--user=root", "--signal=KILL", "--full"], check=False)
        subprocess.run(["scancel", "--user=root"], check=False)
        with contextlib.suppress(AssertionError):
            eventually(lambda: not call("squeue", "-h"))
        for process in reversed(started):
            process.terminate()
            process.wait(30)


def munge(place: Path) -> subprocess.Popen[bytes]:
    """Start munged with a key of its own, as its own user."""
    place.mkdir()
    (place / "key").write_bytes(secrets.token_bytes(1024))
    (place / "key").chmod(0o400)
    for path in (place, place / "key"):
        shutil.chown(path, "munge", "munge")
    files = [f"--{name}-file={place / name}" for name in ("key", "pid", "log", "seed")]
    words = ["munged", "--foreground", "--force", f"--socket={place / 'socket'}", *files]
    process = subprocess.Popen(words, user="munge", group="munge", extra_groups=[], stderr=subprocess.DEVNULL)
    eventually((place / "socket").exists)
    return process


def call(*words: str) -> str:
    """Run one of Slurm's commands; returns what it says."""
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def carried_out(place: Path, name: str, case: Case) -> bool:
    """Submit a run, let it happen, and print its row; whether all was as expected."""
    own = place / re.sub(r"\W+", "_", name)
    data, model = draw_data_set(own / "data"), tiny_model(own)
    words = [
        "imgsz=64",
        "batch=8",
        "epochs=100000",
        "patience=0",
        "workers=0",
        "plots=False",
        "lr0=0.001",
        "optimizer=AdamW",
    ]
    words += [
        f"model={model}",
        f"data={data}",
        f"project={own}",
        "name=run",
        "device=cpu",
        *case.words,
        "--submit",
    ]
    done = subprocess.run([*command_line(), "sbatch", *words], capture_output=True, text=True, cwd=own)
    number = re.search(r"Submitted batch job (\d+)", done.stderr)
    assert number, done.stderr
    job = Job(StubRun(own / "run"), number[1])
    try:
        case.happens(job)
        bad = []
    except AssertionError as error:
        bad = [str(error)[-3000:]]
    restarts = int(job.shown("Restarts") or -1)
    subprocess.run(["scancel", job.number], check=False)
    eventually(lambda: not call("squeue", "-h"), job.told)
    return row(job, name, restarts, case.again, bad)


def row(job: Job, name: str, restarts: int, wanted: int, bad: list[str]) -> bool:
    attempts = [trained(job.run, number) for number in job.run.layout.attempt_numbers()]
    again = [
        len([step for step in before if step >= after[0]])
        for before, after in zip(attempts, attempts[1:], strict=False)
        if before and after
    ]
    bad += torn(job.run)
    bad += [f"began again {restarts} times, not {wanted}"] if restarts != wanted else []
    bad += [f"attempts: {len(attempts)}"] if len(attempts) != wanted + 1 else []
    counts = ", ".join(str(len(one)) for one in attempts[:-1] or attempts)
    print(f"| {name} | {restarts} | {counts} | {', '.join(map(str, again)) or '–'} |", flush=True)
    for line in bad:
        print(f"    WRONG: {line}", flush=True)
    return not bad


if __name__ == "__main__":
    sys.exit(main())
