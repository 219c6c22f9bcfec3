"""Many random trials of many kinds, bounded by time and repeatable by seed; a table of what they showed.

A trial is a function of a folder of its own and dice. It returns when everything it looked at survived, and
raises otherwise: then something was lost, and the line in the table says how to repeat just that trial.
"""

from __future__ import annotations

import random
import shutil
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from nantui.run.atomic_files import read_json, write_json

TRIAL_S = 180
"""A trial that has not ended by then counts as lost: something hangs."""


class NotPossible(Exception):
    """This machine cannot run such a trial at all (no permission to mount, no setpriv)."""


@dataclass(frozen=True)
class Kind:
    """One way to make trouble. At most `most` trials; `share` weighs its part of the time."""

    name: str
    what: str
    trial: Callable[[Path, random.Random], None]
    most: int
    share: float = 1.0


@dataclass
class Tally:
    """What became of the trials of one kind. `lost` holds (number of the trial, why)."""

    kind: Kind
    tried: int = 0
    seconds: float = 0.0
    lost: list[tuple[int, str]] = field(default_factory=list)
    not_possible: str = ""

    @property
    def survived(self) -> int:
        return self.tried - len(self.lost)


def run_kinds(
    tallies: Sequence[Tally], seed: int, minutes: float, say: Callable[[str], None] = print
) -> None:
    """Run every kind within its share of `minutes`; what one kind leaves over goes to those after it."""
    end = time.monotonic() + minutes * 60
    for place, tally in enumerate(tallies):
        shares = sum(later.kind.share for later in tallies[place:])
        run_kind(tally, seed, max(0.0, end - time.monotonic()) * tally.kind.share / shares, say)
        say(f"{tally.kind.name}: tried {tally.tried}, lost {len(tally.lost)}, {tally.seconds:.0f} s")


def run_kind(tally: Tally, seed: int, seconds: float, say: Callable[[str], None] = print) -> None:
    """Go on with the trials of one kind for at most `seconds`, at least one."""
    kind, begun, before = tally.kind, time.monotonic(), tally.tried
    while tally.tried < kind.most and (tally.tried == before or time.monotonic() - begun < seconds):
        try:
            why = run_trial(kind, seed, tally.tried + 1)
        except NotPossible as reason:
            tally.not_possible = str(reason)
            break
        tally.tried += 1
        if why:
            tally.lost.append((tally.tried, why))
            say(f"LOST {repeat(kind, seed, tally.tried)}\n{why}")
    tally.seconds += time.monotonic() - begun


def run_trial(kind: Kind, seed: int, number: int) -> str:
    """Run one trial; returns why something was lost, empty when everything survived."""
    folder = Path(tempfile.mkdtemp(prefix="nantui-soak-"))
    try:
        with time_limit(TRIAL_S):
            kind.trial(folder, dice_of(kind, seed, number))
    except NotPossible:
        raise
    except (Exception, TimeLimit):
        return traceback.format_exc(limit=-4).strip()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return ""


def dice_of(kind: Kind, seed: int, number: int) -> random.Random:
    """Return the dice of a trial, the same whichever other trials run."""
    return random.Random(f"{seed}/{kind.name}/{number}")


def repeat(kind: Kind, seed: int, number: int) -> str:
    """Return the command that repeats one trial."""
    return f"python -m tests.soak --kind '{kind.name}' --seed {seed} --trial {number}"


class TimeLimit(BaseException):
    """A trial took too long. No Exception, so that code under test does not swallow it."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise TimeLimit in the main thread after `seconds`."""

    def ring(number: int, frame: object) -> None:
        raise TimeLimit(f"not ended after {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def read_record(path: Path | None, kinds: Sequence[Kind], seed: int) -> list[Tally]:
    """Return what earlier pieces of a soak with this seed have counted, nothing where there was none."""
    document = read_json(path) if path is not None else None
    if document is None or document.get("seed") != seed:
        return [Tally(kind) for kind in kinds]
    known = document["kinds"]
    return [Tally(kind, **known[kind.name]) if kind.name in known else Tally(kind) for kind in kinds]


def write_record(path: Path, tallies: Sequence[Tally], seed: int) -> None:
    """Keep the counts, so that a later piece goes on with them."""
    counts = {
        tally.kind.name: {name: value for name, value in vars(tally).items() if name != "kind"}
        for tally in tallies
    }
    write_json(path, {"seed": seed, "kinds": counts})


def table(tallies: Sequence[Tally]) -> list[str]:
    """Return the table as lines of Markdown."""
    lines = ["| kind | what is done | tried | survived | lost | s |", "|---|---|--:|--:|--:|--:|"]
    for tally in tallies:
        counts = f"{tally.tried:,} | {tally.survived:,} | {len(tally.lost):,} | {tally.seconds:.0f}"
        if tally.not_possible:
            counts = f"not possible here: {tally.not_possible} | | |"
        lines.append(f"| {tally.kind.name} | {tally.kind.what} | {counts} |")
    tried, lost = sum(tally.tried for tally in tallies), sum(len(tally.lost) for tally in tallies)
    seconds = sum(tally.seconds for tally in tallies)
    return [*lines, f"| **all** | | {tried:,} | {tried - lost:,} | {lost:,} | {seconds:.0f} |"]
