"""What the guard and the telemetry cost: one training whose blocks of steps alternate with and without."""

from __future__ import annotations

import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from benchmarks.gpu.bench import Bench
from nantui.run.attempts import Attempt, write_attempt
from nantui.run.layout import RunLayout

BLOCK = 8
BLOCKS = 14


def cost(bench: Bench) -> None:
    """yolov8m at 640 and 1280, batch 16, three precisions: medians of blocks, guarded against stock."""
    for imgsz in (640, 1280):
        for name, amp in (("fp16", True), ("bf16", "bf16"), ("fp32", False)):
            words = [
                sys.executable,
                "-m",
                "benchmarks.gpu.cost",
                str(bench.data(8)),
                str(imgsz),
                json.dumps(amp),
            ]
            answer = subprocess.run(words, capture_output=True, text=True, timeout=280)
            line = next((row for row in answer.stdout.splitlines() if row.startswith("{")), None)
            if line is None:
                bench.found("cost", f"yolov8m {imgsz} {name}", (answer.stdout + answer.stderr)[-600:], False)
                continue
            found = json.loads(line)
            share = found["guarded"] / found["stock"] - 1
            stock, with_guard, spread = (1e3 * found["stock"], 1e3 * found["guarded"], 100 * found["spread"])
            text = f"stock {stock:.1f} ms, guarded {with_guard:.1f} ms, {100 * share:+.2f} %"
            text += f", spread of stock {spread:.1f} %, {found['peak_gb']:.1f} GB"
            bench.found("cost", f"yolov8m {imgsz} {name}", text, share <= 0.01)


class Enough(Exception):
    """All blocks are measured."""


def measure(data: str, imgsz: int, amp: Any) -> dict[str, float]:
    """Train here; returns median seconds a step of both kinds of block, and the spread of the stock ones."""
    import torch
    from ultralytics.models.yolo.detect import DetectionTrainer

    from nantui.training import touchpoints
    from nantui.training.session import Session
    from nantui.training.trainer import guarded

    times: dict[bool, list[float]] = {True: [], False: []}
    run = Path(tempfile.mkdtemp())
    write_attempt(
        RunLayout(run), Attempt(1, uuid.uuid4().hex, time.time(), "start", None, {}, {}, sys.executable)
    )
    session = Session.open(run, 1)

    class Alternating(guarded(DetectionTrainer, session)):  # type: ignore[misc]
        _count = 0

        def run_callbacks(self, event: str) -> None:
            super().run_callbacks(event)
            if event == "on_pretrain_routine_end":
                self._kept = self.guard
            elif event == "on_train_batch_end":
                self._tick()

        def _tick(self) -> None:
            self._count += 1
            if self._count % BLOCK:
                return
            torch.cuda.synchronize()
            now = time.perf_counter()
            if self._count > 4 * BLOCK:
                times[self.guard is not None].append((now - self._began) / BLOCK)
            if min(map(len, times.values())) >= BLOCKS:
                raise Enough
            self.guard = None if self.guard is not None else self._kept
            if self.guard is not None:
                self.guard.statistics.refresh()
            self._began = time.perf_counter()

    model = touchpoints.load_model("yolov8m.yaml")
    settings = {
        "imgsz": imgsz,
        "amp": amp,
        "batch": 16,
        "nbs": 16,
        "epochs": 50,
        "workers": 8,
        "cache": "ram",
        "optimizer": "SGD",
        "device": 0,
        "plots": False,
        "val": False,
        "save": False,
        "save_dir": str(run),
    }
    with contextlib.suppress(Enough):
        model.train(trainer=Alternating, data=data, **settings)
    stock = times[False]
    return {
        "stock": statistics.median(stock),
        "guarded": statistics.median(times[True]),
        "spread": (max(stock) - min(stock)) / statistics.median(stock),
        "peak_gb": torch.cuda.max_memory_reserved() / 2**30,
    }


if __name__ == "__main__":
    print(json.dumps(measure(sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3]))))
