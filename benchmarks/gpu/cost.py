"""What the guard and the telemetry cost: one training whose blocks of steps alternate with and without.

Two figures: the guard's own time on the host (what it does beside Ultralytics' own step, waiting for the GPU
left out) as a share of a step, and the whole step with the guard against the stock ones beside it.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.gpu.bench import Bench, new_run

BLOCK = 4  # steps
PAIRS, PAIRS_OF_RANKS = 240, 60
MEASURED_S = 70.0  # what there are fewer pairs after
SETTLING = 10  # blocks that do not count: cuDNN's choice of kernels, the allocator
LARGEST_SHARE = 0.005
CASES = (
    "yolov8m 640 bf16 SGD",
    "yolov8m 640 fp32 SGD",
    "yolov8m 640 fp16 SGD",
    "yolov8x 640 bf16 SGD",
    "yolov8m 1280 bf16 SGD",
    "yolov8n 640 bf16 SGD",
    "yolov8m 640 bf16 AdamW",
    "yolov8x 1280 fp32 SGD",
)
PRECISIONS: dict[str, Any] = {"bf16": "bf16", "fp16": True, "fp32": False}
IMAGES = 320
TIMES = 5  # that each image comes in an epoch: in its first steps the guard looks where everything lies
LONGEST_S = 280.0


def cost(bench: Bench) -> None:
    """yolov8n, m and x at 640 and 1280, batch 16, three precisions: guarded blocks against stock ones."""
    for case in CASES:
        if bench.only in case:
            _one(bench, case)


def on_ranks(bench: Bench) -> None:
    """The same on all GPUs under DDP, 16 images each; without GPUs nothing, as it is their time."""
    for imgsz in (640, 1280) if bench.gpus else ():
        case = f"yolov8m {imgsz} fp16 SGD"
        if bench.only in case:
            _one(bench, case, bench.ranks)


def _one(bench: Bench, case: str, ranks: int = 1) -> None:
    what, (_, imgsz, *_) = case.replace(" ", ", "), case.split()
    noise(bench.place / f"noise{imgsz}", int(imgsz))
    said = answer_of([*launcher(ranks, "benchmarks.gpu.cost"), str(bench.place), case, str(ranks)])
    line = next((row for row in said.splitlines() if row.startswith('{"pairs"')), None)
    if line is None:
        bench.found("cost", what, said[-600:], False)
        return
    found = json.loads(line)
    low, high = (100 * quartile for quartile in found["quartiles"])
    text = (
        f"stock {1e3 * found['stock']:.1f} ms, own time {100 * found['own']:.2f} %, "
        f"step {100 * found['share']:+.2f} % "
        f"(known to {100 * found['known_to']:.2f} %, {found['pairs']} pairs, "
        f"quartiles {low:+.1f} to {high:+.1f} %), "
        f"peak {found['peak_gb'][0]:.2f} -> {found['peak_gb'][1]:.2f} GB, µs: {found['own_parts_us']}, "
        f"GPU ms, stock and guarded: {found['gpu_ms']}"
    )
    where = f", {ranks} GPUs" if ranks > 1 else ""
    bench.found("ddp" if where else "cost", f"{what}{where}: guard", text, found["own"] <= LARGEST_SHARE)


def launcher(ranks: int, module: str) -> list[str]:
    """Return the words that start a module once, or on several ranks."""
    several = ["torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks), "--module"]
    return [sys.executable, "-m", *(several if ranks > 1 else []), module]


def told(found: dict[str, Any]) -> None:
    """Print what the first rank has found; then all ranks leave, without a last word of NCCL's."""
    from nantui.worker.process_end import leave

    if os.environ.get("RANK", "0") == "0":
        print("\n" + json.dumps(found), flush=True)  # a progress bar may have left its line open
    leave(0)


def answer_of(words: list[str]) -> str:
    """Return all that a process and its ranks print; one that takes too long is ended."""
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    try:
        return process.communicate(timeout=LONGEST_S)[0]
    except subprocess.TimeoutExpired:
        process.terminate()  # torchrun ends its ranks
        return process.communicate(timeout=60)[0] + f"\nnot within {LONGEST_S:.0f} s"


def noise(folder: Path, size: int) -> Path:
    """Write images that need no resizing, so that the loaders keep out of the way; returns the data.yaml."""
    data = folder / "data.yaml"
    if not data.exists():
        import cv2
        import numpy as np

        dice = np.random.default_rng(0)
        for split, count in (("train", IMAGES), ("val", 16)):
            for kind in ("images", "labels"):
                (folder / kind / split).mkdir(parents=True)
            for index in range(count):
                coarse = dice.integers(0, 255, (size // 32, size // 32, 3), dtype=np.uint8)
                picture = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_NEAREST)
                cv2.imwrite(str(folder / "images" / split / f"{index}.png"), picture)
                rows = (f"{index % 3} {x:.3f} {y:.3f} 0.2 0.2" for x, y in dice.uniform(0.2, 0.8, (8, 2)))
                (folder / "labels" / split / f"{index}.txt").write_text("\n".join(rows) + "\n")
        names = "names: {0: a, 1: b, 2: c}"
        data.write_text(f"path: {folder.resolve()}\ntrain: images/train\nval: images/val\n{names}\n")
    return data


def repeated(data: Path) -> Path:
    """Write a data.yaml whose epochs are `TIMES` as long; returns it."""
    longer = data.with_name("repeated.yaml")
    train = ", ".join(["images/train"] * TIMES)
    longer.write_text(data.read_text().replace("train: images/train", f"train: [{train}]"))
    return longer


class OwnTime:
    """Seconds that the guard spends on the host beside what Ultralytics does itself.

    It lets go of the gradients where Ultralytics does in `zero_grad`, which is shorter then.
    """

    def __init__(self) -> None:
        from torch.optim import Optimizer

        from nantui.worker import trainer
        from nantui.worker.guard.batch_probe import PendingProbe
        from nantui.worker.guard.step_guard import StepGuard
        from nantui.worker.guard.tensor_copies import StepBackup

        self.forget()
        for owner, name in (
            (StepGuard, "begin_batch"),
            (StepGuard, "_see"),
            (StepBackup, "copy"),
            (StepGuard, "settle"),
            (StepGuard, "end_batch"),
            (trainer, "_report_step"),
            (StepGuard, "_refuses"),
        ):
            self._watch(owner, name, "plus")
        for owner, name in (
            (PendingProbe, "read"),
            (PendingProbe, "arrives_within"),
        ):  # within the above, and not its own
            self._watch(owner, name, "minus")
        self._watch(Optimizer, "zero_grad", "beside")
        self._inside, self.guarded = 0, True

    def forget(self) -> None:
        self._spent = {"plus": 0.0, "minus": 0.0}
        self._parts: dict[str, float] = {}
        self._steps = 0
        self._zeroing: dict[bool, list[float]] = {True: [], False: []}

    def parts(self) -> dict[str, float]:
        """Return microseconds a step by what was called; what is waited for is among them."""
        found = {name: round(1e6 * spent / self._steps, 1) for name, spent in self._parts.items()}
        return {**found, "zero_grad": round(1e6 * self._zeroing_more(), 1)}

    def a_step(self) -> float:
        return (self._spent["plus"] - self._spent["minus"]) / self._steps + self._zeroing_more()

    def _zeroing_more(self) -> float:
        return statistics.mean(self._zeroing[True]) - statistics.mean(self._zeroing[False])

    def _watch(self, owner: Any, name: str, sign: str) -> None:
        real = getattr(owner, name)

        def timed(*arguments: Any, **options: Any) -> Any:
            outermost = sign == "minus" or self._inside == 0
            self._inside += sign == "plus"
            begun = time.perf_counter()
            try:
                return real(*arguments, **options)
            finally:
                self._inside -= sign == "plus"
                spent = time.perf_counter() - begun
                if sign == "beside":
                    self._zeroing[self.guarded].append(spent)
                else:
                    self._parts[name] = self._parts.get(name, 0.0) + spent
                if outermost and (sign == "plus" or self._inside):
                    self._spent[sign] += spent
                self._steps += name == "begin_batch"

        setattr(owner, name, timed)


class GpuTime:
    """Where a step's time goes on the GPU: from each mark to the next, guarded and not.

    What a part takes includes the time that the GPU waits in it for the host.
    """

    def __init__(self) -> None:
        self._marks: list[tuple[str, Any]] = []
        self._took: dict[tuple[str, bool], list[float]] = {}

    def mark(self, part: str) -> None:
        """Note that a part ends here, where the GPU will be."""
        import torch

        self._marks.append((part, torch.cuda.Event(enable_timing=True)))
        self._marks[-1][1].record()

    def block_ends(self, guarded_one: bool, counts: bool) -> None:
        """Take in a block's marks; the GPU must have reached the last."""
        for (_, before), (part, mark) in pairwise(self._marks if counts else ()):
            self._took.setdefault((part, guarded_one), []).append(before.elapsed_time(mark))
        self._marks.clear()

    def result(self) -> dict[str, list[float]]:
        """Return the median milliseconds of each part, stock and guarded."""
        parts = dict.fromkeys(part for part, _ in self._took)
        return {
            part: [
                round(statistics.median(self._took[part, guarded_one]), 2) for guarded_one in (False, True)
            ]
            for part in parts
        }


class Enough(Exception):
    """All blocks are measured."""


@dataclass
class Blocks:
    """What was measured: (guarded, seconds a step) of each block, and the peak of memory of both kinds."""

    own: OwnTime
    most: int
    seconds: float
    took: list[tuple[bool, float]] = field(default_factory=list)
    peaks: dict[bool, float] = field(default_factory=lambda: {True: 0.0, False: 0.0})
    gpu: GpuTime = field(default_factory=GpuTime)
    since: float = field(default_factory=time.monotonic)

    def add(self, guarded_one: bool, seconds: float, peak_gb: float) -> None:
        """Count a block. Raises Enough when all are there."""
        self.took.append((guarded_one, seconds))
        self.peaks[guarded_one] = max(self.peaks[guarded_one], peak_gb)
        if len(self.took) > 2 * self.most or time.monotonic() - self.since > self.seconds:
            raise Enough

    def result(self) -> dict[str, Any]:
        """Return what `measure` promises."""
        stock = statistics.median(took for guarded_one, took in self.took if not guarded_one)
        shares = self._shares()
        quartiles = statistics.quantiles(shares, n=4)
        spread = (quartiles[2] - quartiles[0]) / 1.349  # of a normal distribution
        return {
            "pairs": len(shares),
            "known_to": 1.253 * spread / len(shares) ** 0.5,
            "stock": stock,
            "own": self.own.a_step() / stock,
            "own_parts_us": self.own.parts(),
            "gpu_ms": self.gpu.result(),
            "share": quartiles[1],
            "quartiles": [quartiles[0], quartiles[2]],
            "peak_gb": [self.peaks[False], self.peaks[True]],
        }

    def _shares(self) -> list[float]:
        """Return what each guarded block takes more than the stock blocks around it, as a share."""
        return [
            took / ((self.took[i - 1][1] + self.took[i + 1][1]) / 2) - 1
            for i, (guarded_one, took) in enumerate(self.took[:-1])
            if guarded_one and i
        ]


def measure(place: Path, case: str, ranks: int) -> dict[str, Any]:
    """Train here. Returns median seconds of a stock step, the guard's own share of a step, the median share
    that a guarded block takes more than the stock blocks around it, that share's quartiles, the standard
    error of its median, the peak of GPU memory of both kinds in GB, and where the time goes on the GPU."""
    from nantui.worker import ultralytics_api
    from nantui.worker.session import Session

    # Ranks must end at the same block, so that there the clock decides nothing.
    blocks = Blocks(OwnTime(), *((PAIRS, MEASURED_S) if ranks == 1 else (PAIRS_OF_RANKS, math.inf)))
    run = new_run({})
    trainer = _alternating(Session.open(run, 1), blocks)
    model, imgsz, precision, optimizer = case.split()
    settings = settings_of(int(imgsz), PRECISIONS[precision], optimizer, ranks)
    data = repeated(noise(place / f"noise{imgsz}", int(imgsz)))
    with contextlib.suppress(Enough):
        ultralytics_api.load_model(f"{model}.yaml").train(
            trainer=trainer, data=str(data), save_dir=str(run), **settings
        )
    return blocks.result()


def settings_of(imgsz: int, amp: Any, optimizer: str, ranks: int = 1) -> dict[str, Any]:
    device, batch = ",".join(map(str, range(ranks))), 16 * ranks
    return {
        "imgsz": imgsz, "amp": amp, "batch": batch, "nbs": batch, "epochs": 200, "workers": 12,
        "cache": "ram", "mosaic": 0.0, "optimizer": optimizer, "device": device, "plots": False, "val": False,
        "save": False,
    }  # fmt: skip


def _alternating(session: Any, blocks: Blocks) -> type:
    """Return a trainer that is guarded in every second block and measures each."""
    import torch
    from ultralytics.models.yolo.detect import DetectionTrainer

    from nantui.worker.trainer import guarded

    class Alternating(guarded(DetectionTrainer, session)):
        _count = 0

        def run_callbacks(self, event: str) -> None:
            super().run_callbacks(event)
            if event == "on_pretrain_routine_end":
                self._kept = self.guard
            elif event == "on_train_batch_end":
                self._tick()

        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            batch = super().preprocess_batch(batch)
            blocks.gpu.mark("between")
            return batch

        def optimizer_step(self) -> None:
            blocks.gpu.mark("forward and backward")
            super().optimizer_step()
            blocks.gpu.mark("step")

        def _tick(self) -> None:
            self._count += 1
            if self._count % BLOCK:
                return
            torch.cuda.synchronize()
            now = time.perf_counter()
            blocks.gpu.block_ends(self.guard is not None, counts=self._count > SETTLING * BLOCK)
            if self._count == SETTLING * BLOCK:
                blocks.own.forget()
                blocks.since = time.monotonic()
            if self._count > SETTLING * BLOCK:
                peak_gb = torch.cuda.max_memory_allocated() / 2**30
                blocks.add(self.guard is not None, (now - self._began) / BLOCK, peak_gb)
            self._turn()

        def _turn(self) -> None:
            self.guard = None if self.guard is not None else self._kept
            blocks.own.guarded = self.guard is not None
            if self.guard is not None:
                self.guard.statistics.remember(self.guard.statistics.snapshot())
            torch.cuda.reset_peak_memory_stats()
            self._began = time.perf_counter()

    return Alternating


if __name__ == "__main__":
    _place, _case, _ranks = sys.argv[1:]
    told(measure(Path(_place), _case, int(_ranks)))
