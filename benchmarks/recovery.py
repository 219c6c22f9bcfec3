"""What a recovery takes: files of 273 MB moved as one transaction, and the time from R to the first new step.

    python -m benchmarks.recovery [--directory DIR] [--turns 3]

Beside them stands what the guide does by hand: a script that loads every checkpoint and looks for NaN, `mv`
and `cp`, then `yolo train resume`. The small training runs on the CPU.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import yaml

from benchmarks.checkpoint import built, folder
from benchmarks.figures import Figure, carried_out, description
from nantui.demo.story import write_dataset
from nantui.run.binding import bind
from nantui.run.commands import Command
from nantui.run.events import RollbackBegun, RollbackDone, newest
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.spec import Spec, write_spec
from nantui.supervisor.client import carry_out, create_run, want_worker

BY_HAND = """
import pathlib, shutil, sys, torch, ultralytics
weights = pathlib.Path(sys.argv[1])
def bad(path):
    checkpoint = torch.load(path, map_location="cpu", weights_only=False)
    tensors = (checkpoint["ema"] or checkpoint["model"]).state_dict().values()
    return any(torch.isnan(t).any() or torch.isinf(t).any() for t in tensors if t.is_floating_point())
clean = [path for path in sorted(weights.glob("*.pt")) if not bad(path)]
(weights / "corrupted_backup").mkdir()
shutil.move(weights / "last.pt", weights / "corrupted_backup" / "last_epoch134_corrupted.pt")
shutil.copy(weights / "epoch130.pt", weights / "last.pt")
"""
PLAIN_RESUME = """
import os, sys
from ultralytics import YOLO
model = YOLO(sys.argv[1])
model.add_callback("on_train_batch_end", lambda trainer: os._exit(0))
model.train(resume=True)
"""
READS_S, MORE_S = 10.0, 2.0
"""How long a person reads the plan, and what a recovery may take beyond a plain resume."""
ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    parser = description(__doc__)
    parser.add_argument("--directory", type=Path, help="keep the built files here (about 1.5 GB)")
    parser.add_argument("--turns", type=int, default=3)
    return carried_out(parser, measure)


def measure(arguments: argparse.Namespace) -> Iterator[Figure]:
    """Yield the figures of the transaction, of the whole rollback, and of the way back to training."""
    with folder(arguments.directory) as place:
        os.environ |= {f"XDG_{name}_HOME": str(place / name) for name in ("CONFIG", "CACHE", "STATE")}
        os.environ |= {"OMP_NUM_THREADS": "1", "YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}
        data = write_dataset(place / "data")
        yield from rollbacks(place, data, arguments.turns)
        yield from resumes(place, data, arguments.turns)


def rollbacks(place: Path, data: Path, turns: int) -> Iterator[Figure]:
    """Roll a run of large files back, in turn with the guide's way on a copy of it."""
    moved, whole, by_hand = [], [], []
    for _ in range(turns):
        run = large_run(place / "large", built("x", "SGD", place))
        by_hand.append(took([sys.executable, "-c", BY_HAND, str(run.weights)]))
        run = large_run(place / "large", built("x", "SGD", place))
        words = ["rollback", str(run.run), "--to", "epoch130.pt", "--set", f"data={data}", "--yes"]
        whole.append(took([sys.executable, "-m", "nantui", *words]))
        journal = Journal(run.journal).events()
        begun, done = newest(journal, RollbackBegun), newest(journal, RollbackDone)
        assert begun is not None and done is not None, "it was carried out"
        moved.append(done.t - begun.t)
    shutil.rmtree(place / "large")
    yield Figure("a rollback's moves, checkpoints of 273 MB", "s", moved, 1.0)
    yield Figure("nantui rollback: judge, verify, rebase, move", "s", whole, None, "load, mv, cp", by_hand)


def large_run(path: Path, checkpoint: Path) -> RunLayout:
    """Write a run that has come to epoch 134 with three large checkpoints, anew."""
    shutil.rmtree(path, ignore_errors=True)
    layout = RunLayout(path)
    layout.weights.mkdir(parents=True)
    for name in ("epoch130", "best", "last"):
        shutil.copyfile(checkpoint, layout.weights / f"{name}.pt")
    train = {"model": "yolov8x.yaml", "data": "coco8.yaml", "epochs": 200, "save_dir": str(path)}
    layout.args_yaml.write_text(yaml.safe_dump(train))
    write_spec(layout.spec, Spec(train, python=sys.executable))
    rows = [f"{epoch},{epoch * 60.0},1.5,0.5" for epoch in range(1, 134)]
    layout.results_csv.write_text("\n".join(["epoch,time,train/box_loss,metrics/mAP50-95(B)", *rows, ""]))
    bind(path)
    return layout


def resumes(place: Path, data: Path, turns: int) -> Iterator[Figure]:
    """Recover a stopped run again and again, in turn with a plain resume of the same checkpoint."""
    train = {
        "model": "yolov8n.yaml", "data": str(data), "imgsz": 64, "batch": 8,
        "epochs": 500, "save_period": 1, "device": "cpu", "workers": 0, "plots": False,
        "project": str(place), "name": "clock", "optimizer": "SGD",
    }  # fmt: skip
    run = RunLayout(create_run(train, python=sys.executable))
    wait_until(lambda: (run.weights / "epoch1.pt").exists())
    carry_out(run.run, Command("kill"))
    again = Command("recover", {"presets": ["nan-safe"]})
    edited = Command("resume", {"set": {"lr0": 0.004}})
    asked = {"at once": again, "read for 10 s": again, "resume --set": edited}
    first, staged, plain = ({name: list[float]() for name in asked} for _ in range(3))
    for _ in range(turns):
        for name in asked:
            plain[name].append(took([sys.executable, "-c", PLAIN_RESUME, str(run.last)]))
            want_worker(run.run, "read" in name)
            time.sleep(READS_S if "read" in name else 0.0)
            begun = time.time()
            outcome = carry_out(run.run, replace(asked[name], id=uuid.uuid4().hex))
            assert outcome.ok, outcome.text
            wait_until(lambda: run.steps(run.newest_attempt()).read_bytes().count(b"\n") > 1)
            first[name].append(time.time() - begun)
            told = newest(Journal(run.journal).events(), RollbackBegun)
            staged[name].append(told.t - begun if told else 0.0)
            want_worker(run.run, False)
            carry_out(run.run, Command("kill"))
    beside = "yolo train resume"
    for name in asked:
        key = "s" if name.startswith("resume") else "R"
        yield Figure(f"{key}, {name}: from the key to all staged", "s", staged[name])
        asked_for = statistics.median(plain[name]) + MORE_S
        yield Figure(f"{key}, {name}: to the first new step", "s", first[name], asked_for)
        yield Figure(f"{key}, {name}: the same, beside", "s", first[name], None, beside, plain[name])


def took(argv: list[str]) -> float:
    """Return the seconds of a whole process. Raises SystemExit with its last words when it fails."""
    begun = time.monotonic()
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT)
    if done.returncode:
        raise SystemExit((done.stdout + done.stderr)[-1500:])
    return time.monotonic() - begun


def wait_until(seen: Callable[[], bool]) -> None:
    """Wait until something is on disk. Raises SystemExit after two minutes."""
    until = time.monotonic() + 120
    while time.monotonic() < until:
        try:
            if seen():
                return
        except FileNotFoundError:
            pass
        time.sleep(0.01)
    raise SystemExit("nothing came within two minutes")


if __name__ == "__main__":
    raise SystemExit(main())
