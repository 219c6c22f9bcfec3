"""The label check against the plain loop: 100,000 label files, 700,000 boxes, warm cache.

python -m benchmarks.labels [--files N] [--dir DIR] [--repeat N]
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.figures import Figure, carried_out, description
from nantui.labels.check import check_data_set
from nantui.labels.data_set import load_data_set

BOXES = 7
CLASSES = 6


def make(root: Path, files: int) -> Path:
    """Write a data set with `files` images (empty files: nobody looks into them) and labels."""
    images, labels = root / "images" / "train", root / "labels" / "train"
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    made = random.Random(1)
    for number in range(files):
        (images / f"{number:06d}.jpg").touch()
        (labels / f"{number:06d}.txt").write_text("".join(row(made) for _ in range(BOXES)))
    data = root / "data.yaml"
    data.write_text(f"path: {root}\ntrain: images/train\nval: images/train\nnc: {CLASSES}\n")
    return data


def row(made: random.Random) -> str:
    """Return one box inside the image, as labelling tools write it."""
    width, height = made.uniform(0.01, 0.3), made.uniform(0.01, 0.3)
    x, y = made.uniform(width / 2, 1 - width / 2), made.uniform(height / 2, 1 - height / 2)
    return f"{made.randrange(CLASSES)} {x:.6f} {y:.6f} {width:.6f} {height:.6f}\n"


def plain_loop(root: Path) -> int:
    """Count boxes with a coordinate outside 0..1 in the way of a script that one writes by hand."""
    bad = 0
    for name in glob.glob(str(root / "labels" / "train" / "*.txt")):
        with open(name) as file:
            for line in file:
                _, x, y, width, height = (float(word) for word in line.split())
                if not 0 <= x <= 1 or not 0 <= y <= 1 or not 0 <= width <= 1 or not 0 <= height <= 1:
                    bad += 1
    return bad


def check(data: Path) -> dict[str, float]:
    """Run the check in a process of its own, so that its memory is its own."""
    words = [sys.executable, "-m", "benchmarks.labels", "--check", str(data)]
    root = Path(__file__).resolve().parents[1]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True, cwd=root).stdout)


def checked_here(data: Path) -> dict[str, float]:
    """Check `data` in this process and return seconds, boxes and peak memory in MB."""
    before = cpu_seconds()
    report = check_data_set(load_data_set(data))
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    worker = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    processors = len(os.sched_getaffinity(0))
    return {
        "seconds": report.seconds,
        "cpu_s": cpu_seconds() - before,
        "boxes": report.boxes,
        "errors": report.errors,
        "mb": own + worker * (processors if worker else 0),
    }


def cpu_seconds() -> float:
    """Return the processor time of this process and its ended workers."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def measure(arguments: argparse.Namespace) -> Iterator[Figure]:
    """Yield the figures; loop and check are taken in turn, so that neighbours disturb both alike."""
    with tempfile.TemporaryDirectory() as folder:
        root = arguments.dir or Path(folder) / "data"
        if not (root / "data.yaml").exists():
            make(root, arguments.files)
        loops, checks = [], []
        for turn in range(arguments.repeat + 1):
            begun = time.perf_counter()
            plain_loop(root)
            seconds, result = time.perf_counter() - begun, check(root / "data.yaml")
            if turn:  # the first one fills the page cache
                loops.append(seconds)
                checks.append(result)
    what = f"{arguments.files:,} label files, {checks[0]['boxes']:,} boxes"
    ours = [result["seconds"] for result in checks]
    yield Figure(what, "s", ours, 5.0, "glob, open, split, float, compare", loops, faster=True)
    yield Figure("the same, processor time", "s", [result["cpu_s"] for result in checks])
    yield Figure("the same, memory with its workers", "MB", [result["mb"] for result in checks], 300.0)


def main() -> int:
    parser = description(__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--dir", type=Path, help="keep the data set here and use it again")
    parser.add_argument("--repeat", type=int, default=3)
    if sys.argv[1:2] == ["--check"]:
        print(json.dumps(checked_here(Path(sys.argv[2]))))
        return 0
    return carried_out(parser, measure)


if __name__ == "__main__":
    raise SystemExit(main())
