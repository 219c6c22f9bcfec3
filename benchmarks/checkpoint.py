"""What judging checkpoints costs: against torch.load with isnan/isinf, against memory speed, in memory.

    python benchmarks/checkpoint.py [--directory DIR] [--rounds 3]

YOLOv8x checkpoints with SGD (273 MB) and AdamW (683 MB) are built with torch, without training. Whatever is
compared is measured in turn within one run, the best of a few rounds each, page cache warm.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT)]

TORCH_CHECK = """
import sys, torch, ultralytics
checkpoint = torch.load(sys.argv[1], map_location="cpu", weights_only=False)
tensors = list((checkpoint["ema"] or checkpoint["model"]).state_dict().values())
for state in checkpoint["optimizer"]["state"].values():
    tensors += [value for value in state.values() if isinstance(value, torch.Tensor)]
bad = [t for t in tensors if t.is_floating_point() and (torch.isnan(t).any() or torch.isinf(t).any())]
sys.exit(bool(bad))
"""
BUILD = """
import io, pathlib, sys, torch
from datetime import datetime
from ultralytics import __version__
from ultralytics.cfg import DEFAULT_CFG_DICT
from ultralytics.nn.tasks import DetectionModel
torch.manual_seed(0)
scale, optimizer, target = sys.argv[1:]
model = DetectionModel(f"yolov8{scale}.yaml", nc=80, verbose=False)
model.args = dict(DEFAULT_CFG_DICT)
keys = {"SGD": ["momentum_buffer"], "AdamW": ["exp_avg", "exp_avg_sq"]}[optimizer]
dtype = torch.float16 if optimizer == "SGD" else torch.float32
state = {}
for index, parameter in enumerate(model.parameters()):
    state[index] = {key: torch.rand_like(parameter, dtype=torch.float32).to(dtype) for key in keys}
    if optimizer == "AdamW":
        state[index]["step"] = torch.tensor(1000.0)
columns = ["epoch", "time", "train/box_loss", "train/cls_loss", "val/box_loss", "metrics/mAP50-95(B)"]
buffer = io.BytesIO()  # as Ultralytics saves: into memory, then written at once
torch.save({
    "epoch": 130, "best_fitness": 0.5, "stopper": {"best_fitness": 0.5, "best_epoch": 131}, "model": None,
    "ema": model.half(), "updates": 65000, "optimizer": {"state": state, "param_groups": [
        {"lr": 0.01, "momentum": 0.9, "params": list(state)}]}, "scaler": {"scale": 65536.0},
    "train_args": {**DEFAULT_CFG_DICT, "epochs": 200}, "train_metrics": {"fitness": 0.5},
    "train_results": {column: [float(row + 1) for row in range(131)] for column in columns},
    "date": datetime.now().isoformat(), "version": __version__,
}, buffer)
pathlib.Path(target).write_bytes(buffer.getvalue())
"""
FEW_MB = 12.3e6
MANY = 200


def main() -> int:
    """Measure everything and print a table of what was asked for and what came out; 1 where it was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--directory", type=Path, help="keep the built files here (about 4 GB)")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with folder(arguments.directory) as place:
        rows = list(measure(place, arguments.rounds))
    width = max(len(row[0]) for row in rows)
    print(f"{'what':<{width}}  {'measured':>12}  {'asked for':>10}")
    for name, value, asked, good in rows:
        print(f"{name:<{width}}  {value:>12}  {asked:>10}  {'' if good else 'MISSED'}")
    return 0 if all(row[3] for row in rows) else 1


@contextmanager
def folder(kept: Path | None) -> Iterator[Path]:
    """Yield the directory for the files; a temporary one is removed afterwards."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def measure(place: Path, rounds: int) -> Iterator[tuple[str, str, str, bool]]:
    """Yield (what, measured, asked for, reached)."""
    for optimizer in ("SGD", "AdamW"):
        path = built("x", optimizer, place)
        size = path.stat().st_size / 1e6
        label = f"YOLOv8x {optimizer} {size:.0f} MB"
        torch_s, check_s = in_turn([torch_process(path), check_process(path)], rounds)
        ratio = torch_s / check_s
        yield f"{label}: torch process / nantui check", f"{ratio:.1f}x", ">= 15x", ratio >= 15
        yield f"{label}: nantui check, whole process", f"{check_s:.3f} s", "", True
        inside = measured_inside(path, rounds)
        share = inside["max"] / inside["sweep"]
        yield f"{label}: sweep at share of numpy.max", f"{share:.0%}", ">= 40%", share >= 0.4
        share = inside["max"] / inside["scan"]
        yield f"{label}: scan() whole at share of numpy.max", f"{share:.0%}", "", True
        yield f"{label}: numpy.max", f"{size / 1e3 / inside['max']:.1f} GB/s", "", True
        memory = peak_memory(path)
        yield f"{label}: resident memory", f"{memory:.0f} MB", "< 150 MB", memory < 150
    yield from many_files(place, rounds)


def many_files(place: Path, rounds: int) -> Iterator[tuple[str, str, str, bool]]:
    """Yield the figures of a run with two hundred checkpoints."""
    source = built("n", "SGD", place)
    weights = place / "many" / "weights"
    shutil.rmtree(weights, ignore_errors=True)
    weights.mkdir(parents=True)
    hours_ago = time.time() - 7200
    for index in range(MANY):
        copy = shutil.copyfile(source, weights / f"epoch{index}.pt")
        os.utime(copy, (hours_ago + index, hours_ago + index))
    first, second, listed = [], [], []
    for _ in range(rounds):
        cache = fresh(place / "cache")
        told = listing(weights, cache)
        first.append(told["all"])
        listed.append(told["list"])
        second.append(min(listing(weights, cache)["all"] for _ in range(3)))
    label = f"{MANY} checkpoints of {source.stat().st_size / 1e6:.0f} MB"
    yield f"{label}: the list", f"{min(listed) * 1e3:.0f} ms", "at once", min(listed) < 0.1
    yield f"{label}: all badges", f"{min(first):.2f} s", "<= 6 s", min(first) <= 6
    yield f"{label}: second look, another process", f"{min(second):.2f} s", "<= 0.2 s", min(second) <= 0.2


LISTING = """
import sys, time, json, pathlib
started = time.perf_counter()
from nantui.checkpoint.catalog import Catalog
catalog = Catalog(pathlib.Path(sys.argv[1]))
files = catalog.files()
listed = time.perf_counter() - started
badges = [verdict.badge for verdict in catalog.verdicts()]
assert len(files) == len(badges) == int(sys.argv[2]) and set(badges) == {"clean"}
print(json.dumps({"list": listed, "all": time.perf_counter() - started}))
"""
INSIDE = """
import gc, sys, time, json, os, pathlib
import numpy as np
from nantui.checkpoint.archive import Archive
from nantui.checkpoint.layout import layout
from nantui.checkpoint.machine import Machine
from nantui.checkpoint.scan import scan
from nantui.checkpoint.sweep import sweep
from nantui.checkpoint.tree import walk
path, rounds = pathlib.Path(sys.argv[1]), int(sys.argv[2])
data = np.fromfile(path, np.uint8)
words = data[: len(data) // 4 * 4].view(np.uint32)
gc.disable()  # as it is during every look
descriptor = os.open(path, os.O_RDONLY)
archive = Archive(descriptor, len(data))
segments = layout(walk(Machine(archive.read(archive.records["data.pkl"])).run()).leaves, archive)
def took(what):
    started = time.perf_counter()
    what()
    return time.perf_counter() - started
best = {"max": 9.0, "sweep": 9.0, "scan": 9.0}
for _ in range(rounds * 5):
    best["max"] = min(best["max"], took(lambda: words.max()))
    best["sweep"] = min(best["sweep"], took(lambda: sweep(archive, segments, False)))
    best["scan"] = min(best["scan"], took(lambda: scan(path)))
print(json.dumps(best))
"""
PEAK = """
import sys, re, pathlib, resource
from nantui.cli import main
status = main(["check", sys.argv[1]])
assert status == 0
here = re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]
print(int(here) + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
"""


def built(scale: str, optimizer: str, place: Path) -> Path:
    """Return a checkpoint of a YOLOv8 of that scale, built if it is not there yet."""
    path = place / f"yolov8{scale}-{optimizer}.pt"
    if not path.exists():
        subprocess.run([sys.executable, "-c", BUILD, scale, optimizer, path], check=True)
    return path


def torch_process(path: Path) -> Callable[[], object]:
    """Return what everybody does today, as a whole process."""
    return lambda: run([sys.executable, "-c", TORCH_CHECK, str(path)], path.parent / "cache")


def check_process(path: Path) -> Callable[[], object]:
    """Return `nantui check FILE` as a whole process that remembers nothing."""
    command = [sys.executable, "-m", "nantui.cli", "check", str(path)]
    return lambda: run(command, fresh(path.parent / "cache"))


def run(command: list[str], cache: Path) -> subprocess.CompletedProcess[str]:
    """Run a process to its good end, with compiled bytecode as any installed package has it."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment |= {"PYTHONPYCACHEPREFIX": str(cache.parent / "bytecode"), "XDG_CACHE_HOME": str(cache)}
    return subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True, env=environment)


def fresh(cache: Path) -> Path:
    """Return an empty cache directory."""
    shutil.rmtree(cache, ignore_errors=True)
    return cache


def in_turn(things: list[Callable[[], object]], rounds: int) -> list[float]:
    """Run each once to warm up, then all in turn; return the best time of each."""
    best = [float("inf")] * len(things)
    for number in range(rounds + 1):
        for index, thing in enumerate(things):
            started = time.perf_counter()
            thing()
            if number:
                best[index] = min(best[index], time.perf_counter() - started)
    return best


def measured_inside(path: Path, rounds: int) -> dict[str, float]:
    """Return the seconds of numpy.max, of the sweep alone and of a whole scan, in one warm process."""
    found: dict[str, float] = json.loads(
        run([sys.executable, "-c", INSIDE, str(path), str(rounds)], path.parent / "cache").stdout
    )
    return found


def listing(weights: Path, cache: Path) -> dict[str, float]:
    """Return the seconds from the first import to the list, and to the last badge."""
    found: dict[str, float] = json.loads(
        run([sys.executable, "-c", LISTING, str(weights), str(MANY)], cache).stdout
    )
    return found


def peak_memory(path: Path) -> float:
    """Return the peak resident memory of `nantui check` in MB, its own and that of its sweeping child."""
    done = run([sys.executable, "-c", PEAK, str(path)], fresh(path.parent / "cache"))
    return int(done.stderr.split()[-1]) / 1024


if __name__ == "__main__":
    raise SystemExit(main())
