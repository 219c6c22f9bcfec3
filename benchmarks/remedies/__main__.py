"""Break trainings in many ways, recover each by every remedy, and measure what is cured and what it costs.

    python -m benchmarks.remedies [--minutes 9] [--workers 24] [--parts cpu gpu] [--seeds 5] [--write PAGE]

Goes on where it was: what is recorded is not trained again. Seed by seed, so that what was cut off has whole
seeds. All of a seed's trainings share their beginning; each is a process forked from one that has everything
imported, with one thread.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.healthy import forks, records
from benchmarks.healthy.__main__ import environment
from benchmarks.remedies import evidence, page
from benchmarks.remedies.causes import BASES, CAUSES, CPU, GPU, Cause
from benchmarks.remedies.training import (
    BF16,
    BREAK,
    CONTROL,
    FP32,
    PREFIX,
    REMEDIES,
    REWIND,
    SKIP,
    Place,
    beginning,
    broken,
    control,
    gone_on,
    rebased_here,
    recovered,
)  # fmt: skip

TABLE = records.ROOT / "configs" / "remedies.csv"
GRACE_S = 25.0
LOOK_EVERY_S = 0.05
GPU_LANES = 8
"""Trainings that share the GPU at a time."""


@dataclass(frozen=True)
class Job:
    """One training: `name` is its record's, `needs` the jobs whose directories it begins from."""

    name: str
    part: str
    seed: int
    work: Callable[[Place], records.Record]
    run: tuple[str, str]
    needs: tuple[str, ...] = ()
    keeps: bool = False


def jobs_of(asked: argparse.Namespace) -> Iterator[Job]:
    """Yield every training in the order in which they are begun: seed by seed."""
    causes = [one for one in CAUSES if one.part in asked.parts and asked.only in one.name]
    causes.sort(key=lambda one: one.part == CPU)  # a GPU has few lanes: they are kept busy from the beginning
    for seed in range(asked.first_seed, asked.first_seed + asked.seeds):
        for base in dict.fromkeys(one.base for one in causes):
            part, first = BASES[base][0], f"{seed}/{base}/{PREFIX}"
            begun, whole = partial(beginning, base, seed), partial(control, base, seed)
            yield Job(first, part, seed, begun, (base, PREFIX), keeps=True)
            yield Job(f"{seed}/{base}/{CONTROL}", part, seed, whole, (base, CONTROL), (first,))
        for cause in causes:
            yield from of_cause(cause, seed, asked.remedy)


def of_cause(cause: Cause, seed: int, wanted: list[str]) -> Iterator[Job]:
    """Yield the break and the remedies of one cause."""

    def job(name: str, work: Callable[..., Any], needs: str, keeps: bool = False) -> Job:
        found = f"{seed}/{cause.name}/{name}"
        return Job(found, cause.part, seed, work, (cause.name, name), (needs,), keeps)

    first = f"{seed}/{cause.base}/{PREFIX}"
    broke = job(BREAK, partial(broken, cause, seed), first, keeps=True)
    yield broke
    for remedy in (SKIP, REWIND):
        if not wanted or remedy in wanted:
            yield job(remedy, partial(gone_on, cause, seed, remedy=remedy), first)
    for remedy in REMEDIES:
        possible = cause.part == GPU or remedy not in (BF16, FP32)
        if possible and (not wanted or remedy in wanted):
            yield job(remedy, partial(recovered, cause, seed, remedy=remedy), broke.name)


def main() -> int:
    """Train what was asked for and is not recorded yet; 0 when nothing failed and nothing is left."""
    asked = options()
    os.environ |= {f"XDG_{name}_HOME": str(asked.place / name) for name in ("CONFIG", "CACHE", "STATE")}
    os.environ.setdefault("YOLO_CONFIG_DIR", str(asked.place / "ultralytics"))
    begun = time.monotonic()
    forks.warm_up()
    from nantui.recovery import rollback

    rollback.run_rebase = rebased_here
    where = {part: environment(part) for part in asked.parts}
    done = records.read_rows(asked.rows)
    jobs = list(jobs_of(asked))
    todo = [job for job in jobs if job.name not in done]
    needed = {name for job in todo for name in job.needs}
    needed |= {name for job in jobs if job.name in needed for name in job.needs}
    gone = {job.name for job in jobs if job.name in needed and not folder_of(asked, job).exists()}
    todo = [job for job in jobs if job in todo or job.name in gone]
    print(f"{len(todo)} of {len(jobs)} trainings to do, {where}", flush=True)
    failed = work_off(todo, asked, where, begun)
    found = records.read_rows(asked.rows)
    left = sum(job.name not in found for job in jobs)
    if asked.write:
        asked.write.write_text(page.page(found), encoding="utf-8")
        TABLE.write_text(evidence.table(found), encoding="utf-8")
    print(f"{time.monotonic() - begun:.0f} s; {failed} failed, {left} are left", flush=True)
    return 1 if failed or left else 0


def work_off(todo: list[Job], asked: argparse.Namespace, where: dict[str, Any], begun: float) -> int:
    """Carry the jobs out side by side, each once what it needs is there; returns how many failed."""
    waiting, running, failed = list(todo), dict[int, Job](), set[str]()
    until = begun + asked.minutes * 60
    while waiting or running:
        now = time.monotonic()
        if now > until or not (running or next_ready(waiting, running, failed)):
            waiting = []
        while len(running) < asked.workers and (job := next_ready(waiting, running, failed)) is not None:
            waiting.remove(job)
            work = partial(carry_out, job, asked, where[job.part])
            log = asked.place / "logs" / f"{job.name.replace('/', '-').replace(' ', '_')}.log"
            running[forks.forked(work, log)] = job
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended or now > until + GRACE_S:
                job = running.pop(pid)
                if not ended:
                    forks.kill(pid)
                elif status:
                    failed.add(job.name)
                bad = "  cut off" if not ended else "  FAILED, see its log" if status else ""
                print(f"{now - begun:6.0f} s  {job.name}{bad}", flush=True)
        time.sleep(LOOK_EVERY_S)
    return len(failed)


def next_ready(waiting: list[Job], running: dict[int, Job], failed: set[str]) -> Job | None:
    """Return the first job that can begin; one that needs what has failed never will."""
    pending = {job.name for job in (*waiting, *running.values())} | failed
    on_gpu = sum(job.part == GPU for job in running.values())
    free = (job for job in waiting if job.part == CPU or on_gpu < GPU_LANES)
    return next((job for job in free if not pending & set(job.needs)), None)


def place_of(asked: argparse.Namespace, job: Job) -> Place:
    return Place(asked.place / "data", asked.place / f"seed{job.seed}")


def folder_of(asked: argparse.Namespace, job: Job) -> Path:
    return place_of(asked, job).run(*job.run)


def carry_out(job: Job, asked: argparse.Namespace, where: dict[str, Any]) -> None:
    """Do one job in this process and record it."""
    place = place_of(asked, job)
    place.runs.mkdir(parents=True, exist_ok=True)
    record = job.work(place)
    seed, cause, remedy = job.name.split("/")
    about = {"name": job.name, "seed": int(seed), "cause": cause, "remedy": remedy, "part": job.part}
    records.append(asked.rows / f"{job.part}.jsonl", {**about, **record, "where": where})
    if not (job.keeps or asked.keep):
        shutil.rmtree(folder_of(asked, job), ignore_errors=True)


def options() -> argparse.Namespace:
    """Return what the command was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=(CPU, GPU), default=[CPU])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="trainings side by side")
    parser.add_argument("--minutes", type=float, default=60.0, help="no training begins after so many")
    parser.add_argument("--only", default="", metavar="TEXT", help="only causes with this in their name")
    parser.add_argument("--remedy", action="append", default=[], help="only this one (may be repeated)")
    parser.add_argument("--rows", type=Path, default=records.ROOT / "build" / "remedies")
    parser.add_argument("--place", type=Path, default=Path("/tmp/nantui-remedies"))
    parser.add_argument(
        "--write",
        type=Path,
        metavar="PAGE",
        help="write it and configs/remedies.csv",
    )
    parser.add_argument("--keep", action="store_true", help="keep the run directories")
    return parser.parse_args()


if __name__ == "__main__":
    ending = main()
    sys.stdout.flush()
    os._exit(ending)  # what torch imports complains of leaks at a usual end
