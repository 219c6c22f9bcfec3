"""A run directory in the real formats, of any size,
for tests that need a state a real training cannot be put in quickly.
"""

from __future__ import annotations

import csv
import json
import math
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from nantui.run.atomic_files import write_json
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.telemetry import header

LOSSES = ("box_loss", "cls_loss", "dfl_loss")
BY = "ana@gpu1"


def make_run(
    run: Path,
    *,
    epochs: int = 20,
    done: int = 12,
    steps: int = 8,
    nan_from: int | None = 8,
    state: str = "running",
    recovered: bool = False,
    start: float = 1_763_750_000.0,
    checkpoints: bool = True,
) -> Path:
    """Write a run with `done` of `epochs` epochs; from `nan_from` on validation losses are NaN."""
    layout = RunLayout(run)
    layout.attempts.mkdir(parents=True)
    layout.weights.mkdir()
    layout.args_yaml.write_text(yaml.safe_dump(arguments(run, epochs)))
    journal = _Clock(layout, start)
    journal.add("created", spec={}, by=BY)
    journal.add("attempt_started", attempt=1, mode="start", checkpoint=None, epoch=1, asked={})
    write_attempt(layout, 1, run, epochs, start)
    write_steps(layout.steps(1), done, steps, start)
    write_results(layout.results_csv, done, nan_from)
    write_events(layout, 1, start)
    if nan_from is not None:
        add_incident(journal, nan_from)
    if recovered:
        recover(journal, layout, nan_from or done)
    if checkpoints:
        write_checkpoints(layout.weights, done, start)
    write_supervisor(layout, state, nan_from, start)
    return run


def journal(run: Path, **entry: Any) -> None:
    """Let the supervisor of a run write one entry more."""
    with RunLayout(run).journal.open("a") as file:
        file.write(json.dumps({"t": 1_763_750_100.0, "by": "supervisor", **entry}) + "\n")


def rank_event(run: Path, **entry: Any) -> None:
    """Let rank 0 of the first attempt report one thing more."""
    with RunLayout(run).events(1, 0).open("a") as file:
        file.write(json.dumps({"t": 1_763_750_090.0, "rank": 0, **entry}) + "\n")


def command_done(run: Path, command: Any, ok: bool, text: str) -> None:
    """Let the supervisor say how a command ended."""
    journal(run, kind="command_done", id=command.id, command_kind=command.kind, ok=ok, text=text)


def add_incident(journal: _Clock, epoch: int) -> None:
    """Say that BatchNorm statistics became NaN in an epoch."""
    journal.add(
        "incident",
        incident="nan_buffer",
        epoch=epoch,
        step=3,
        action="observed",
        attempt=1,
        rank=0,
        text="114 BatchNorm buffers are not finite",
        evidence={"buffers": 114},
    )


class _Clock:
    """Appends to the journal with times that rise by a fixed amount."""

    def __init__(self, layout: RunLayout, start: float) -> None:
        self.layout, self.t = layout, start
        self.journal = Journal(layout.journal)

    def add(self, kind: str, **fields: Any) -> None:
        self.t += 7
        by = fields.pop("by", "supervisor")
        with self.layout.journal.open("a") as file:
            file.write(json.dumps({"t": self.t, "kind": kind, "by": by, **fields}) + "\n")


def arguments(run: Path, epochs: int) -> dict[str, Any]:
    """Return args.yaml as Ultralytics writes it, the part that matters here."""
    return {
        "task": "detect",
        "mode": "train",
        "model": "yolov8n.yaml",
        "data": "shapes.yaml",
        "epochs": epochs,
        "batch": 8,
        "imgsz": 64,
        "optimizer": "AdamW",
        "lr0": 0.01,
        "lrf": 0.01,
        "amp": True,
        "save_dir": str(run),
        "mixup": 0.15,
        "box": 7.5,
        "cls": 0.5,
        "dfl": 1.5,
        "save_period": 1,
        "warmup_epochs": 1.0,
        "momentum": 0.937,
        "patience": 100,
    }


def write_attempt(layout: RunLayout, number: int, run: Path, epochs: int, start: float) -> None:
    """Write what an attempt was asked to do."""
    write_json(
        layout.attempt(number),
        {
            "attempt": number,
            "uuid": "u",
            "created": start,
            "mode": "start",
            "checkpoint": None,
            "train": arguments(run, epochs),
            "ours": {"guard": "observe"},
            "python": "python3",
        },
    )


def loss(name: str, x: float, rng: random.Random) -> float:
    """Return a loss that falls from about 4 to about 1."""
    base = {"box_loss": 1.1, "cls_loss": 1.6, "dfl_loss": 0.9}.get(name, 1.0)
    return base * (1 + 2.5 * math.exp(-x / 5)) + rng.gauss(0, 0.04)


def write_steps(path: Path, epochs: int, steps: int, start: float, seed: int = 1) -> None:
    """Write per-step telemetry."""
    rng = random.Random(seed)
    with path.open("w") as file:
        file.write(",".join(header(LOSSES)) + "\n")
        for index in range(epochs * steps):
            x = index / steps
            losses = [f"{loss(name, x, rng):.5f}" for name in LOSSES]
            norm = 4 + 30 * math.exp(-x / 2) + abs(rng.gauss(0, 1))
            rate = f"{0.01 * (1 - x / (epochs + 1)):.6f}"
            place = {
                "t": f"{start + 0.5 * index:.3f}",
                "epoch": index // steps + 1,
                "step": index % steps + 1,
            }
            measured = {"grad_norm": f"{norm:.3f}", "lr": rate, "step_s": 0.5, "images_s": 16, "mem_gb": 0.61}
            file.write(step_line(losses, steps=steps, **place, **measured))


def step_line(losses: Sequence[object], **cells: object) -> str:
    """Return one row of telemetry, each cell under its name in the header; what is not given is empty."""
    known = {"skipped": 0, "instances": 30, "imgsz": 64, **dict(zip(LOSSES, losses, strict=True)), **cells}
    return ",".join(str(known.get(name, "")) for name in header(LOSSES)) + "\n"


def write_results(
    path: Path, epochs: int, nan_from: int | None, first: int = 1, seed: int = 2, append: bool = False
) -> None:
    """Write results.csv as Ultralytics does."""
    rng = random.Random(seed)
    metrics = [f"metrics/{name}(B)" for name in ("precision", "recall", "mAP50", "mAP50-95")]
    names = [
        "epoch",
        "time",
        *(f"train/{n}" for n in LOSSES),
        *metrics,
        *(f"val/{n}" for n in LOSSES),
        "lr/pg0",
    ]
    with path.open("a" if append else "w", newline="") as file:
        writer = csv.writer(file)
        if not append:
            writer.writerow(names)
        for epoch in range(first, epochs + 1):
            ill = nan_from is not None and epoch >= nan_from
            good = 0.0 if ill else 0.7 * (1 - math.exp(-epoch / 8))
            val = ["nan" if ill else f"{loss(n, epoch, rng) * 1.1:.5f}" for n in LOSSES]
            train = [f"{loss(n, epoch, rng):.5f}" for n in LOSSES]
            maps = [f"{good * k:.5f}" for k in (1.1, 1.0, 1.0, 0.6)]
            writer.writerow(
                [epoch, f"{epoch * 4.2:.2f}", *train, *maps, *val, f"{0.01 * (1 - epoch / (epochs + 1)):.6f}"]
            )


def write_events(layout: RunLayout, number: int, start: float) -> None:
    """Write what rank 0 saw."""
    entries = [
        {
            "t": start + 7,
            "kind": "registered",
            "rank": 0,
            "pid": 1,
            "created": start,
            "host": "gpu1",
            "boot_id": "b",
            "uuid": "u",
        },
        {"t": start + 8, "kind": "phase", "rank": 0, "phase": "training"},
    ]
    layout.events(number, 0).write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    layout.attempt_log(number).write_text(
        "".join(f"epoch {n}/20 box_loss 1.2 \x1b[31mcls_loss\x1b[0m nan\n" for n in range(40))
    )


def write_checkpoints(weights: Path, done: int, start: float) -> None:
    """Write files that only have a name, a size and an age."""
    now = start + 600
    for index, name in enumerate([*(f"epoch{n}" for n in range(done)), "best", "last"]):
        path = weights / f"{name}.pt"
        path.write_bytes(b"\0" * 4096)
        os.utime(path, (now - 60 * (done + 2 - index), now - 60 * (done + 2 - index)))


def write_supervisor(layout: RunLayout, state: str, nan_from: int | None, start: float) -> None:
    """Write supervisor.json."""
    incident = {"kind": "incident", "incident": "nan_buffer", "epoch": nan_from, "step": 3}
    write_json(
        layout.supervisor,
        {
            "format": 1,
            "pid": 1,
            "created": start,
            "boot_id": "b",
            "pid_namespace": "n",
            "host": "gpu1",
            "heartbeat": start,
            "state": state,
            "attempt": 1,
            "attempt_uuid": "u",
            "worker": None,
            "since": start,
            "text": "",
            "doing": None,
            "last_incident": incident if nan_from else None,
        },
    )


def recover(journal: _Clock, layout: RunLayout, nan_from: int) -> None:
    """Write a recovery into the journal and the second attempt's epochs into results.csv."""
    command = {"id": "c1", "kind": "recover", "by": BY, "t": journal.t, "options": {}}
    journal.add("command", command=command, by=BY)
    for stage, text in (
        ("stop", "stopping the training"),
        ("verify", "no process is left"),
        ("rebase", "writing settings"),
    ):
        journal.add("stage", command="c1", stage=stage, text=text)
    settings = [{"name": "lr0", "now": 0.01, "then": 0.005, "why": "gradients exploded"}]
    journal.add(
        "rollback_begun",
        id="r1",
        restore_point="epoch6.pt",
        epoch=nan_from - 1,
        epochs_lost=4,
        settings=settings,
        steps=[],
    )
    journal.add("rollback_done", id="r1", text="restored epoch6.pt")
    journal.add(
        "attempt_started",
        attempt=2,
        mode="resume",
        checkpoint="weights/last.pt",
        epoch=nan_from,
        asked={"lr0": 0.005},
    )
    journal.add("in_effect", attempt=2, values={"lr0": 0.005}, differences=[])
    journal.add(
        "command_done", id="c1", command_kind="recover", ok=True, text="resumed from epoch 7 with lr0 0.005"
    )
    write_results(layout.results_csv, nan_from + 5, None, first=nan_from, seed=5, append=True)
