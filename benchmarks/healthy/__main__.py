"""Hundreds of healthy trainings, each beside its control without the guard: is nantui ever wrong about one?

    python -m benchmarks.healthy --part cpu --lanes 2 --minutes 60    # goes on where it was
    python -m benchmarks.healthy --part gpu --lanes 16 --minutes 7
    python -m benchmarks.healthy --write       # docs/healthy.md and tests/data/healthy

A pair is a training under the default guard and the same one with guard=off, each forked from a process that
has everything imported; every fifth is trained by plain Ultralytics as well. A pair that ended is a line in
build/healthy/PART.jsonl and is not trained again. Exit status 0 when every zero of the page is one.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.healthy import forks, page, records
from benchmarks.healthy.broken import BROKEN, Broken, broken_record
from benchmarks.healthy.cases import CPU, GPU, Case, every_case
from benchmarks.healthy.measure import record_of
from benchmarks.healthy.training import GUARDED, OFF, PLAIN, Place, arguments_of, train

PLAIN_EVERY = 5
MOST_S = 900.0
GRACE_S = 60.0
PAGE = records.ROOT / "docs" / "healthy.md"


def main() -> int:
    """Train what was asked for and is not there yet; write the page."""
    asked = options()
    status = 0
    if asked.part:
        status = work_off(asked)
    if asked.write:
        found = {**records.read_corpus(), **records.read_rows(asked.rows)}
        records.write_corpus(found.values())
        PAGE.write_text(page.page(list(found.values())), encoding="utf-8")
        status = status or (0 if page.all_zero(list(found.values())) else 1)
    return status


def work_off(asked: argparse.Namespace) -> int:
    """Train the pairs of a part that are not recorded yet; 0 when all of them came to their end."""
    forks.warm_up()
    done, where = records.read_rows(asked.rows), environment(asked.part)
    begun, bad = time.monotonic(), 0
    jobs = []
    for name, work in wanted(asked):
        if name not in done:
            place = asked.place / asked.part / re.sub(r"\W+", "-", name)
            jobs.append((name, partial(work, place, asked, where), place.with_name(f"{place.name}.log")))
    print(f"{len(jobs)} of part {asked.part} to do, {where}", flush=True)
    limit = begun + asked.minutes * 60
    for name, ended in forks.side_by_side(jobs, asked.lanes, limit, limit + GRACE_S):
        bad += not ended
        print(
            f"{time.monotonic() - begun:6.0f} s  {name}{'' if ended else '  FAILED, see its log'}", flush=True
        )
    return 1 if bad else 0


def wanted(asked: argparse.Namespace) -> list[tuple[str, Callable[..., None]]]:
    """Return the names and works of this share, the longest first where lanes work side by side."""
    share, of = (int(number) for number in asked.share.split("/"))
    cases = [case for case in every_case() if case.part == asked.part]
    found: list[tuple[str, Callable[..., None]]] = [
        (case.name, partial(pair, case, number % PLAIN_EVERY == 0 and not case.resume and not case.timed))
        for number, case in enumerate(cases)
    ]
    if asked.part == CPU:
        found += [(one.name, partial(broken, one)) for one in BROKEN]
    found = [one for one in found if asked.only in one[0]][share - 1 :: of]
    return sorted(found, key=lambda one: "young averages" not in one[0])[: asked.most]


def pair(case: Case, with_plain: bool, place: Path, asked: argparse.Namespace, where: dict[str, Any]) -> None:
    """Train a case under the guard, with guard=off and, where asked for, plainly; record what came of it."""
    modes = (GUARDED, OFF, *([PLAIN] if with_plain else []))
    shutil.rmtree(place, ignore_errors=True)
    done(partial(arguments_of, case, asked.place), place / "made.log")
    seconds = {}
    for mode in modes:
        begun, cpu = time.monotonic(), os.times()
        done(partial(train, case, Place(asked.place, place / mode), mode), place / f"{mode}.log")
        now = os.times()
        cost = now.children_user + now.children_system - cpu.children_user - cpu.children_system
        seconds[mode] = [round(time.monotonic() - begun, 1), round(cost, 1)]
    record = record_of(case, place / GUARDED, place / OFF, place / PLAIN if with_plain else None)
    records.append(asked.rows / f"{case.part}.jsonl", {**record, "seconds": seconds, "where": where})
    if not asked.keep:
        shutil.rmtree(place)


def broken(one: Broken, place: Path, asked: argparse.Namespace, where: dict[str, Any]) -> None:
    """Train a training that is broken on purpose, with finite numbers, and record when that was said."""
    shutil.rmtree(place, ignore_errors=True)
    run = Place(asked.place, place / GUARDED)
    done(partial(train, one.case, run, GUARDED, one.install), place / "guarded.log")
    records.append(asked.rows / "broken.jsonl", {**broken_record(one, run.run), "where": where})
    if not asked.keep:
        shutil.rmtree(place)


def done(work: Callable[[], Any], log: Path) -> None:
    """Do a work in a process of its own. Raises TimeoutError or RuntimeError where that does not end well.

    How a guarded training ended is in its run directory; here only what no training may do is an error.
    """
    code = forks.wait_for(forks.forked(work, log), MOST_S)
    if code is None:
        raise TimeoutError(f"{log}: not within {MOST_S:.0f} s")
    if code:
        raise RuntimeError(f"{log}: exit status {code}")


def environment(part: str) -> dict[str, Any]:
    """Return what a record has to name: the commit, the versions, the processor."""
    import torch
    import ultralytics

    device = torch.backends.cpu.get_cpu_capability()
    if part == GPU:
        words = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        device = subprocess.check_output(words, text=True).splitlines()[0].strip()
    return {"commit": commit(), "torch": torch.__version__, "ultralytics": ultralytics.__version__,
            "python": platform.python_version(), "device": device}  # fmt: skip


def commit() -> str:
    """Return the commit, marked where files differ; NANTUI_COMMIT names it where a copy has no history."""
    words = ["git", "describe", "--always", "--dirty", "--abbrev=7"]
    if named := os.environ.get("NANTUI_COMMIT"):
        return named
    found = subprocess.run(words, cwd=records.ROOT, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "not known"


def options() -> argparse.Namespace:
    """Return what the command was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=(CPU, GPU), help="train this part; without it nothing is trained")
    parser.add_argument("--lanes", type=int, default=2, help="pairs side by side")
    parser.add_argument(
        "--share", default="1/1", metavar="I/N", help="only every N-th pair, from the I-th on"
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="no pair begins after so many")
    parser.add_argument("--only", default="", metavar="TEXT", help="only pairs with this in their name")
    parser.add_argument("--most", type=int, help="at most so many pairs")
    parser.add_argument("--rows", type=Path, default=records.ROOT / "build" / "healthy")
    parser.add_argument("--place", type=Path, default=Path("/tmp/nantui-healthy"))
    parser.add_argument("--keep", action="store_true", help="keep the run directories")
    parser.add_argument(
        "--write", action="store_true", help="write the page and the corpus from what is there"
    )
    return parser.parse_args()


if __name__ == "__main__":
    ending = main()
    sys.stdout.flush()
    os._exit(ending)  # what torch imports complains of leaks at a usual end
