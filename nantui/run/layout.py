"""The names of every file of a run, as docs/file-formats.md describes them, and finding runs."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from nantui.errors import UserError

DEEPEST = 6
_NEVER_INSIDE = frozenset({"weights", "images", "labels", "node_modules", "site-packages"})
_WRITTEN_FIRST = ("spec", "supervisor", "journal", "attempts")
"""Of a run of ours: other folders are called nantui, too, that of the settings, a checkout."""
_ATTEMPT = re.compile(r"^(\d{3,9})\.json$")
_RANK = re.compile(r"^\d+\.rank(\d{1,9})\.\w+\.json")


class _Inside:
    """The path of a file or folder inside the run."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, layout: RunLayout, kind: type) -> Path:
        return layout.run / self._name


def _of_attempt(ending: str) -> Callable[[RunLayout, int], Path]:
    """Return a method that gives the path of a file of the attempt with a number."""
    return lambda layout, number: layout.attempts / f"{number:03d}.{ending}"


@dataclass(frozen=True)
class RunLayout:
    """Where the files of the run in `run` are."""

    run: Path

    args_yaml = _Inside("args.yaml")
    results_csv = _Inside("results.csv")
    weights = _Inside("weights")
    last = _Inside("weights/last.pt")
    best = _Inside("weights/best.pt")
    stop_point = _Inside("weights/nantui_stop.pt")
    corrupted_backup = _Inside("weights/corrupted_backup")
    home = _Inside("nantui")
    """Our own folder inside the run."""
    spec = _Inside("nantui/spec.yaml")
    supervisor = _Inside("nantui/supervisor.json")
    supervisor_log = _Inside("nantui/supervisor.log")
    lock = _Inside("nantui/lock")
    journal = _Inside("nantui/journal.jsonl")
    commands = _Inside("nantui/commands")
    wish = _Inside("nantui/wish.json")
    """Who has a dialog open from which the run may go on: its next worker is brought up meanwhile."""
    backups = _Inside("nantui/backups")
    points = _Inside("nantui/points")
    """Where the training leaves step points, to go on from in the middle of an epoch."""
    quarantine = _Inside("nantui/quarantine.txt")
    attempts = _Inside("nantui/attempts")
    hosts = _Inside("nantui/hosts")
    """What the hosts of a run on several report, a folder each."""

    def point(self, name: str) -> Path:
        return self.points / f"{name}.pt"

    def point_header(self, name: str) -> Path:
        return self.points / f"{name}.json"

    attempt = _of_attempt("json")
    attempt_log = _of_attempt("log")
    steps = _of_attempt("steps.csv")
    roster = _of_attempt("hosts.json")
    stop_request = _of_attempt("stop.json")
    rewind_request = _of_attempt("rewind.json")
    end_request = _of_attempt("end.json")
    """Left before signals that are meant to end an attempt's ranks, not to stop them in order."""

    def host_end_request(self, number: int, host: str) -> Path:
        """Return what another host than the leading one leaves before such signals to its own ranks."""
        return self.hosts / host / f"{number:03d}.end.json"

    def events(self, number: int, rank: int) -> Path:
        return self.attempts / f"{number:03d}.rank{rank}.events.jsonl"

    def exit(self, number: int, rank: int) -> Path:
        return self.attempts / f"{number:03d}.rank{rank}.exit.json"

    def attempt_numbers(self) -> list[int]:
        """Return the numbers of the attempts on disk, oldest first."""
        try:
            names = [entry.name for entry in self.attempts.iterdir()]
        except OSError:
            return []
        return sorted(int(found.group(1)) for name in names if (found := _ATTEMPT.match(name)))

    def newest_attempt(self) -> int:
        """Return the number of the newest attempt on disk, 0 where there is none."""
        return max(self.attempt_numbers(), default=0)

    def ranks(self, number: int) -> list[int]:
        """Return the ranks of an attempt that have written events or an exit, smallest first."""
        names = (path.name for path in self.attempts.glob(f"{number:03d}.rank*.*.json*"))
        return sorted({int(found[1]) for name in names if (found := _RANK.match(name))})

    def is_ours(self) -> bool:
        """Tell whether nantui made this run (else it is foreign: plain Ultralytics)."""
        return os.path.isdir(self.home)

    def looks_like_run(self) -> bool:
        """Tell whether the directory holds a training run at all."""
        theirs = os.path.isfile(self.args_yaml) or os.path.isfile(self.results_csv)
        return theirs or any(os.path.exists(getattr(self, name)) for name in _WRITTEN_FIRST)


def require_run(path: Path) -> RunLayout:
    """Return the layout of the run in `path`. Raises UserError when there is no run."""
    if not path.exists():
        raise UserError(f"{path}: no such directory; give a run directory, e.g. runs/detect/train")
    if path.is_dir() and path.name == "weights" and RunLayout(path.parent).looks_like_run():
        path = path.parent
    if path.is_file() and path.parent.name == "weights" and RunLayout(path.parent.parent).looks_like_run():
        chosen = f"its run is {path.parent.parent}; recover and rollback choose it by --to {path.name}"
        raise UserError(f"{path}: a checkpoint, not a run: {chosen}")
    layout = RunLayout(path.resolve())
    if not path.is_dir() or not layout.looks_like_run():
        raise UserError(f"{path}: not a run: no args.yaml, results.csv or nantui/spec.yaml in it; give a run")
    return layout


def find_runs(top: Path, depth: int = DEEPEST) -> Iterator[Path]:
    """Yield the runs in and below `top`, at most `depth` folders down; unreadable folders are passed over."""
    layout = RunLayout(top)
    if layout.looks_like_run():
        yield top
        return
    if depth == 0:
        return
    try:
        with os.scandir(top) as entries:
            below = sorted(entry.name for entry in entries if _worth_entering(entry))
    except OSError:
        return
    for name in below:
        yield from find_runs(top / name, depth - 1)


def _worth_entering(entry: os.DirEntry[str]) -> bool:
    return entry.name[0] != "." and entry.name not in _NEVER_INSIDE and entry.is_dir(follow_symlinks=False)
