"""Run the sections that this machine's GPUs allow, and write what was found as JSON and as a page."""

from __future__ import annotations

import argparse
import os
import time
import traceback
from pathlib import Path

from benchmarks.gpu import (
    ahead,
    control,
    cost,
    ddp_ends,
    ddp_trainings,
    healthy,
    memory,
    nan,
    nodes,
    points,
    reserved,
    rewind,
    validation,
)
from benchmarks.gpu.bench import Bench, gpu_memory, versions

SECTIONS = {
    "ranks": control.ranks,
    "stops": control.stops,
    "plain": control.plain,
    "nan": nan.caught,
    "persistent": nan.persistent,
    "natural": nan.natural,
    "auto": nan.unattended,
    "recovery": nan.recovery_time,
    "ahead": ahead.ahead,
    "validation": validation.validation,
    "cost": cost.cost,
    "memory": memory.memory,
    "reserved": reserved.reserved,
    "points-cost": points.cost,
    "points-equal": points.equal,
    "points-kills": points.kills,
    "rewind": rewind.rewind,
    "nodes": nodes.nodes,
    "healthy": healthy.healthy,
    "ddp-healthy": ddp_trainings.healthy,
    "ddp-faults": ddp_trainings.faults,
    "ddp-kills": ddp_ends.kills,
    "ddp-hang": ddp_ends.hang,
    "ddp-oom": ddp_ends.memory,
    "ddp-cost": points.on_ranks,
    "ddp-agents": nodes.killed,
}


def chosen(asked: list[str]) -> list[str]:
    """Return the sections of these names, or that have one of them before a hyphen.

    Raises ValueError for a name that is none.
    """
    found: list[str] = []
    for word in asked:
        its = [name for name in SECTIONS if name == word or name.startswith(f"{word}-")]
        if not its:
            raise ValueError(f"no such section: {word}; there are {', '.join(SECTIONS)}")
        found += its
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "sections", nargs="*", default=[*SECTIONS], metavar="SECTION", help=", ".join(SECTIONS)
    )
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="cases of ahead, cost and reserved, kinds of ddp-oom"
    )
    parser.add_argument("--place", type=Path, default=Path("/tmp/nantui-gpu"))
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT", "build")))
    arguments = parser.parse_args()
    arguments.place.mkdir(parents=True, exist_ok=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    bench = Bench(
        arguments.place, len(gpu_memory()), out=arguments.out / "gpu-results.json", only=arguments.only
    )
    print(f"{bench.gpus} GPUs, {versions()}", flush=True)
    for name in chosen(arguments.sections):
        if bench.gpus == 1 and name.startswith("ddp-") and name != "ddp-oom":
            bench.found(name, "not run", "one GPU has no second rank")
            continue
        begun, rows = time.monotonic(), len(bench.rows)
        try:
            SECTIONS[name](bench)
        except Exception as error:  # one section that fails must not hide the others
            traceback.print_exc()
            bench.found(name, "failed", f"{type(error).__name__}: {str(error)[:300]}", False)
        if any(row["held"] is False for row in bench.rows[rows:]):
            bench.keep_logs(name)
        print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
    return 0 if all(row["held"] is not False for row in bench.rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
