"""Ranks, stop and kill: every process gone and memory back, beside what signals do to plain Ultralytics."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from benchmarks.gpu.bench import Bench, command, ending, gpu_memory, memory_back, stepping, until
from nantui.machine.gpus import Sampler
from nantui.run.events import Activity, Registered, newest, of_kind
from nantui.run.layout import RunLayout
from nantui.run.record import AttemptRecord
from nantui.supervisor.status import read_status

PLAIN = """
from ultralytics import YOLO
YOLO("yolov8n.yaml").train(data={data!r}, imgsz=128, batch=32, epochs=300, device={devices!r}, workers=4,
                           plots=False, project={project!r}, name="plain", nbs=32)
"""


def ranks(bench: Bench) -> None:
    """N ranks, a log, and a GPU panel that says what nvidia-smi says."""
    with ending(bench.train("ranks", devices=bench.gpus, batch=16 * bench.gpus)) as run:
        stepping(run)
        layout = RunLayout(run)
        registered = [
            event.pid
            for rank in layout.ranks(1)
            for event in of_kind(AttemptRecord(layout, 1).events(rank), Registered)
        ]
        bench.found(
            "ranks", f"ranks registered of {bench.gpus}", len(registered), len(registered) == bench.gpus
        )
        size = layout.attempt_log(1).stat().st_size
        bench.found("ranks", "bytes in the attempt's log", size, size > 0)
        sample = Sampler(run).sample(read_status(run).pids)
        panel = [round(gpu.used_gb * 1e9 / 2**20) for gpu in sample.gpus][: bench.gpus]
        smi = gpu_memory()[: bench.gpus]
        close = all(abs(ours - theirs) <= 0.02 * theirs + 16 for ours, theirs in zip(panel, smi, strict=True))
        bench.found("ranks", "GPU panel against nvidia-smi, MiB", f"{panel} {smi}", close)
        ours = [round(gpu.ours_gb * 1e9 / 2**20) for gpu in sample.gpus][: bench.gpus]
        bench.found("ranks", "this run's share in the panel, MiB", ours, all(share > 100 for share in ours))


def stops(bench: Bench) -> None:
    """x and X on a healthy run, with a hung rank, and in the middle of a save."""
    for name, how in (("healthy", "stop"), ("healthy", "kill"), ("hung rank", "stop"), ("hung rank", "kill"),
                      ("saving", "kill")):  # fmt: skip
        before = gpu_memory()
        run = bench.train(
            f"{how}-{name.replace(' ', '-')}", devices=bench.gpus, batch=16 * bench.gpus, epochs=400
        )
        with ending(run):
            stepping(run)
            if name == "hung rank":
                _hang(run)
            elif name == "saving":
                _await_save(run)
            outcome, seconds = command(run, how)
            left = [pid for pid in read_status(run).pids if psutil.pid_exists(pid)]
            back, now = memory_back(before)
            fine = outcome.ok and not left and back
            bench.found("stops", f"{how}, {name}: s, left, MiB before and after",
                        f"{seconds:.2f} {left} {before} {now}", fine)  # fmt: skip


def plain(bench: Bench) -> None:
    """What the same signals leave of plain Ultralytics; cleaned up afterwards."""
    for how in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        before = gpu_memory()
        process = _start_plain(bench)
        tree: list[psutil.Process] = []
        try:
            _await_memory(before)
            time.sleep(5)
            tree = psutil.Process(process.pid).children(recursive=True)
            process.send_signal(how)
            time.sleep(12)
            process.poll()
            left = [one for one in tree if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
            what = f"{how.name} to plain Ultralytics, 12 s later: processes, MiB"
            bench.found("plain", what, f"{len(left)} {gpu_memory()}")
        finally:
            _end([process.pid, *(one.pid for one in tree)])
            process.wait()
            memory_back(before)


def _start_plain(bench: Bench) -> subprocess.Popen[bytes]:
    script = bench.place / "plain.py"
    places = {"data": str(bench.data()), "project": str(bench.place / "plain")}
    script.write_text(PLAIN.format(devices=list(range(bench.gpus)), **places))
    with (bench.place / "plain.log").open("wb") as log:
        words = [sys.executable, str(script)]
        return subprocess.Popen(words, stdout=log, stderr=log, start_new_session=True)


def _await_memory(before: list[int]) -> None:
    def grown() -> bool:
        return all(now > start + 300 for now, start in zip(gpu_memory(), before, strict=True))

    until(grown, "plain Ultralytics on the GPUs", 120)


def _hang(run: Path) -> None:
    layout = RunLayout(run)
    events = AttemptRecord(layout, 1).events(layout.ranks(1)[-1])
    os.kill(of_kind(events, Registered)[0].pid or 0, signal.SIGSTOP)
    time.sleep(1)


def _await_save(run: Path) -> None:
    layout = RunLayout(run)

    def saving() -> bool:
        activity = newest(AttemptRecord(layout, 1).events(), Activity)
        return activity is not None and activity.phase == "saving"

    until(saving, "a save")


def _end(pids: list[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
