"""How many steps before a training breaks is somebody warned, and how often for nothing?

    python -m benchmarks.lead_time --collect DIR --workers 2 --minutes 60    # goes on where it was
    python -m benchmarks.lead_time --collect DIR --workers 8 --minutes 5 --device gpu
    python -m benchmarks.lead_time --evaluate DIR --write docs/lead-time.md

Collecting trains: ways to break gradually, their twins with nothing wrong, the corpus of healthy trainings;
each is recorded step by step, once, in DIR. Evaluating tries every signal on what was recorded. A training
whose seed is even serves to choose thresholds, one with an odd seed gives the figures.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import lead_time_record as record
from benchmarks.diagnosis_cases import train as train_tiny
from benchmarks.healthy import forks, records
from benchmarks.healthy.__main__ import environment
from benchmarks.healthy.cases import CPU, GPU, every_case
from benchmarks.healthy.cases import Case as HealthyCase
from benchmarks.healthy.training import GUARDED, Place
from benchmarks.healthy.training import train as train_healthy
from benchmarks.lead_time_figures import Seen, half
from benchmarks.lead_time_page import page, reached
from benchmarks.lead_time_signals import every_score
from benchmarks.lead_time_ways import GPU_WAYS, WAYS, Gradual, under_fp16, well
from nantui.run.attempts import read_exits
from nantui.run.layout import RunLayout

SEEDS, WELL, GPU_WELL = 14, 80, 24
QUICK: dict[str, Any] = {"val": False, "save": False}
WATCHED: dict[str, Any] = {"guard": "observe", "step_points": "off"}
"""A guard that protects would skip what is to be seen here; until then it does the same."""
LAST_S = 15.0
"""So long before the end no training begins any more, and those that run are ended by themselves at it."""
HOPELESS = 3
FAILED = "not recorded: "
Job = tuple[str, Callable[[Path, float, Path], None]]


def main() -> int:
    """Collect, evaluate, or one after the other.

    0 when no training failed to be recorded, and what the product has reaches what was asked for.
    """
    asked = options()
    folder = asked.collect or asked.evaluate or records.ROOT / "build" / "lead-time"
    failed = 0 if asked.evaluate else collect(folder, asked)
    status = 0 if asked.collect else evaluate(folder, asked.write)
    return status or int(failed > 0)


def evaluate(folder: Path, write: Path | None) -> int:
    """Write the page about what was recorded; 0 where enough are warned of early, and seldom for nothing."""
    recorded = [record.read(path) for path in sorted(folder.glob("*.npz"))]
    seen = [Seen(one, every_score(one)) for one in recorded]
    text = "\n".join(page(seen)) + "\n"
    if write:
        write.write_text(text, encoding="utf-8")
    else:
        print(text)
    return 0 if reached(half(seen, odd=True)) else 1


def collect(folder: Path, asked: argparse.Namespace) -> int:
    """Train and record what is not there yet, until the time is over; returns how many of that failed."""
    begun = time.monotonic()
    until = begun + asked.minutes * 60
    folder.mkdir(parents=True, exist_ok=True)
    forks.warm_up()
    where = ", ".join(environment(asked.device).values())
    jobs = [job for job in every_job(asked.device, where) if not record.path_of(folder, job[0]).exists()]
    jobs = [job for job in jobs if asked.only in job[0]][: asked.most]
    print(f"{len(jobs)} trainings to record after {time.monotonic() - begun:.0f} s", flush=True)
    # A GPU takes seconds to begin with, so there a process does many trainings.
    shares = (
        [[job] for job in jobs]
        if asked.device == CPU
        else [jobs[at :: asked.workers] for at in range(asked.workers)]
    )
    works = []
    for number, share in enumerate(shares):
        work = partial(do_share, share, folder, until, asked.place / f"{os.getpid()}-{number}")
        works.append((share[0][0] if share else "", work, asked.place / f"{os.getpid()}-{number}.log"))
    failed, logs = 0, {name: log for name, _, log in works}
    for name, ended in forks.side_by_side(works, asked.workers, until - LAST_S, until + LAST_S):
        words = said_of_failures(logs[name])
        failed += max(len(words), not ended)
        told = f"  FAILED, {len(words)}: {words[0] if words else logs[name]}" if words or not ended else ""
        print(f"{time.monotonic() - begun:5.0f} s  {name}{told}", flush=True)
    return failed


def said_of_failures(log: Path) -> list[str]:
    """Return the last words of the trainings of a share that failed, from its log."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return [line.removeprefix(FAILED) for line in lines if line.startswith(FAILED)]


def do_share(share: Sequence[Job], folder: Path, until: float, place: Path) -> None:
    """Do some trainings one after the other; one that fails does not keep the others from being done.

    Where the first `HOPELESS` of them all fail, the others would as well.
    """
    failed = 0
    for done, (name, work) in enumerate(share):
        if time.monotonic() > until - LAST_S or failed == done == HOPELESS:
            return
        print(name, flush=True)
        try:
            work(folder, until, place)
        except Exception as error:
            traceback.print_exc()
            failed += 1
            print(f"\n{FAILED}{name}: {' '.join(str(error).split())}", flush=True)
        shutil.rmtree(place, ignore_errors=True)


def every_job(device: str, where: str) -> list[Job]:
    """Return the names and works of a device's trainings; broken and healthy ones take turns."""
    ways, healthy = (WAYS, WELL) if device == CPU else (GPU_WAYS, GPU_WELL)
    fine = well if device == CPU else under_fp16(well)
    breaking = [
        way(random.Random(f"{number} {seed}"), seed)  # each way draws its own numbers
        for seed in range(SEEDS)
        for number, way in enumerate(ways)
    ]
    twins = [fine(random.Random(seed), seed) for seed in range(healthy)]
    corpus = [case for case in every_case() if case.part == device]
    random.Random(0).shuffle(corpus)
    lists: list[list[Job]] = [
        [(one.name, partial(record_gradual, one, device, where)) for one in breaking],
        [(one.name, partial(record_gradual, one, device, where)) for one in twins],
        [(case.name, partial(record_healthy, case, where)) for case in corpus],
    ]
    places = [(place / len(jobs), job) for jobs in lists for place, job in enumerate(jobs)]
    return [job for _, job in sorted(places, key=lambda one: one[0])]


def record_gradual(one: Gradual, device: str, where: str, folder: Path, until: float, place: Path) -> None:
    """Train one that breaks gradually, or its twin, and keep what it showed."""
    listener = record.Recording(until)
    at_start = one.case.at_start

    def install(trainer: Any) -> None:
        listener.install(trainer)
        if at_start is not None:
            at_start(trainer)

    case = replace(
        one.case, train={**QUICK, **one.case.train}, ours={**one.case.ours, **WATCHED}, at_start=install
    )
    run = train_tiny(case, place, "cpu" if device == CPU else "0")
    keep(folder, listener, run, (one.name, one.way, one.case.seed, one.since, where))


def record_healthy(case: HealthyCase, where: str, folder: Path, until: float, place: Path) -> None:
    """Train one of the corpus under the usual guard, without its interruption, and keep what it showed."""
    listener = record.Recording(until)
    quick = replace(case, train={**case.train, **QUICK}, resume=0)
    train_healthy(quick, Place(place.parent / "shared", place), GUARDED, listener.install)
    way = f"corpus {case.values['what']}"
    keep(folder, listener, place, (case.name, way, case.seed, -1, where))


def keep(folder: Path, listener: record.Recording, run: Path, told: tuple[str, str, int, int, str]) -> None:
    """Write what a training showed. Raises RuntimeError with how it ended where it showed nothing."""
    if not listener.rows:
        ends = read_exits(RunLayout(run), 1)
        raise RuntimeError(f"it ended before its first step: {ends[0].text if ends else 'nobody says why'}")
    record.write(folder, listener.recorded(*told))


def options() -> argparse.Namespace:
    """Return what the command was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--collect", type=Path, metavar="DIR", help="only record trainings, into DIR")
    parser.add_argument("--evaluate", type=Path, metavar="DIR", help="only evaluate what is in DIR")
    parser.add_argument("--workers", type=int, default=2, help="trainings side by side")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long to record at most")
    parser.add_argument("--device", choices=(CPU, GPU), default=CPU, help="gpu: those under fp16")
    parser.add_argument("--only", default="", metavar="TEXT", help="only trainings with this in their name")
    parser.add_argument("--most", type=int, help="at most so many trainings")
    parser.add_argument("--place", type=Path, default=Path("/tmp/nantui-lead-time"))
    parser.add_argument("--write", type=Path, metavar="PAGE", help="write the page here")
    return parser.parse_args()


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # what torch imports complains of leaks at a usual end
