"""The label check against the plain loop: 100,000 label files, 700,000 boxes, warm cache.

Prints both times, the factor and the peak memory of the check and its workers as one JSON document.
Usage: python benchmarks/labels.py [--files N] [--dir DIR] [--repeat N]
"""

from __future__ import annotations

import argparse
import glob
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
    words = [sys.executable, os.path.abspath(__file__), "--check", str(data)]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def checked_here(data: Path) -> dict[str, float]:
    """Check `data` in this process and return seconds, boxes and peak memory in MB."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from nantui.diagnosis.dataset import load_data_set
    from nantui.diagnosis.labels import check_data_set

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


def compare(root: Path, repeat: int) -> dict[str, float]:
    """Return the medians of `repeat` turns of each, taken in turn so that neighbours disturb both alike."""
    loops, loops_cpu, checks = [], [], []
    for _ in range(repeat + 1):
        begun, begun_cpu = time.perf_counter(), time.process_time()
        plain_loop(root)
        loops.append(time.perf_counter() - begun)
        loops_cpu.append(time.process_time() - begun_cpu)
        checks.append(check(root / "data.yaml"))
    loop = statistics.median(loops[1:])
    ours = statistics.median(result["seconds"] for result in checks[1:])
    return {
        "files": len(os.listdir(root / "labels" / "train")),
        "boxes": checks[0]["boxes"],
        "plain_loop_s": round(loop, 3),
        "check_s": round(ours, 3),
        "factor": round(loop / ours, 1),
        "plain_loop_cpu_s": round(statistics.median(loops_cpu[1:]), 3),
        "check_cpu_s": round(statistics.median(result["cpu_s"] for result in checks[1:]), 3),
        "load": round(os.getloadavg()[0], 1),
        "peak_mb": round(max(result["mb"] for result in checks), 1),
        "processors": len(os.sched_getaffinity(0)),
    }


def main() -> int:
    """Measure, print, and return 0 when the promise is kept: five times faster, under 300 MB."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--dir", type=Path, help="keep the data set here and use it again")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--check", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.check:
        print(json.dumps(checked_here(arguments.check)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        root = arguments.dir or Path(folder) / "data"
        if not (root / "data.yaml").exists():
            make(root, arguments.files)
        result = compare(root, arguments.repeat)
    print(json.dumps(result, indent=2))
    return 0 if result["factor"] >= 5 and result["peak_mb"] < 300 else 1


if __name__ == "__main__":
    raise SystemExit(main())
