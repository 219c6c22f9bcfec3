"""The GPU's part of the healthy trainings: pairs in fp16 and bf16, one lane for each core."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from benchmarks.gpu.bench import Bench
from benchmarks.healthy import records
from benchmarks.healthy.cases import GPU, every_case
from benchmarks.healthy.misses import misses

MINUTES = "7"
MOST_LANES = 16


def healthy(bench: Bench) -> None:
    """Go on with the pairs that are not recorded; the rows are left beside the other results."""
    rows = (bench.out.parent if bench.out else bench.place) / "healthy"
    before = records.ROOT / "build" / "healthy" / f"{GPU}.jsonl"
    rows.mkdir(parents=True, exist_ok=True)
    if before.exists() and not (rows / before.name).exists():
        shutil.copy(before, rows)
    lanes = min(os.cpu_count() or 1, MOST_LANES)
    words = [
        "--part",
        GPU,
        "--lanes",
        str(lanes),
        "--rows",
        str(rows),
        "--place",
        str(bench.place / "healthy"),
    ]
    minutes = os.environ.get("NANTUI_HEALTHY_MINUTES", MINUTES)
    command = [sys.executable, "-m", "benchmarks.healthy", *words, "--minutes", minutes]
    status = subprocess.run(command, check=False).returncode
    found = list(records.read_rows(rows).values())
    whole = sum(case.part == GPU for case in every_case())
    bench.found("healthy", f"pairs of {whole}, exit status", f"{len(found)} {status}", status == 0)
    for name, column, text in misses(found):
        bench.found("healthy", f"{name}: {column}", text, False)
