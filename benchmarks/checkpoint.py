"""What judging checkpoints costs: against torch.load with isnan/isinf, against memory speed, in memory.

    python -m benchmarks.checkpoint [--directory DIR] [--rounds 3]

YOLOv8x checkpoints with SGD (273 MB) and AdamW (683 MB) are built with torch, without training. Whatever is
compared is measured in turn within one run, page cache warm.
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

from benchmarks.figures import Figure, carried_out, description

ROOT = Path(__file__).resolve().parents[1]

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
    parser = description(__doc__)
    parser.add_argument("--directory", type=Path, help="keep the built files here (about 4 GB)")
    parser.add_argument("--rounds", type=int, default=3)
    return carried_out(parser, measure)


@contextmanager
def folder(kept: Path | None) -> Iterator[Path]:
    """Yield the directory for the files; a temporary one is removed afterwards."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def measure(arguments: argparse.Namespace) -> Iterator[Figure]:
    """Yield the figures of one large file with either optimizer, then those of many files."""
    with folder(arguments.directory) as place:
        for optimizer in ("SGD", "AdamW"):
            yield from one_file(built("x", optimizer, place), optimizer, arguments.rounds)
        yield from many_files(place, arguments.rounds)


def one_file(path: Path, optimizer: str, rounds: int) -> Iterator[Figure]:
    """Yield what judging one file takes: as a process, inside a process, and in memory."""
    label = f"YOLOv8x {optimizer} {path.stat().st_size / 1e6:.0f} MB"
    torch_s, check_s = in_turn([torch_process(path), check_process(path)], rounds)
    beside = "python: torch.load, isnan, isinf"
    yield Figure(f"{label}: nantui check, as a process", "s", check_s, 15.0, beside, torch_s, faster=True)
    seconds = measured_inside(path, rounds)
    most, sweep, scan = ([1e3 * second for second in seconds[name]] for name in ("max", "sweep", "scan"))
    beside = "numpy.max of the same bytes"
    yield Figure(f"{label}: every value swept, all checks", "ms", sweep, 0.4, beside, most, faster=True)
    yield Figure(f"{label}: with its pickle and the verdict", "ms", scan, None, beside, most, faster=True)
    yield Figure(f"{label}: largest resident memory", "MB", [peak_memory(path)], 150.0)


def many_files(place: Path, rounds: int) -> Iterator[Figure]:
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
        second += [listing(weights, cache)["all"] for _ in range(3)]
    label = f"{MANY} checkpoints of {source.stat().st_size / 1e6:.0f} MB"
    yield Figure(f"{label}: the list", "s", listed, 0.1)
    yield Figure(f"{label}: all badges", "s", first, 6.0)
    yield Figure(f"{label}: a second look, by another process", "s", second, 0.2)


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
from nantui.checkpoint.tensors.zip_archive import Archive
from nantui.checkpoint.tensors.segments import layout
from nantui.checkpoint.pickle.interpreter import Interpreter
from nantui.checkpoint.scan import scan
from nantui.checkpoint.tensors.sweep import sweep
from nantui.checkpoint.tensors.tensor_tree import walk
path, rounds = pathlib.Path(sys.argv[1]), int(sys.argv[2])
data = np.fromfile(path, np.uint8)
words = data[: len(data) // 4 * 4].view(np.uint32)
gc.disable()  # as it is during every look
descriptor = os.open(path, os.O_RDONLY)
archive = Archive(descriptor, len(data))
segments = layout(walk(Interpreter(archive.read(archive.records["data.pkl"])).run()).leaves, archive)
def took(what):
    started = time.perf_counter()
    what()
    return time.perf_counter() - started
found = {"max": [], "sweep": [], "scan": []}
for _ in range(rounds * 5):
    found["max"].append(took(lambda: words.max()))
    found["sweep"].append(took(lambda: sweep(archive, segments, False)))
    found["scan"].append(took(lambda: scan(path)))
print(json.dumps(found))
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


def in_turn(things: list[Callable[[], object]], rounds: int) -> list[list[float]]:
    """Run each once to warm up, then all in turn; return the seconds of each turn."""
    seconds: list[list[float]] = [[] for _ in things]
    for number in range(rounds + 1):
        for thing, its in zip(things, seconds, strict=True):
            started = time.perf_counter()
            thing()
            its += [time.perf_counter() - started] if number else []
    return seconds


def measured_inside(path: Path, rounds: int) -> dict[str, list[float]]:
    """Return the seconds of numpy.max, of the sweep alone and of a whole scan, in one warm process."""
    found: dict[str, list[float]] = json.loads(
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
