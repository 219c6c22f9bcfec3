"""Every kind of ending caused for real on the CPU under `--auto`: told right, brought back, and at what cost.

    python -m benchmarks.endings [CASE…] [--healthy 20]

A tiny YOLO on drawn squares. A row says how the ending was told, what was done, whether the run finished, the
seconds from the end to the next attempt's first step, and the epochs that had to be trained again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from nantui.cli import main as main_of_nantui
from nantui.commands import service
from nantui.commands.starting import new_run
from nantui.machine.process_identity import read_proc
from nantui.machine.process_tree import send
from nantui.run.atomic_files import read_json, write_json
from nantui.run.commands import Command
from nantui.run.events import AttemptEnded, AttemptStarted, Note, of_kind
from nantui.run.results import current, read_results
from nantui.run.spec import read_spec, write_spec
from nantui.run.telemetry import StepFollower
from nantui.supervisor.client import create_run, ensure_supervisor, submit
from nantui.supervisor.state import read_state
from tests import waiting
from tests.supervisor.stub_run import StubRun
from tests.waiting import eventually
from tests.worker.runs import draw_data_set, tiny_model

EPOCHS, INSIDE = 4, "NANTUI_BENCH_INSIDE"
SETTINGS: dict[str, Any] = {
    "imgsz": 64, "batch": 8, "epochs": EPOCHS, "optimizer": "AdamW", "lr0": 0.001, "workers": 0,
    "device": "cpu", "plots": False, "seed": 0, "verbose": False,
}  # fmt: skip
QUICK = """patience: {tick_s: 0.1, heartbeat_s: 0.5, idle_exit_s: 1, stall_floor_s: 20, stall_factor: 3,
  hung_s: 10, other_phase_s: 60, grace_s: 20}
"""
MEMORY, GROUP = Path("/sys/fs/cgroup/memory"), "nantui-endings"
OWN_GROUP = "".join(re.findall(r":memory:/(.*)", read_proc("/proc/self/cgroup")))
"""Where control groups of version 1 are; the case is for hosts that have them."""
WAITS = {"fault": "slow_step", "epoch": 2, "batch": 3, "attempt": 1, "seconds": 3.0}
"""Gives whoever causes an ending the time to do it in the middle of an epoch."""


@dataclass(frozen=True)
class Case:
    """`cause` makes the ending, `told` is its kind, `back` whether the run is brought back."""

    told: str
    cause: Callable[[StubRun], None]
    back: bool = True
    settings: dict[str, Any] | None = None
    script: str = ""
    faults: tuple[dict[str, Any], ...] = (WAITS,)
    allow: bool = False
    """A GPU may be left out."""


def fault(name: str, **where: Any) -> tuple[dict[str, Any], ...]:
    return ({"fault": name, "epoch": 3, "batch": 2, "attempt": 1, **where},)


def lame(*attempts: int) -> tuple[dict[str, Any], ...]:
    """Rank 1's GPU fails in each of these attempts."""
    where = {"epoch": 2, "batch": 2, "rank": 1}
    return tuple({"fault": "cuda_error", **where, "attempt": number} for number in attempts)


def nothing(run: StubRun) -> None:
    """The fault does it."""


def in_epoch_two(run: StubRun) -> int:
    """Wait until the first attempt is in its slow step; returns rank 0's pid."""
    eventually(lambda: ((now := run.status()).epoch or 0, now.step or 0) >= (2, 2), lambda: str(run.status()))
    return run.rank_pid(0)


def signalled(number: int, rank: int = 0) -> Callable[[StubRun], None]:
    def send_it(run: StubRun) -> None:
        in_epoch_two(run)
        os.kill(run.rank_pid(rank), number)

    return send_it


def to_launcher(run: StubRun) -> None:
    pid = in_epoch_two(run)
    os.kill(psutil.Process(pid).ppid(), signal.SIGTERM)


def to_all(run: StubRun) -> None:
    """As a batch system does: every process at once, loaders' workers and launcher too."""
    in_epoch_two(run)
    for ref in run.members():
        send(ref, signal.SIGTERM)


def loader_killed(run: StubRun) -> None:
    """The kernel kills the largest process, which may be a loader's worker."""
    pid = in_epoch_two(run)
    own = psutil.Process(pid).cmdline()
    workers = [child for child in psutil.Process(pid).children() if child.cmdline() == own]
    workers[0].kill()


def memory_limit(run: StubRun) -> None:
    """No more address space than now: the next larger allocation fails."""
    pid = in_epoch_two(run)
    now = psutil.Process(pid).memory_info().vms
    resource.prlimit(pid, resource.RLIMIT_AS, (now, now))


def memory_group(run: StubRun) -> None:
    """Something else takes the rest of the control group's memory: the kernel kills the largest process."""
    pid = in_epoch_two(run)
    group = MEMORY / GROUP
    used = int((group / "memory.usage_in_bytes").read_text())
    (group / "memory.limit_in_bytes").write_text(str(used + (64 << 20)))
    hog = subprocess.Popen([sys.executable, "-c", "import time; kept = b'x' * (256 << 20); time.sleep(60)"])
    eventually(lambda: not psutil.pid_exists(pid), lambda: str(run.status()))
    hog.kill()
    hog.wait()


def shared_memory_full(run: StubRun) -> None:
    """Shared memory of a container's usual smallness, but for the first epochs (in a namespace of mounts)."""
    in_epoch_two(run)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", "/dev/shm"], check=True)
    eventually(lambda: len(run.layout.attempt_numbers()) > 1 or over(run), lambda: str(run.status()))


def cut(run: StubRun) -> None:
    """The kernel closes every connection of one rank."""
    in_epoch_two(run)
    for one in psutil.Process(run.rank_pid(1)).net_connections("tcp"):
        if one.raddr:
            subprocess.run(["ss", "-K", "sport", "=", f":{one.laddr.port}"], capture_output=True, check=True)


def data_away(run: StubRun) -> None:
    in_epoch_two(run)
    data = Path(json.loads(Path(read_json(run.layout.attempt(1))["train"]["data"]).read_text())["path"])
    away = data.with_name("away")
    data.rename(away)
    eventually(lambda: "waiting until" in str(run.status().doing), lambda: str(run.journal()[-4:]))
    away.rename(data)


def disk_full(run: StubRun) -> None:
    """The run lies on a small file system of its own; a last checkpoint that cannot be kept is an end."""
    in_epoch_two(run)
    filler = run.layout.run.parent / "filler"
    with contextlib.suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(b"\0" * (1 << 16))
            file.flush()
    told = lambda: any("waiting for room" in str(one.get("text")) for one in run.journal())  # noqa: E731
    eventually(lambda: told() or "waiting for room" in run.status().text, lambda: str(run.journal()[-3:]))
    filler.unlink()


def reboot(run: StubRun) -> None:
    """Everything is killed, the boot id is another; the service brings it back."""
    in_epoch_two(run)
    run.kill_supervisor()
    for ref in run.members():
        send(ref, signal.SIGKILL)
    another_boot(run)


def shut_down(run: StubRun) -> None:
    """As at a reboot in order: every process is told to end, the supervisor too."""
    in_epoch_two(run)
    state = read_state(run.layout.supervisor)
    for ref in [*run.members(), *([state.process] if state else [])]:
        send(ref, signal.SIGTERM)
    eventually(lambda: not run.supervisor_alive(), lambda: str(run.status()))
    another_boot(run)


def another_boot(run: StubRun) -> None:
    """Say so in its files, and start what the service starts."""
    record, state = read_json(run.layout.attempt(1)) or {}, read_json(run.layout.supervisor) or {}
    write_json(run.layout.attempt(1), {**record, "marks": {**record["marks"], "boot_id": "an earlier one"}})
    write_json(run.layout.supervisor, {**state, "boot_id": "an earlier one"})
    assert main_of_nantui(["service", "bring-back"]) == 0


def everything_killed(run: StubRun) -> None:
    in_epoch_two(run)
    run.kill_supervisor()
    for ref in run.members():
        send(ref, signal.SIGKILL)
    ensure_supervisor(run.layout)


SCRIPT = """
import sys
import yaml
from ultralytics import YOLO

def with_workers(trainer):
    with open(trainer.save_dir / "nantui/spec.yaml") as file:  # stock Ultralytics takes none on the CPU
        trainer.args.workers = yaml.safe_load(file)["train"].get("workers", 2)

model = YOLO(sys.argv[1])
model.add_callback("on_pretrain_routine_start", with_workers)
model.train(data=sys.argv[2], **{settings})
"""
TWO = {"device": "cpu,cpu"}
CASES: dict[str, Case] = {
    "a CUDA error, one of two ranks": Case(
        "cuda_error", nothing, settings=TWO, faults=lame(1, 2), allow=True
    ),
    "CUDA out of memory": Case("cuda_oom", nothing, faults=fault("out_of_memory")),
    "a loader's worker SIGKILLed": Case("loader", loader_killed, script=SCRIPT),
    "address space limited": Case("host_oom", memory_limit, back=False),
    "shared memory full": Case("loader", shared_memory_full, script=SCRIPT),
    "memory of its control group full": Case("host_oom", memory_group, script=SCRIPT),
    "every connection of a rank cut": Case("collective", cut, settings=TWO),
    "SIGSTOP": Case("hung", signalled(signal.SIGSTOP)),
    "SIGSTOP, one of two ranks": Case("hung", signalled(signal.SIGSTOP, 1), settings=TWO),
    "SIGKILL": Case("killed", signalled(signal.SIGKILL), back=False),
    "SIGTERM": Case("preempted", signalled(signal.SIGTERM)),
    "SIGUSR1": Case("preempted", signalled(signal.SIGUSR1)),
    "SIGTERM to torchrun": Case("preempted", to_launcher, settings=TWO),
    "SIGTERM to every process": Case("preempted", to_all, settings=TWO),
    "SIGTERM to every process, loaders' too": Case("preempted", to_all, script=SCRIPT),
    "reboot": Case("rebooted", reboot),
    "reboot in order": Case("preempted", shut_down),
    "everything SIGKILLed": Case("killed", everything_killed, back=False),
    "disk full": Case("disk_full", disk_full),
    "data moved away": Case("data_gone", data_away),
    "an exception": Case("exception", nothing, back=False, faults=fault("exception")),
    "NaN": Case("", nothing, faults=fault("nan_gradient", epoch=2, times=9)),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help="default: all, unless --healthy is given")
    parser.add_argument("--healthy", type=int, default=0, help="real runs that nothing happens to")
    arguments = parser.parse_args()
    cases = arguments.cases or ([] if arguments.healthy else list(CASES))
    if "shared memory full" in cases and os.environ.get(INSIDE) != "1":  # /dev/shm is to be nobody else's
        argv = ["unshare", "--mount", sys.executable, "-m", "benchmarks.endings", *sys.argv[1:]]
        os.execvpe(argv[0], argv, {**os.environ, INSIDE: "1"})
    with quick_home() as place:
        print(
            "| caused | told as | brought back | s | epochs, steps again |\n| --- | --- | --- | --- | --- |",
            flush=True,
        )
        wrong = [name for name in cases if not carried_out(place, name, CASES[name])]
        wrong += [f"healthy {number}" for number in range(arguments.healthy) if not healthy(place, number)]
    print(f"wrong: {wrong}" if wrong else "all as expected")
    return 1 if wrong else 0


@contextlib.contextmanager
def quick_home() -> Iterator[Path]:
    """A folder with a tiny model, and configuration, cache and state in it; supervisors are quick."""
    waiting.PATIENCE_S, service.MOUNTS_S = 240.0, 0.0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        os.environ.update(
            {f"XDG_{name}_HOME": str(place / name.lower()) for name in ("CONFIG", "CACHE", "STATE")}
        )
        os.environ["OMP_NUM_THREADS"] = "1"
        (place / "config/nantui").mkdir(parents=True)
        (place / "config/nantui/supervise.yaml").write_text(QUICK)
        tiny_model(place)
        yield place


@contextlib.contextmanager
def room(place: Path, name: str) -> Iterator[Path]:
    """A folder with a data set; on a file system of its own where the disk is to run full."""
    own = place / "".join(letter if letter.isalnum() else "_" for letter in name)
    own.mkdir()
    draw_data_set(own / "data")
    (own / "runs").mkdir()
    if name == "disk full":
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(own / "runs")], check=True)
    group = MEMORY / GROUP
    if name == "memory of its control group full":
        group.mkdir(exist_ok=True)
        (group / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield own
    finally:
        if name == "memory of its control group full":
            (MEMORY / OWN_GROUP / "cgroup.procs").write_text(str(os.getpid()))
            eventually(lambda: not (group / "cgroup.procs").read_text(), lambda: "processes are left")
            group.rmdir()
        if name == "shared memory full":
            subprocess.run(["umount", "-l", "/dev/shm"], check=False)
        if name == "disk full":
            subprocess.run(["umount", "-l", str(own / "runs")], check=False)
        shutil.rmtree(own, ignore_errors=True)


def begun(place: Path, own: Path, case: Case) -> StubRun:
    where = {"model": str(place / "tiny.yaml"), "data": str(own / "data/data.yaml"), "name": "run"}
    train = {**SETTINGS, **where, "project": str(own / "runs"), **(case.settings or {})}
    if case.script:
        return begun_script(own, case, [where["model"], where["data"]])
    ours = {"max_consecutive_skips": 2, "leave_out_gpu": case.allow}
    return StubRun(create_run(train, ours, python=sys.executable, auto=True, faults=case.faults))


def begun_script(own: Path, case: Case, words: list[str]) -> StubRun:
    script, run = own / "train.py", own / "runs/run"
    settings = {**SETTINGS, **(case.settings or {}), "project": str(own / "stock")}
    script.write_text(case.script.replace("{settings}", repr(settings)))
    layout = new_run(run, [sys.executable, str(script), *words], auto=True)
    spec = read_spec(layout.spec)
    assert spec is not None
    write_spec(layout.spec, replace(spec, faults=list(case.faults)))
    submit(layout.run, Command("start", {"cwd": str(own)}))
    return StubRun(layout.run)


def carried_out(place: Path, name: str, case: Case) -> bool:
    """Cause one ending and print its row; whether all was as expected."""
    with room(place, name) as own:
        run = begun(place, own, case)
        try:
            case.cause(run)
            eventually(lambda: over(run), lambda: f"{run.status()}\n{run.journal()[-5:]}")
        except AssertionError as error:
            print(f"| {name} | FAILED | {str(error)[-2000:]} |", flush=True)
            return False
        finally:
            end(run)
        return row(run, name, case)


def over(run: StubRun) -> bool:
    return not run.supervisor_alive()


def end(run: StubRun) -> None:
    state = read_state(run.layout.supervisor)
    if state is not None:
        send(state.process, signal.SIGKILL)
    for ref in run.members():
        send(ref, signal.SIGKILL)


def row(run: StubRun, name: str, case: Case) -> bool:
    from nantui.run.journal import Journal

    events = Journal(run.layout.journal).events()
    endings, starts = of_kind(events, AttemptEnded), of_kind(events, AttemptStarted)
    told = endings[0].cause
    finished = run.status().state == "finished"
    rows = read_results(run.layout.results_csv)
    before, after = (StepFollower(run.layout.steps(number)).read()[0] for number in (1, 2))
    seconds = after[0].t - endings[0].t if after else float("nan")
    begins = (after[0].epoch, after[0].step) if after else (EPOCHS + 1, 0)
    lost = sum((one.epoch, one.step) >= begins for one in before)
    whole = [one.epoch for one in current(rows)] == list(range(1, EPOCHS + 1))
    again = (endings[0].epoch or 0) - begins[0] if after else 0
    good = told == case.told and finished == case.back and (whole or not case.back)
    back = ("yes" if finished else "no") + ("" if finished == case.back else " (WRONG)")
    kind = told if told == case.told else f"{told} (WRONG)"
    print(f"| {name} | {kind} | {back} | {seconds:.1f} | {again}, {lost} |")
    print(f"    evidence: {endings[0].evidence}")
    for note in of_kind(events, Note):
        print(f"    {note.by}: {note.text}")
    if not good:
        print(
            f"    rows {[one.epoch for one in rows]}, {len(starts)} attempts, {run.status().text}", flush=True
        )
    sys.stdout.flush()
    return good


def healthy(place: Path, number: int) -> bool:
    """A run that nothing happens to is left alone."""
    with room(place, f"healthy{number}") as own:
        run = begun(place, own, Case("", nothing, faults=()))
        begun_at = time.monotonic()
        try:
            eventually(lambda: over(run), lambda: str(run.status()))
        finally:
            end(run)
        kinds = run.kinds()
        alone = (
            kinds.count("attempt_started") == 1 and "note" not in kinds and run.status().state == "finished"
        )
        said = "left alone" if alone else "WRONG"
        print(f"| healthy {number} | {said} | {time.monotonic() - begun_at:.0f} s |", flush=True)
        return alone


if __name__ == "__main__":
    raise SystemExit(main())
