"""What the guard and its telemetry cost: their own time as a share of step time, and an A/B beside it.

Trains a YOLO on drawn images, in turn with Ultralytics' plain trainer and with the guarded one, in one
process. `share` is the time spent in nantui's code inside the guarded run (on a GPU it holds the wait for
the step's result, which the plain run spends elsewhere: there the A/B tells). Prints one JSON document.
Usage: python benchmarks/guard.py [--model yolov8n.yaml] [--imgsz 160] [--batch 8] [--turns 3] [--device cpu]
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import resource
import statistics
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

LARGEST_SHARE = {"cpu": 0.02, "cuda": 0.01}
LARGEST_ROW = 300


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
        inside = self.seconds["_norm"] + self.seconds["_take"]
        rest = ("begin_batch", "end_batch", "_report_step", "add", "files_of")
        return self.seconds["step"] - inside + sum(self.seconds[name] for name in rest)


def install(watch: Stopwatch) -> None:
    """Time every piece of the guard that runs once a batch."""
    from nantui.training import trainer
    from nantui.training.guard import Guard
    from nantui.training.running_mean import RunningMean

    for name in ("step", "_norm", "_take", "begin_batch", "end_batch"):
        watch.on(Guard, name)
    watch.on(RunningMean, "add")
    watch.on(trainer, "_report_step")
    watch.on(trainer, "files_of")


def train(run: Path, settings: dict[str, Any], guarded: bool) -> tuple[list[float], Path]:
    """Train once; returns the seconds of each batch, and the run's telemetry (missing when not guarded)."""
    from nantui.run.attempts import Attempt, write_attempt
    from nantui.run.layout import RunLayout
    from nantui.training import touchpoints
    from nantui.training.session import Session
    from nantui.training.trainer import guarded as under_guard

    layout = RunLayout(run)
    model = touchpoints.load_model(settings["model"])
    kind = touchpoints.task_trainer(model)
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


def measure(arguments: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Train plain and guarded in turn; returns the figures."""
    from nantui.demo.dataset import write_dataset

    data = write_dataset(place / "data")
    settings: dict[str, Any] = {
        "model": arguments.model, "data": str(data), "imgsz": arguments.imgsz, "batch": arguments.batch,
        "nbs": arguments.batch, "epochs": arguments.epochs, "device": arguments.device, "plots": False,
        "workers": 0, "optimizer": "SGD", "lr0": 0.001, "val": False, "save": False,
    }  # fmt: skip
    watch = Stopwatch()
    install(watch)
    plain, guarded, memory = [], [], []
    train(place / "warm-up", settings, False)
    for turn in range(arguments.turns):
        plain += train(place / f"plain{turn}", settings, False)[0][2:]
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        watch.seconds.clear()
        steps, telemetry = train(place / f"guarded{turn}", settings, True)
        guarded.append((watch.ours, sum(steps), steps[2:]))
        memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    rows = telemetry.read_text().splitlines()[1:]
    every = [second for _, _, steps in guarded for second in steps]
    return {
        "share": sum(ours for ours, _, _ in guarded) / sum(total for _, total, _ in guarded),
        "step_ms_plain": 1e3 * statistics.median(plain),
        "step_ms_guarded": 1e3 * statistics.median(every),
        "a_b": statistics.median(every) / statistics.median(plain) - 1,
        "bytes_a_step": max(len(row) + 1 for row in rows),
        "memory_mb": memory[1] - memory[0],
        "steps": len(every),
        "device": arguments.device,
    }


def main() -> int:
    """Measure, print, and return 0 when the promises are kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="yolov8n.yaml")
    parser.add_argument("--imgsz", type=int, default=160)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    os.environ.setdefault("YOLO_VERBOSE", "false")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="nantui-bench-") as folder:
        figures = measure(arguments, Path(folder))
    print(json.dumps(figures, indent=2))
    kind = "cpu" if arguments.device == "cpu" else "cuda"
    cost = figures["share"] if kind == "cpu" else figures["a_b"]
    return 0 if cost <= LARGEST_SHARE[kind] and figures["bytes_a_step"] < LARGEST_ROW else 1


if __name__ == "__main__":
    raise SystemExit(main())
