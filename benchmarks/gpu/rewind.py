"""From trouble back in memory to the next good step: seconds, on one GPU and, where there are two, on two."""

from __future__ import annotations

import json
import subprocess
import sys

from benchmarks.gpu.bench import Bench

TURNS = 2
LONGEST_S = 1.0
"""What it may take from giving up to the end of the next good step."""
TRAININGS = (
    ("tiny model, fp32 SGD", "", 64, 8, "false", "SGD"),
    ("yolov8n 640 fp16 AdamW", "yolov8n.yaml", 640, 16, "true", "AdamW"),
    ("yolov8m 640 bf16 SGD", "yolov8m.yaml", 640, 16, "bf16", "SGD"),
    ("yolov8m 640 fp16 AdamW", "yolov8m.yaml", 640, 16, "true", "AdamW"),
)


def rewind(bench: Bench) -> None:
    """A NaN that stays and weights that are not finite, in several models and precisions."""
    for ranks in range(1, min(bench.gpus, 2) + 1):
        for training in TRAININGS:
            _one(bench, ranks, *training)


def _one(
    bench: Bench, ranks: int, what: str, model: str, imgsz: int, batch: int, amp: str, optimizer: str
) -> None:
    what = f"{what}, {ranks} GPU" + ("s" if ranks > 1 else "")
    words = ["rewind", "--times", str(TURNS), "--ranks", str(ranks), "--amp", amp, "--optimizer", optimizer]
    words += ["--imgsz", str(imgsz), "--batch", str(batch * ranks), *(["--model", model] if model else [])]
    words += ["--device", ",".join(map(str, range(ranks)))]
    command = [sys.executable, "-m", "benchmarks.step_points", *words]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=280)
    except subprocess.TimeoutExpired:
        bench.found("rewind", what, "hung", False)
        return
    rows = [row for row in answer.stdout.splitlines() if row.startswith('{"kind"')]
    wrong = [row for row in answer.stdout.splitlines() if row.startswith("WRONG")]
    for row in rows:
        found = json.loads(row)
        text = (
            f"{found['given_up_s']:.2f} s from giving up to a good step, {found['first_bad_s']:.2f} s from "
            f"the first bad one; the rewind itself {found['rewind_s']:.3f} s, a step {found['step_s']:.3f} s"
        )
        bench.found("rewind", f"{what}: {found['kind']}", text, found["given_up_s"] <= LONGEST_S)
    if wrong or not rows:
        bench.found("rewind", f"{what}: what was wrong", (wrong or [answer.stderr[-500:]])[:3], False)
