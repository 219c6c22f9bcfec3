"""Step points on one GPU: what taking them costs, resumes that are equal to the last bit, kills.

Each part fits ten minutes: `points-cost`, `points-equal`, `points-kills`; `points` runs all three.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

from benchmarks.gpu.bench import Bench, asked, gpu_memory, memory_back, new_run
from benchmarks.gpu.cost import answer_of, launcher, noise, settings_of, told
from benchmarks.gpu.cost import on_ranks as guard_on_ranks
from nantui.run.layout import RunLayout
from nantui.run.points import step_points


class Size(NamedTuple):
    """`pairs` of blocks, with a point and without; `settling` pairs before them that do not count (kernels,
    the allocator, the places of the points); in `block_s` a point gets onto the disk."""

    pairs: int = 12
    settling: int = 3
    block_s: float = 3.0


SHORT = Size(5, 2, 2.5)
LARGEST_SHARE = 0.005
WARM_STEPS = 10
NEVER = 1e12
TRAININGS = (
    ("yolov8m 640 fp16 SGD", 640, True, "SGD"),
    ("yolov8m 640 bf16 AdamW", 640, "bf16", "AdamW"),
    ("yolov8m 1280 fp16 SGD", 1280, True, "SGD"),
)
KILLS = 12
UNSTABLE = re.compile(r"(\w+) does not have a deterministic implementation")


def cost(bench: Bench) -> None:
    """yolov8m at 640 and 1280: blocks of steps with one point each beside blocks without."""
    for what, imgsz, amp, optimizer in TRAININGS:
        data = noise(bench.place / f"noise{imgsz}", imgsz)
        words = [str(data), "yolov8m.yaml", str(imgsz), json.dumps(amp), optimizer, "0"]
        found = asked(["benchmarks.gpu.points", *words], "step_s")
        if isinstance(found, str):
            bench.found("points", what, found, False)
            continue
        bench.found("points", f"{what}: cost", in_words(found), found["share"] <= LARGEST_SHARE)


def on_ranks(bench: Bench) -> None:
    """What the guard costs where all ranks train, and step points, with fewer and shorter blocks."""
    guard_on_ranks(bench)
    ranks, device = bench.ranks, bench.device(bench.ranks) if bench.gpus else "cpu"
    what, imgsz, amp, optimizer = TRAININGS[0] if bench.gpus else ("tiny model", 64, False, "SGD")
    data, model = str(noise(bench.place / f"noise{imgsz}", imgsz)), bench.small().get("model", "yolov8m.yaml")
    words = [data, model, str(imgsz), json.dumps(amp), optimizer, device, *map(str, SHORT)]
    said = answer_of([*launcher(ranks, "benchmarks.gpu.points"), *words])
    line = next((row for row in said.splitlines() if row.startswith('{"step_s"')), None)
    text = in_words(json.loads(line)) if line else said[-600:]
    fine = line is not None and json.loads(line)["share"] <= LARGEST_SHARE
    bench.found("ddp", f"{what}, {ranks} GPUs: step points", text, fine)


def in_words(found: dict[str, Any]) -> str:
    """Return what `measure` found in one line."""
    low, middle, high = (1e3 * seconds for seconds in found["point_s"])
    without, with_points = found["peak_gb"]
    return (
        f"step {1e3 * found['step_s']:.1f} ms, a point {middle:.1f} ms (quartiles {low:.1f} to {high:.1f}), "
        f"the first {1e3 * found['first_s']:.0f} ms; own estimate {1e3 * found['own_s']:.1f} ms, "
        f"so every {found['interval_s']:.0f} s: {100 * found['share']:+.2f} %; "
        f"{found['size_gb']:.2f} GiB each, {found['kept']} on disk, "
        f"GPU peak {without:.2f} -> {with_points:.2f} GiB"
    )


@dataclass
class Block:
    """So many steps, with one point or without: seconds, and the peak of GPU memory in GiB."""

    with_point: bool
    seconds: float
    peak_gb: float


def more_than_beside(blocks: list[Block]) -> list[float]:
    """Return what each block with a point takes more than the two without around it, in s."""
    return [
        one.seconds - (before.seconds + after.seconds) / 2
        for before, one, after in zip(blocks, blocks[1:], blocks[2:], strict=False)
        if one.with_point
    ]


class Enough(Exception):
    """All blocks are measured."""


def measure(
    data: str, model: str, imgsz: int, amp: Any, optimizer: str, device: str, size: Size
) -> dict[str, Any]:
    """Train here; returns seconds of a step, of a point (quartiles), of the first point, the trainer's own
    estimate of a point's cost and the interval it chooses from it, the share of the time that this is, the
    size of a point, how many were on the disk, and GPU peaks in GiB.
    """
    from nantui.worker import ultralytics_api
    from nantui.worker.session import Session

    run = new_run({})
    found: dict[str, Any] = {}
    ranks = int(os.environ.get("WORLD_SIZE", "1"))
    settings = {**settings_of(imgsz, amp, optimizer, ranks), "device": device}
    with contextlib.suppress(Enough):
        ultralytics_api.load_model(model).train(
            trainer=_in_blocks(Session.open(run, 1), found, size), data=data, save_dir=str(run), **settings
        )
    return found


def _in_blocks(session: Any, found: dict[str, Any], size: Size) -> type:
    """Return a trainer that takes one point in every second block and measures each."""
    import torch
    from ultralytics.models.yolo.detect import DetectionTrainer

    from nantui.worker import distributed
    from nantui.worker.trainer import guarded

    cuda = torch.cuda.is_available()

    class InBlocks(guarded(DetectionTrainer, session)):
        _count = _length = 0
        _with_point = False
        _blocks: list[Block] = []

        def run_callbacks(self, event: str) -> None:
            super().run_callbacks(event)
            if event == "on_pretrain_routine_end":
                self.points._every, self.points._due_at = NEVER, math.inf
            elif event == "on_train_batch_end":
                self._tick()

        def _tick(self) -> None:
            self._count += 1
            if self._length and self._count == self._length:
                self._block_ends()
            elif not self._length and self._count == WARM_STEPS:
                self._began = self._now()
            elif not self._length and self._count == 2 * WARM_STEPS:
                a_step = (self._now() - self._began) / WARM_STEPS
                epoch = len(self.train_loader)  # each block pays for as many beginnings of epochs
                length = float(epoch * math.ceil(size.block_s / a_step / epoch))
                self._length = int(distributed.agree(self.device, length)[0])  # the ranks' clocks differ
                self._begin(with_point=False)

        def _now(self) -> float:
            if cuda:
                torch.cuda.synchronize()
            return time.perf_counter()

        def _block_ends(self) -> None:
            seconds = self._now() - self._began
            peak_gb = torch.cuda.max_memory_allocated() / 2**30 if cuda else 0.0
            self._blocks.append(Block(self._with_point, seconds, peak_gb))
            if len(self._blocks) == 2 * (size.settling + size.pairs) + 1:
                counted = self._blocks[2 * size.settling :]
                found.update(summed_up(self._blocks, counted, self._length, self.points, session.layout))
                raise Enough
            self._begin(with_point=not self._with_point)

        def _begin(self, with_point: bool) -> None:
            writer = self.points._writer
            while writer is not None and (writer._writing or writer._waiting):
                time.sleep(0.01)  # the block after a point must not pay for its end
            self._count, self._with_point = 0, with_point
            self.points._due_at = 0.0 if with_point else math.inf
            if cuda:
                torch.cuda.reset_peak_memory_stats()
            self._began = self._now()

    return InBlocks


def summed_up(
    blocks: list[Block], counted: list[Block], steps: int, points: Any, layout: RunLayout
) -> dict[str, Any]:
    """Return what `measure` promises."""
    from nantui.worker.points.step_points import LONGEST, SHARE, SHORTEST

    kept, own_s = step_points(layout), points._cost
    interval_s = min(max(own_s / SHARE, SHORTEST), LONGEST)
    point_s = statistics.quantiles(more_than_beside(counted), n=4)
    return {
        "step_s": statistics.median(one.seconds for one in counted if not one.with_point) / steps,
        "point_s": point_s,
        "first_s": more_than_beside(blocks)[0],
        "own_s": own_s,
        "interval_s": interval_s,
        "share": point_s[1] / interval_s,
        "size_gb": max((point.size for point in kept), default=0) / 2**30,
        "kept": len(kept),
        "peak_gb": [max(one.peak_gb for one in counted if one.with_point == kind) for kind in (False, True)],
    }


def equal(bench: Bench) -> None:
    """Trainings stopped in the middle of an epoch and resumed, with exact=true and deterministic=True."""
    for what, words in (
        ("tiny model, fp32", ["--only", "ranks1"]),
        ("tiny model, fp16", ["--only", "mixed-ranks1", "--amp", "true"]),
        ("tiny model, bf16", ["--only", "workers2-mixed-ranks1", "--amp", "bf16"]),
        ("yolov8n, fp16", ["--only", "workers2-mixed-ranks1", "--amp", "true", "--model", "yolov8n.yaml"]),
    ):
        command = [sys.executable, "-m", "benchmarks.step_points", "equal", "--device", "0", *words]
        answer = subprocess.run(command, capture_output=True, text=True)
        said = answer.stdout + answer.stderr
        rows = re.findall(r"^CASE (\S+): (.*)$", answer.stdout, re.MULTILINE)
        unstable = sorted(set(UNSTABLE.findall(said)))
        if not rows:
            bench.found("points", f"bit-equal, {what}", said[-600:], False)
        for name, verdict in rows:
            bench.found("points", f"bit-equal, {what}: {name}", verdict, verdict == "equal")
        if unstable:
            bench.found("points", f"{what}: kernels without a deterministic form", ", ".join(unstable))


def kills(bench: Bench) -> None:
    """SIGKILL at random moments; what each cost, and whether all came to a right end."""
    before = gpu_memory()
    words = ["kills", "--device", "0", "--times", str(KILLS), "--model", "yolov8n.yaml"]
    answer = subprocess.run(
        [sys.executable, "-m", "benchmarks.step_points", *words], capture_output=True, text=True
    )
    rows = answer.stdout.strip().splitlines() or [answer.stderr[-600:]]
    bench.found("points", f"{KILLS} kills: cost", rows[-1], answer.returncode == 0)
    for row in rows:
        if row.startswith("WRONG") or answer.returncode not in (0, 1):
            bench.found("points", "kills: what was wrong", row[-300:], False)
    back, now = memory_back(before)
    bench.found("points", "kills: MiB before and after", f"{before} {now}", back)


if __name__ == "__main__":
    _data, _model, _imgsz, _amp, _optimizer, _device, *_size = sys.argv[1:]
    _how = Size(int(_size[0]), int(_size[1]), float(_size[2])) if _size else Size()
    told(measure(_data, _model, int(_imgsz), json.loads(_amp), _optimizer, _device, _how))
