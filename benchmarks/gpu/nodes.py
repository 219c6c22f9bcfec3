"""One machine plays two hosts with one GPU each, beside one host with both: the same training, as fast?"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.gpu import ddp_ends
from benchmarks.gpu.bench import Bench, ended, gpu_memory, journaled, memory_back, stepping, until
from nantui.machine.process_identity import alive
from nantui.machine.process_tree import members, send
from nantui.run.attempts import FINISHED
from nantui.run.endings import HOST_LOST
from nantui.run.events import Incident
from nantui.run.layout import RunLayout
from nantui.run.telemetry import Step, StepFollower
from nantui.supervisor.hosts import reports
from nantui.supervisor.hosts.agent import mark_of
from nantui.supervisor.status import read_status

LEAD = """
import json, sys
from nantui.supervisor.client import create_run
asked = json.loads(sys.argv[1])
print(create_run(asked.pop("train"), **asked))
"""
EPOCHS = 8
COMPARED = 20
CLOSE = 1e-3
NOTICED_S = 15.0


def nodes(bench: Bench) -> None:
    """Loss and norm sequence, throughput, a NaN on the second host, stop, rejoin, a killed agent."""
    before = gpu_memory()
    fault = {"fault": "nan_pixel", "rank": 1, "epoch": 3, "batch": 2}
    together = lead(bench, "one-host", "0,1", 1, [fault])
    bench.found("nodes", "one host, two GPUs: ended as", ended(together).outcome)
    memory_back(before)
    run = lead(bench, "two-hosts", "0", 2, [fault])
    try:
        joined = nantui("b", "1", "join", str(run), "device=0")
        bench.found("nodes", "nantui join", joined.stderr.strip()[-160:], joined.returncode == 0)
        outcome = ended(run).outcome
        bench.found("nodes", "two hosts, one GPU each: ended as", outcome, outcome == "finished")
        seen = [(e.epoch, e.step, e.action, list(e.hosts)) for e in journaled(run, Incident)]
        bench.found("nodes", "NaN on the second host", seen, seen == [(3, 2, "skipped", ["b"])])
        compare(bench, steps(run), steps(together))
    finally:
        nantui("a", "0", "stop", str(run), "--now", "--yes")
    control(bench, before)


def control(bench: Bench, before: list[int]) -> None:
    """Stop, rejoin, and an agent that is killed."""
    run = lead(bench, "two-hosts-control", "0", 2, [], epochs=400)
    try:
        nantui("b", "1", "join", str(run), "device=0")
        stepping(run)
        sample = RunLayout(run).hosts / "b" / "sample.json"
        gpus = json.loads(until(lambda: sample.exists() and sample.read_text(), "a sample of host b"))["gpus"]
        bench.found("nodes", "GPU panel of the second host: GPUs", len(gpus), bool(gpus))
        begun = time.monotonic()
        answer = nantui("a", "0", "stop", str(run), "--yes")
        back, now = memory_back(before)
        text = f"{time.monotonic() - begun:.2f} s {answer.stderr.strip()[-100:]} {now}"
        bench.found(
            "nodes", "stop on both: s, answer, MiB", text, answer.returncode == 0 and back and not left(run)
        )
        nantui("a", "0", "resume", str(run), "--yes")
        stepping(run, 2)
        bench.found("nodes", "the second host joined attempt 2 by itself", True, True)
        report = reports.read_report(RunLayout(run), "b")
        assert report is not None, "it takes part"
        begun = time.monotonic()
        send(report.process, 9)
        end = ended(run, 2)
        seconds = time.monotonic() - begun
        back, now = memory_back(before)
        text = f"{seconds:.1f} s {end.outcome}: {end.text[:120]} {now}"
        bench.found(
            "nodes",
            "agent killed: s to the run's end, MiB",
            text,
            back and seconds < NOTICED_S and not left(run),
        )
    finally:
        nantui("a", "0", "stop", str(run), "--now", "--yes")
        nantui("a", "0", "stop", str(run), "--yes")


def compare(bench: Bench, two: list[Step], one: list[Step]) -> None:
    """Are the first steps the same, and how many images a second are there?"""
    pairs = list(zip(two[:COMPARED], one[:COMPARED], strict=False))
    off = max(far(mine, theirs) for mine, theirs in pairs)
    bench.found(
        "nodes", f"largest difference in losses and norm, {len(pairs)} steps", f"{off:.2e}", off < CLOSE
    )
    speeds = [
        statistics.median(step.value("images_s") for step in found if step.epoch > 1) for found in (two, one)
    ]
    text = f"{speeds[0]:.0f} against {speeds[1]:.0f} images/s ({100 * (speeds[0] / speeds[1] - 1):+.1f} %)"
    bench.found("nodes", "throughput, two hosts against one with both GPUs", text)


def far(mine: Step, theirs: Step) -> float:
    """Return the largest relative difference between two steps."""
    values = [(mine.losses[name], theirs.losses[name]) for name in theirs.losses]
    values.append((mine.value("grad_norm"), theirs.value("grad_norm")))
    finite = [(a, b) for a, b in values if a == a and b == b]
    return max((abs(a - b) / max(abs(b), 1e-9) for a, b in finite), default=0.0)


def killed(bench: Bench) -> None:
    """Two agents with step points under `--auto`, one of them killed: noticed, joined again, at the batch."""
    before, device = gpu_memory(), "0" if bench.gpus else "cpu"
    ours = {"step_points": ddp_ends.INTERVAL_S}
    slow = [{**ddp_ends.SLOW, "rank": 0}]
    run = lead(bench, "agent-killed", device, 2, slow, ddp_ends.EPOCHS, ours=ours, auto=True)
    try:
        joined = nantui("b", "1", "join", str(run), f"device={device}")
        said = joined.stderr.strip().replace("\n", "; ")[-160:]
        bench.found("ddp", "two agents: join", said, joined.returncode == 0)
        ddp_ends.late(run)
        report = reports.read_report(RunLayout(run), "b")
        assert report is not None, "it takes part"
        since = time.time()
        send(report.process, 9)
        until(lambda: not members(mark_of(report)), "the end of host b's ranks", NOTICED_S)
        orphans_s, end = time.time() - since, ended(run)
        rest = len(ddp_ends.processes(run))
        text = f"{end.t - since:.1f} s, {end.cause}: {end.text[:160]}; its ranks are gone after "
        text += f"{orphans_s:.1f} s, processes left of the others {rest}"
        fine = end.t - since <= NOTICED_S and end.cause == HOST_LOST and not rest
        bench.found("ddp", "two agents, one killed: noticed and ended after", text, fine)
        until(lambda: RunLayout(run).newest_attempt() == 2, "attempt 2, which waits for host b")
        again = nantui("b", "1", "join", str(run), f"device={device}")
        outcome, lost = ended(run, 2).outcome, ddp_ends.lost(run, since)
        whole, right = ddp_ends.whole(run)
        text = f"{again.returncode}; on from {lost.point} at {lost.first}: {lost.steps} steps, "
        text += f"{lost.seconds:.2f} s again; {outcome}, {whole}"
        fine = again.returncode == 0 and outcome == FINISHED and lost.fine and right
        bench.found("ddp", "two agents: joined again, lost", text, fine)
    finally:
        nantui("a", "0", "stop", str(run), "--now", "--yes")
        nantui("a", "0", "stop", str(run), "--yes")
    back, now = memory_back(before)
    bench.found("ddp", "two agents: MiB on the GPUs before and after", f"{before} {now}", back)


def lead(
    bench: Bench,
    name: str,
    device: str,
    nnodes: int,
    faults: list[dict[str, Any]],
    epochs: int = EPOCHS,
    **more: Any,
) -> Path:
    """Start a run on host a, which sees as many GPUs as `device` says."""
    train = {
        "model": "yolov8n.yaml", "data": str(bench.data(8)), "project": str(bench.place / "runs"),
        "name": name, "imgsz": 320, "batch": 32, "nbs": 32, "epochs": epochs, "workers": 4, "plots": False,
        "optimizer": "SGD", "lr0": 0.001, "amp": False, "save_period": 1, "seed": 0, **bench.small(),
        "device": device,
    }  # fmt: skip
    asked = {
        **more,
        "train": train,
        "faults": faults,
        "nnodes": nnodes,
        "endpoint": "127.0.0.1" if nnodes > 1 else "",
    }
    words = [sys.executable, "-c", LEAD, json.dumps(asked)]
    answer = subprocess.run(words, env=of_host("a", device), capture_output=True, text=True, timeout=120)
    if answer.returncode:
        raise RuntimeError(answer.stderr[-600:])
    return Path(answer.stdout.strip().splitlines()[-1])


def nantui(host: str, gpu: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command as a host with one GPU."""
    argv = [sys.executable, "-m", "nantui", *words]
    return subprocess.run(argv, env=of_host(host, gpu), capture_output=True, text=True, timeout=200)


def of_host(host: str, gpus: str) -> dict[str, str]:
    """Return the environment of a host."""
    return {**os.environ, "NANTUI_HOST": host, "CUDA_VISIBLE_DEVICES": gpus}


def left(run: Path) -> list[int]:
    """Return the processes of the newest attempt that live on either host."""
    report = reports.read_report(RunLayout(run), "b")
    state = json.loads(RunLayout(run).supervisor.read_text())
    found = members(state["attempt_uuid"]) + (members(f"b@{report.uuid}") if report else [])
    return [ref.pid for ref in found if alive(ref)] + list(read_status(run).pids)


def steps(run: Path) -> list[Step]:
    """Return the telemetry of attempt 1."""
    follower, found = StepFollower(RunLayout(run).steps(1)), []
    more = True
    while more:
        new, more = follower.read()
        found += new
    return found
