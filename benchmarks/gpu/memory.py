"""What the lint predicts of GPU memory against what is really taken, and the largest batch that really fits.

One real run of nantui measures its own peak, as every run does; from it the peaks of other sizes, batches,
precisions and optimizers are predicted, and each is then measured. On a smaller card (PyTorch held to what it
would have there, without CUDA's own part) the largest batch predicted is tried against the largest that fits.
All of that in one process, whose memory is given back between two trainings: torch is imported once.
"""

from __future__ import annotations

import contextlib
import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from benchmarks.gpu.bench import Bench, ended, ending
from nantui.checkpoint.catalog import Catalog
from nantui.machine.gpus import GIBIBYTE
from nantui.recovery.run_facts import gpus_of, measured
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from nantui.settings.gpu_memory import CONTEXT_GB, Measured, largest_batch, predict, stays_gb

BASE: dict[str, Any] = {"imgsz": 640, "batch": 16, "amp": True, "optimizer": "SGD"}
OTHERS: tuple[dict[str, Any], ...] = (
    {"batch": 8}, {"batch": 32}, {"batch": 64}, {"imgsz": 960}, {"imgsz": 1280, "batch": 8},
    {"imgsz": 1280}, {"imgsz": 1280, "batch": 32}, {"amp": "bf16"}, {"amp": False}, {"optimizer": "AdamW"},
    {"imgsz": 1280, "amp": False},
)  # fmt: skip
CAPS: tuple[tuple[float, dict[str, Any]], ...] = (
    (24.0, {"imgsz": 640}), (40.0, {"imgsz": 1280}), (24.0, {"imgsz": 640, "amp": False}),
)  # fmt: skip
"""GiB of a smaller card, and what is trained on it."""
ANSWER, LEFT_GB = "answer: ", 0.1
STEPS = 3
"""The peak is reached in the first."""
OFF_BY, NEAR = 0.05, 0.95
"""A prediction within this share of what is measured, and a batch of at least this share of the largest."""


def memory(bench: Bench) -> None:
    """yolov8m on one GPU: predicted against measured peaks, then the largest batch under a cap."""
    base = own_peak(bench)
    kind = "filled" if base.filled else "reserved"
    bench.found("memory", "640 x 16 fp16 SGD, the run's own peak (GiB)", f"{base.peak_gb:.2f} {kind}")
    text = f"{stays_gb(base, BASE):.2f} of it, weights {base.weights_gb:.3f}"
    bench.found("memory", "taken not to grow (GiB)", text)
    with Trainings(bench) as one_training:
        for other in OTHERS:
            then = {**BASE, **other}
            found = one_training(then)
            if "peak_gb" not in found:
                bench.found("memory", words(then), found.get("error", "no answer"), False)
                continue
            guess = predict(base, BASE, then)
            error = guess / found["peak_gb"] - 1
            text = f"predicted {guess:.2f}, measured {found['peak_gb']:.2f} reserved ({100 * error:+.1f} %), "
            text += f"{found['allocated_gb']:.2f} allocated, {found['resting_gb']:.2f} between steps, "
            text += f"{found['context_gb']:.2f} beside PyTorch"
            bench.found("memory", words(then), text, abs(error) <= OFF_BY)
        for cap, other in CAPS:
            largest(bench, one_training, base, cap, {**BASE, **other})


def own_peak(bench: Bench) -> Measured:
    """Return what nantui measures of its own run: two epochs under a supervisor."""
    run = bench.train("memory", model="yolov8m.yaml", data=str(bench.data(8)), epochs=2, nbs=16, **BASE)
    with ending(run):
        ended(run)
    verdicts = list(Catalog(RunLayout(run).weights).verdicts())
    found = measured(RunRecord(RunLayout(run)), "0", verdicts, gpus_of("0"))
    if found is None:
        raise RuntimeError(f"{run}: no peak was measured")
    return found


def largest(
    bench: Bench, one_training: Trainings, base: Measured, cap_gb: float, settings: dict[str, Any]
) -> None:
    """Find the largest batch that trains under a cap, beginning at the one predicted."""
    small = replace(base, total_gb=cap_gb)
    guess = largest_batch(small, BASE, settings)

    def fits(batch: int) -> bool:
        return "peak_gb" in one_training({**settings, "batch": batch}, cap_gb - CONTEXT_GB)

    really = largest_that(fits, guess)
    text = f"predicted {guess}, really {really} ({100 * (guess / really - 1 if really else 1):+.1f} %)"
    what = f"largest batch on {cap_gb:.0f} GiB: {words({**settings, 'batch': '?'})}"
    bench.found("memory", what, text, NEAR * really <= guess <= really)


def largest_that(fits: Callable[[int], bool], guess: int) -> int:
    """Return the largest batch that fits, 0 for none: bracketed in growing strides, then halved."""
    stride, low, high = max(guess // 20, 1), 0, 0
    if fits(guess):
        low, high = guess, guess + stride
        while fits(high):
            stride *= 2
            low, high = high, high + stride
    else:
        low, high = max(guess - stride, 0), guess
        while low and not fits(low):
            stride *= 2
            low, high = max(low - stride, 0), low
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def words(settings: dict[str, Any]) -> str:
    """Return settings as the table names them."""
    precision = {True: "fp16", False: "fp32"}.get(settings["amp"], settings["amp"])
    return f"{settings['imgsz']} x {settings['batch']} {precision} {settings['optimizer']}"


class Trainings:
    """Some steps of each in one process, which is started anew where it has died."""

    def __init__(self, bench: Bench) -> None:
        self._data = str(bench.data(8))
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Trainings:
        return self

    def __exit__(self, *error: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def __call__(self, settings: dict[str, Any], cap_gb: float = 0.0) -> dict[str, Any]:
        """Return {"peak_gb", …} or {"error"}."""
        if self._process is None or self._process.poll() is not None:
            argv = [sys.executable, "-m", "benchmarks.gpu.memory"]
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
            self._process = subprocess.Popen(argv, text=True, **pipes)  # type: ignore[call-overload]
        process = self._process
        process.stdin.write(json.dumps({**settings, "data": self._data, "cap_gb": cap_gb}) + "\n")
        process.stdin.flush()
        last = ""
        while line := process.stdout.readline():
            if line.startswith(ANSWER):
                found = dict(json.loads(line.removeprefix(ANSWER)))
                if found.pop("left_gb") > LEFT_GB:
                    process.wait()  # it ends: the next one begins with nothing
                return found
            last = line.strip() or last
        return {"error": last}


class Enough(Exception):
    """The steps are made."""


def train(settings: dict[str, Any], cap_gb: float) -> dict[str, Any]:
    """Train here, stock, and return peaks in GiB, or {"error"} when it does not fit.

    Ultralytics halves the batch when memory runs out in the first epoch and goes on: that is no fit.
    """
    import torch
    from ultralytics import YOLO

    free, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(cap_gb * GIBIBYTE / total if cap_gb else 1.0)
    torch.cuda.reset_peak_memory_stats()
    model, found = YOLO("yolov8m.yaml"), {}
    steps = 0

    def look(trainer: Any) -> None:
        nonlocal steps
        steps += 1
        if trainer.batch_size != settings["batch"]:
            found["error"] = f"out of memory, Ultralytics went on with batch={trainer.batch_size}"
            raise Enough
        if steps == STEPS:
            found.update(figures(torch))
            raise Enough

    model.add_callback("on_train_batch_end", look)
    more = {
        "epochs": 50, "workers": 8, "cache": "ram", "device": 0, "plots": False, "val": False,
        "save": False, "nbs": settings["batch"], "verbose": False, "save_dir": tempfile.mkdtemp(),
    }  # fmt: skip
    with contextlib.suppress(Enough):
        model.train(**settings, **more)
    return found


def figures(torch: Any) -> dict[str, float]:
    """Return GiB: the reserved and the allocated peak, what is held between two steps, what else is taken."""
    torch.cuda.synchronize()
    free, total = torch.cuda.mem_get_info()
    cuda = torch.cuda
    taken = {
        "peak_gb": cuda.max_memory_reserved(),
        "allocated_gb": cuda.max_memory_allocated(),
        "resting_gb": cuda.memory_allocated(),
        "context_gb": total - free - cuda.memory_reserved(),
    }
    return {name: value / GIBIBYTE for name, value in taken.items()}


def main() -> int:
    """Answer each line of stdin, a request, with one line."""
    import torch

    for line in sys.stdin:
        settings = json.loads(line)
        try:
            found = train(settings, settings.pop("cap_gb"))
        except RuntimeError as error:
            found = {"error": str(error).splitlines()[0][:300]}
        gc.collect()
        torch.cuda.empty_cache()
        found["left_gb"] = torch.cuda.memory_allocated() / GIBIBYTE
        print(f"\n{ANSWER}{json.dumps(found)}", flush=True)
        if found["left_gb"] > LEFT_GB:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
