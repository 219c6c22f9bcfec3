"""A step queued ahead of its verdict leaves no trace when it is taken back; a good one is stock's."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import tempfile
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.gpu.bench import Bench
from nantui.run.attempts import Attempt, write_attempt
from nantui.run.layout import RunLayout

BAD = (2, 3)  # epoch, batch


def ahead(bench: Bench) -> None:
    """Three precisions and three optimizers, on one GPU, each in a process of its own."""
    for name, amp in (("fp32", False), ("bf16", "bf16"), ("fp16", True)):
        for optimizer in ("SGD", "AdamW", "MuSGD"):
            words = [
                sys.executable,
                "-m",
                "benchmarks.gpu.ahead",
                str(bench.data()),
                json.dumps(amp),
                optimizer,
            ]
            answer = subprocess.run(words, capture_output=True, text=True, timeout=200)
            line = next((row for row in answer.stdout.splitlines() if row.startswith('{"ahead"')), None)
            if line is None:
                bench.found("ahead", f"{name} {optimizer}", (answer.stdout + answer.stderr)[-600:], False)
                continue
            found = json.loads(line)
            as_meant = bool(found["ahead"]) == (name != "fp16")
            fine = (
                as_meant
                and found["skipped"]
                and not found["touched"]
                and found["moved"]
                and not found["unlike_stock"]
            )
            bench.found("ahead", f"{name} {optimizer}: steps ahead, left by the bad one, unlike stock",
                        f"{found['ahead']} {found['touched']} {found['unlike_stock']}", fine)  # fmt: skip


def check(data: str, amp: Any, optimizer: str) -> dict[str, Any]:
    """Train twice here: guarded with one NaN batch, and guarded against stock without one."""
    import torch

    states, queued, skipped = _train(data, amp, optimizer, True, BAD)
    before, after, later = states[BAD], states[BAD[0], BAD[1] + 1], states[BAD[0], BAD[1] + 2]
    torch.use_deterministic_algorithms(True, warn_only=True)
    ours = _train(data, amp, optimizer, True, None)[0]
    stock = _train(data, amp, optimizer, False, None)[0]
    last = max(stock)
    return {
        "ahead": queued,
        "skipped": skipped,
        "touched": _differing(before, after),
        "moved": _differing(after, later)[:3],
        "unlike_stock": _differing(ours[last], stock[last]),
    }


@dataclass
class Seen:
    """What a training showed: the state before each (epoch, batch), which steps were queued ahead of their
    verdict, and which were skipped."""

    states: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    ahead: list[bool] = field(default_factory=list)
    skipped: list[tuple[int, int]] = field(default_factory=list)


def _train(
    data: str, amp: Any, optimizer: str, protect: bool, bad: tuple[int, int] | None
) -> tuple[dict[tuple[int, int], dict[str, Any]], int, bool]:
    """Train two epochs; returns the state before each batch, how many steps were queued ahead of their
    verdict, and whether the bad one was skipped."""
    from nantui.training import touchpoints
    from nantui.training.guard import Guard
    from nantui.training.session import Session

    run = Path(tempfile.mkdtemp())
    ours = {"guard": "protect" if protect else "off"}
    write_attempt(
        RunLayout(run), Attempt(1, uuid.uuid4().hex, time.time(), "start", None, {}, ours, sys.executable)
    )
    seen = Seen()
    take_ahead = Guard._take_ahead

    def counted(guard: Guard) -> bool:
        seen.ahead.append(take_ahead(guard))
        return seen.ahead[-1]

    trainer = _recording(Session.open(run, 1), seen, bad)
    settings = _settings(amp, optimizer)
    with touchpoints.replaced(Guard, "_take_ahead", counted):
        touchpoints.load_model("yolov8n.yaml").train(
            trainer=trainer, data=data, save_dir=str(run), **settings
        )
    return seen.states, sum(seen.ahead), bad in seen.skipped


def _settings(amp: Any, optimizer: str) -> dict[str, Any]:
    return {"imgsz": 128, "amp": amp, "batch": 16, "nbs": 16, "epochs": 2, "workers": 4, "device": 0,
            "optimizer": optimizer, "plots": False, "val": False, "save": False, "seed": 0}  # fmt: skip


def _recording(session: Any, seen: Seen, bad: tuple[int, int] | None) -> type:
    """Return a guarded trainer that notes what `seen` holds, and spoils one batch."""
    from ultralytics.models.yolo.detect import DetectionTrainer

    from nantui.training.trainer import guarded

    class Recording(guarded(DetectionTrainer, session)):  # type: ignore[misc]
        def run_callbacks(self, event: str) -> None:
            super().run_callbacks(event)
            if event == "on_train_batch_start":
                seen.states[self._place()] = _state(self)
            elif event == "on_train_batch_end" and self.guard.skipped:
                seen.skipped.append(self._place())

        def _place(self) -> tuple[int, int]:
            return self.session.progress.epoch, self.session.progress.step

        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            batch = super().preprocess_batch(batch)
            if bad == self._place():
                batch["img"][0, 0, 0, 0] = float("nan")
            return batch

    return Recording


def _state(trainer: Any) -> dict[str, Any]:
    every = {
        "model": trainer.model.state_dict(),
        "ema": trainer.ema.ema.state_dict(),
        "updates": {"": trainer.ema.updates},
        **{f"optimizer{i}": s for i, s in trainer.optimizer.state_dict()["state"].items()},
    }
    return {f"{part}/{name}": copy.deepcopy(v) for part, kept in every.items() for name, v in kept.items()}


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    import torch

    missing = sorted(one.keys() ^ other.keys())
    unlike = [
        name
        for name in one.keys() & other.keys()
        if not (
            torch.equal(one[name], other[name]) if torch.is_tensor(one[name]) else one[name] == other[name]
        )
    ]
    return missing + unlike


if __name__ == "__main__":
    print(json.dumps(check(sys.argv[1], json.loads(sys.argv[2]), sys.argv[3])))
