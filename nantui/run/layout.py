"""The names of every file of a run, in one place, as docs/file-formats.md describes them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_ATTEMPT = re.compile(r"^(\d{3,9})\.json$")
_RANK = re.compile(r"^\d+\.rank(\d{1,9})\.\w+\.json")


@dataclass(frozen=True)
class RunLayout:
    """Where the files of the run in `run` are."""

    run: Path

    @property
    def args_yaml(self) -> Path:
        return self.run / "args.yaml"

    @property
    def results_csv(self) -> Path:
        return self.run / "results.csv"

    @property
    def weights(self) -> Path:
        return self.run / "weights"

    @property
    def last(self) -> Path:
        return self.weights / "last.pt"

    @property
    def best(self) -> Path:
        return self.weights / "best.pt"

    @property
    def stop_point(self) -> Path:
        return self.weights / "nantui_stop.pt"

    @property
    def corrupted_backup(self) -> Path:
        return self.weights / "corrupted_backup"

    @property
    def home(self) -> Path:
        """Our own folder inside the run."""
        return self.run / "nantui"

    @property
    def spec(self) -> Path:
        return self.home / "spec.yaml"

    @property
    def supervisor(self) -> Path:
        return self.home / "supervisor.json"

    @property
    def supervisor_log(self) -> Path:
        return self.home / "supervisor.log"

    @property
    def lock(self) -> Path:
        return self.home / "lock"

    @property
    def journal(self) -> Path:
        return self.home / "journal.jsonl"

    @property
    def commands(self) -> Path:
        return self.home / "commands"

    @property
    def backups(self) -> Path:
        return self.home / "backups"

    @property
    def points(self) -> Path:
        """Where the training leaves step points, to go on from in the middle of an epoch."""
        return self.home / "points"

    def point(self, name: str) -> Path:
        return self.points / f"{name}.pt"

    def point_header(self, name: str) -> Path:
        return self.points / f"{name}.json"

    @property
    def quarantine(self) -> Path:
        return self.home / "quarantine.txt"

    @property
    def attempts(self) -> Path:
        return self.home / "attempts"

    @property
    def hosts(self) -> Path:
        """What the hosts of a run on several report, a folder each."""
        return self.home / "hosts"

    def roster(self, number: int) -> Path:
        return self.attempts / f"{number:03d}.hosts.json"

    def attempt(self, number: int) -> Path:
        return self.attempts / f"{number:03d}.json"

    def attempt_log(self, number: int) -> Path:
        return self.attempts / f"{number:03d}.log"

    def stop_request(self, number: int) -> Path:
        return self.attempts / f"{number:03d}.stop.json"

    def end_request(self, number: int) -> Path:
        """Left before signals that are meant to end an attempt's ranks, not to stop them in order."""
        return self.attempts / f"{number:03d}.end.json"

    def steps(self, number: int) -> Path:
        return self.attempts / f"{number:03d}.steps.csv"

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
        return any((self.is_ours(), os.path.isfile(self.args_yaml), os.path.isfile(self.results_csv)))
