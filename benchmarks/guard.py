"""What the guard and its telemetry cost: their own time as a share of step time, an A/B, and memory.

Trains a YOLO on drawn images, in turn with Ultralytics' plain trainer and with the guarded one, in one
process. `share` is the time spent in nantui's code inside the guarded run (on a GPU it holds the wait for
the step's result, which the plain run spends elsewhere: there the A/B tells). Memory is the largest resident
size of whole processes, as the kernel counts it: a script that calls `YOLO(…).train(…)` and the worker, in
turn, each with validation and saves.

    python -m benchmarks.guard [--model yolov8n.yaml] [--imgsz 160] [--batch 8] [--turns 3] [--device cpu]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, carried_out, description

TELL_PEAK = """
print("peak_kb", next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
PLAIN_SCRIPT = """
import json, sys
from ultralytics import YOLO
settings = json.loads(sys.argv[2])
YOLO(settings.pop("model")).train(project=sys.argv[1], name="run", exist_ok=True, **settings)
"""
WORKER_SCRIPT = """
import sys
from nantui.worker import __main__ as worker
assert worker.main([sys.argv[1], "001"]) == 0
"""


class Stopwatch:
    """Adds up the time spent in functions that are replaced by timed ones."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)

    def on(self, owner: Any, name: str) -> None:
        plain: Callable[..., Any] = getattr(owner, name)

        def timed(*args: Any, **options: Any) -> Any:
            begun = time.perf_counter()
            try:
                return plain(*args, **options)
            finally:
                self.seconds[name] += time.perf_counter() - begun

        setattr(owner, name, timed)

    @property
    def ours(self) -> float:
        """Seconds of nantui's own: the guarded step without the clipping and stepping inside it."""
        inside = sum(self.seconds[name] for name in ("_clipped", "_take"))
        rest = ("begin_batch", "end_batch", "_report_step", "add", "files_of")
        return self.seconds["step"] - inside + sum(self.seconds[name] for name in rest)


def install(watch: Stopwatch) -> None:
    """Time every piece of the guard that runs once a batch."""
    from nantui.worker import trainer
    from nantui.worker.guard.step_guard import StepGuard
    from nantui.worker.trainer import RunningMean

    for name in ("step", "_clipped", "_take", "begin_batch", "end_batch"):
        watch.on(StepGuard, name)
    watch.on(RunningMean, "add")
    watch.on(trainer, "_report_step")
    watch.on(trainer, "files_of")


def train(run: Path, settings: dict[str, Any], guarded: bool) -> tuple[list[float], Path]:
    """Train once; returns the seconds of each batch, and the run's telemetry (missing when not guarded)."""
    from nantui.run.attempts import Attempt, write_attempt
    from nantui.run.layout import RunLayout
    from nantui.worker import ultralytics_api
    from nantui.worker.session import Session
    from nantui.worker.trainer import guarded as under_guard

    layout = RunLayout(run)
    model = ultralytics_api.load_model(settings["model"])
    kind = ultralytics_api.task_trainer(model)
    session = None
    if guarded:
        write_attempt(layout, Attempt(1, uuid.uuid4().hex, time.time(), "start", None, settings, {}, ""))
        session = Session.open(run, 1)
        kind = under_guard(kind, session)
    seconds: list[float] = []
    begun = [0.0]
    model.add_callback("on_train_batch_start", lambda trainer: begun.__setitem__(0, time.perf_counter()))
    model.add_callback("on_train_batch_end", lambda trainer: seconds.append(time.perf_counter() - begun[0]))
    place = {"project": str(run.parent), "name": run.name, "exist_ok": True}
    with contextlib.redirect_stdout(io.StringIO()):
        model.train(trainer=kind, **place, **settings)
    if session is not None:
        session.end("finished")
    return seconds, layout.steps(1)


def peak_mb(script: str, *words: str) -> float:
    """Run a script in a fresh process; returns its largest resident size. Raises SystemExit when it failed.

    The process tells it itself (VmHWM): what `wait4` says also covers this process before the exec.
    """
    argv = [sys.executable, "-c", script + TELL_PEAK, *words]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{script.splitlines()[1]}: {done.stderr[-2000:]}")
    return int(done.stdout.split("peak_kb")[-1]) / 1024


def memory(settings: dict[str, Any], turns: int, place: Path) -> Iterator[Figure]:
    """Train in whole processes, plain and guarded in turn; yields what the worker needs beside plain's."""
    from nantui.run.attempts import Attempt, write_attempt
    from nantui.run.layout import RunLayout

    whole = {**settings, "val": True, "save": True}
    plain, guarded = [], []
    for turn in range(turns):
        folder = place / f"memory{turn}"
        layout = RunLayout(folder / "guarded")
        plain.append(peak_mb(PLAIN_SCRIPT, str(folder / "plain"), json.dumps(whole)))
        write_attempt(layout, Attempt(1, uuid.uuid4().hex, time.time(), "start", None, whole, {}, ""))
        guarded.append(peak_mb(WORKER_SCRIPT, str(layout.run)))
    more = statistics.median(guarded) - statistics.median(plain)
    yield Figure("worker, largest resident memory", "MB", guarded, None, "plain Ultralytics", plain)
    yield Figure("worker, memory more than plain's (of the medians)", "MB", [more], 50.0)


def measure(arguments: argparse.Namespace) -> Iterator[Figure]:
    """Train plain and guarded in turn; yields the figures."""
    os.environ.setdefault("YOLO_VERBOSE", "false")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="nantui-bench-") as folder:
        place = Path(folder)
        settings = settings_of(arguments, place)
        yield from cost(settings, arguments.turns, place)
        yield from memory(settings, arguments.memory_turns, place)


def settings_of(arguments: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Return what is trained: drawn images, no validation, no saves."""
    from nantui.demo.story import write_dataset

    return {
        "model": arguments.model, "data": str(write_dataset(place / "data")), "imgsz": arguments.imgsz,
        "batch": arguments.batch, "nbs": arguments.batch, "epochs": arguments.epochs,
        "device": arguments.device, "plots": False, "workers": 0, "optimizer": "SGD", "lr0": 0.001,
        "val": False, "save": False,
    }  # fmt: skip


def cost(settings: dict[str, Any], turns: int, place: Path) -> Iterator[Figure]:
    """Yield the guard's own share of the time, the A/B comparison, and the size of a row of telemetry."""
    watch = Stopwatch()
    install(watch)
    plain, guarded, shares = [], [], []
    train(place / "warm-up", settings, False)
    for turn in range(turns):
        plain.append(1e3 * statistics.median(train(place / f"plain{turn}", settings, False)[0][2:]))
        watch.seconds.clear()
        steps, telemetry = train(place / f"guarded{turn}", settings, True)
        shares.append(100 * watch.ours / sum(steps))
        guarded.append(1e3 * statistics.median(steps[2:]))
    on_cpu = settings["device"] == "cpu"
    rows = telemetry.read_text().splitlines()[1:]
    yield Figure("guard and telemetry, share of a step", "%", shares, 2.0 if on_cpu else None)
    yield Figure(
        "a step under the guard", "ms", guarded, None if on_cpu else 1.01, "plain Ultralytics", plain
    )
    yield Figure("a row of telemetry, longest", "bytes", [max(len(row) + 1 for row in rows)], 300)


def main() -> int:
    parser = description(__doc__)
    parser.add_argument("--model", default="yolov8n.yaml")
    parser.add_argument("--imgsz", type=int, default=160)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--memory-turns", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    return carried_out(parser, measure)


if __name__ == "__main__":
    raise SystemExit(main())
