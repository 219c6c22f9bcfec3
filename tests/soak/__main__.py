"""`make soak`: every kind of trouble, many times, bounded and repeatable; prints a table and writes a page.

    python -m tests.soak [--minutes 60] [--seed 1] [--kind NAME…] [--trial N] [--record FILE] [--write FILE]

NANTUI_SOAK_MINUTES and NANTUI_SOAK_SEED set the bound and the seed, too. Exit status 1: something was lost.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path

from tests.soak import checkpoints, deaths, disks, files, processes, strangers
from tests.soak.harness import Kind, Tally, read_record, repeat, run_kinds, run_trial, table, write_record

KINDS: tuple[Kind, ...] = (
    *processes.KINDS,
    *disks.KINDS,
    *files.KINDS,
    *checkpoints.KINDS,
    *strangers.KINDS,
    *deaths.KINDS,
)


def main() -> int:
    arguments = parsed()
    seed = arguments.seed
    chosen = [kind.name for kind in KINDS if not arguments.kind or kind.name in arguments.kind]
    if arguments.trial:
        return one_trial(next(kind for kind in KINDS if kind.name in chosen), seed, arguments.trial)
    print(f"soak: {arguments.minutes:g} minutes, seed {seed}", flush=True)
    every = read_record(arguments.record, KINDS, seed)
    now = [tally for tally in every if tally.kind.name in chosen]
    run_kinds(now, seed, arguments.minutes, lambda text: print(text, flush=True))
    shown = every if arguments.record else now
    head = [
        f"Seed {seed}, {sum(tally.seconds for tally in shown) / 60:.0f} minutes in all;"
        f" {time.strftime('%Y-%m-%d')}; {platform.system()} {platform.release().split('-')[0]},"
        f" Python {platform.python_version()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}.",
        "",
    ]
    print("\n" + "\n".join([*head, *table(shown)]), flush=True)
    if arguments.record:
        write_record(arguments.record, every, seed)
    if arguments.write:
        arguments.write.write_text(page(head, shown, seed), encoding="utf-8")
    return 1 if any(tally.lost for tally in shown) else 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser("tests.soak", description=__doc__)
    minutes = float(os.environ.get("NANTUI_SOAK_MINUTES") or 60)
    seed = int(os.environ.get("NANTUI_SOAK_SEED") or time.time_ns() % 10**6)
    parser.add_argument("--minutes", type=float, default=minutes, help="the bound for all kinds together")
    parser.add_argument("--seed", type=int, default=seed)
    parser.add_argument("--kind", nargs="+", choices=[kind.name for kind in KINDS], metavar="NAME")
    parser.add_argument("--record", type=Path, help="go on with the counts kept here, and keep them")
    parser.add_argument("--trial", type=int, help="repeat only this trial of the (first) kind")
    parser.add_argument("--write", type=Path, help="write the page here")
    return parser.parse_args()


def one_trial(kind: Kind, seed: int, number: int) -> int:
    """Repeat one trial; prints what was lost."""
    why = run_trial(kind, seed, number)
    print(why or f"{kind.name} {number}: survived")
    return 1 if why else 0


def page(head: list[str], tallies: list[Tally], seed: int) -> str:
    """Return the page: the bound, the table, and what was lost with how to repeat it."""
    lines = ["# Soak", "", "Written by `make soak`.", "", *head, *table(tallies), ""]
    lost = [(tally.kind, number, why) for tally in tallies for number, why in tally.lost]
    lines += ["## Lost", ""] if lost else ["Nothing was lost.", ""]
    for kind, number, why in lost:
        lines += [f"`{repeat(kind, seed, number)}`", "```", why.splitlines()[-1], "```", ""]
    lines += [
        "A trial survives when nothing that it looked at was lost: no byte of a checkpoint, no line of the",
        "journal, no process that stays, no lock, no command carried out twice, no wrong state, no answer",
        "that never comes.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
