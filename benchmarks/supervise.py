"""What run control costs: the supervisor's memory and processor, how long x and X take, status over 300 runs.

    python -m benchmarks.supervise [--seconds 20] [--runs 300] [--turns 3]

The worker is the stub of the tests (real processes, no torch), so that nantui's own share is measured: a real
stop adds the batch in flight and one save. Run it on a machine with nothing else to do.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from benchmarks.figures import Figure, carried_out, description
from nantui.machine.process_tree import members
from nantui.run.atomic_files import write_json
from nantui.run.attempts import Attempt, RankExit, write_attempt, write_exit
from nantui.run.commands import Command
from nantui.run.layout import RunLayout
from nantui.run.telemetry import header
from nantui.supervisor.client import carry_out, create_run
from nantui.supervisor.state import read_state
from nantui.supervisor.status import read_status
from tests.supervisor.stub_run import stub_interpreter

LOSSES = ("box_loss", "cls_loss", "dfl_loss")
ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = description(__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long the supervisor is watched")
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--turns", type=int, default=3)
    return carried_out(parser, measure)


def measure(arguments: argparse.Namespace) -> Iterator[Figure]:
    """Yield the figures of the supervisor, of x and X, and of the list of runs."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        for name in ("CONFIG", "CACHE", "STATE"):
            os.environ[f"XDG_{name}_HOME"] = str(place / name)
        os.environ["STUB_PYTHON"] = sys.executable
        yield from supervisor_costs(place, arguments.seconds)
        for key, kind, limit in (("x", "stop", 2.0), ("X", "kill", 5.0)):
            seconds = [stop_time(place, f"{kind}{turn}", kind) for turn in range(arguments.turns)]
            yield Figure(f"{key}, from the key to all processes gone", "s", seconds, limit)
        write_fleet(place / "fleet", arguments.runs)
        seconds = [status_time(place / "fleet", arguments.runs) for _ in range(arguments.turns)]
        yield Figure(f"status over {arguments.runs} finished runs", "s", seconds, 1.5)


def supervisor_costs(place: Path, seconds: float) -> Iterator[Figure]:
    """Watch the supervisor of a training with two ranks and ten steps a second."""
    run = start(place, "costs", devices="0,1", pace=0.1)
    state = read_state(RunLayout(run).supervisor)
    assert state is not None, "it holds the run"
    process = psutil.Process(state.process.pid)
    before, begun = sum(process.cpu_times()[:2]), time.monotonic()
    time.sleep(seconds)
    share = (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - begun)
    resident = process.memory_info().rss / 1e6
    carry_out(run, Command("kill"))
    yield Figure("supervisor, resident memory", "MB", [resident], 35.0)
    yield Figure("supervisor, share of a core", "%", [share * 100], 0.5)


def stop_time(place: Path, name: str, kind: str) -> float:
    """Return the seconds of x or X over two ranks whose dataloaders ignore SIGTERM."""
    run = start(place, name, devices="0,1", pace=0.02)
    uuid = read_state(RunLayout(run).supervisor).attempt_uuid
    begun = time.monotonic()
    outcome = carry_out(run, Command(kind))
    seconds = time.monotonic() - begun
    assert outcome.ok and not members(uuid), outcome.text
    return seconds


def start(place: Path, name: str, devices: str, pace: float) -> Path:
    """Start the stub and wait for its first step."""
    stub = {"pace": pace, "steps": 50}
    train = {"project": str(place), "name": name, "device": devices, "epochs": 10**6, "stub": stub}
    run = create_run(train, python=stub_interpreter(place))
    while read_status(run).step is None:
        time.sleep(0.05)
    time.sleep(1.0)
    return run


def write_fleet(top: Path, count: int) -> None:
    """Write finished runs of 200 epochs each."""
    for number in range(count):
        finished_run(top / f"train{number}")


def status_time(top: Path, count: int) -> float:
    """Return the seconds of `nantui status --json` as a process."""
    argv = [sys.executable, "-m", "nantui", "status", str(top), "--json"]
    begun = time.monotonic()
    done = subprocess.run(argv, capture_output=True, cwd=ROOT, check=True)
    seconds = time.monotonic() - begun
    assert len(json.loads(done.stdout)["runs"]) == count, "every run is listed"
    return seconds


def finished_run(path: Path) -> None:
    """Write a finished run as its files lie on disk."""
    layout = RunLayout(path)
    layout.attempts.mkdir(parents=True)
    layout.args_yaml.write_text("epochs: 200\n" + "".join(f"name{number}: 0.1\n" for number in range(100)))
    rows = (f"{epoch},{epoch * 10.0}," + ",".join(["1.25"] * 12) for epoch in range(1, 201))
    names = ["epoch", "time", *(f"train/{loss}" for loss in LOSSES), *(f"metrics/m{n}" for n in range(9))]
    layout.results_csv.write_text("\n".join([",".join(names), *rows, ""]))
    write_attempt(layout, Attempt(1, "0" * 32, 0.0, "start", None, {"epochs": 200}, {}, sys.executable))
    write_exit(layout, 1, RankExit("finished", 0, 1, 0, 0.0, 200, 50))
    names = header(LOSSES)
    row = ",1,50,50,0,," + ",".join(["1.25"] * (len(names) - 6)) + "\n"
    layout.steps(1).write_text(",".join(names) + "\n" + "".join(f"{t}.0{row}" for t in range(2000)))
    state = {"pid": 1, "created": 1.0, "host": "x", "state": "finished", "attempt": 1, "heartbeat": 1.0}
    write_json(layout.supervisor, state)


if __name__ == "__main__":
    raise SystemExit(main())
