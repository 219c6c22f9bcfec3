"""A run that 9407e15 made, and what tests want to know of it: through the command line and its own files."""

from __future__ import annotations

import csv
import hashlib
import json
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

from tests.compat.archive import DATA, RECORDED
from tests.waiting import eventually

NAMES = ("finished", "broken_early", "broken_late", "plan", "two_hosts", "stopped", "diverged")
ROOT = Path(__file__).parents[2]


class Recorded:
    """The run of one archive, unpacked below `root`."""

    def __init__(self, name: str, root: Path) -> None:
        self.name, self.root = name, root
        self.run = next((root / "runs").iterdir())
        self.as_unpacked = everything(self.run)

    def train_with(self, python: str) -> None:
        """Let the interpreter that the run was told to train with be `python`."""
        script = self.root / "python"
        script.write_text(f'#!/bin/sh\nexec "{python}" "$@"\n')
        script.chmod(0o755)

    def nantui(self, command: str, *words: str | Path, status: int = 0) -> str:
        """Run a command on the run; returns its output, stdout before stderr."""
        done = command_line("nantui", command, str(self.run), *map(str, words))
        assert done.returncode == status, (done.args, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def asked(self, command: str, *words: str) -> tuple[int, Any]:
        """Run a command with --json; returns its exit status and its answer, paths as recorded."""
        done = command_line("nantui", command, str(self.run), "--json", *words)
        assert done.stdout, (done.args, done.stderr)
        return done.returncode, json.loads(done.stdout.replace(str(self.root), RECORDED))

    def status(self) -> dict[str, Any]:
        answer: dict[str, Any] = self.asked("status")[1]["runs"][0]
        return answer

    def said(self, command: str) -> tuple[int, Any]:
        """Return what 9407e15 answered."""
        found = everything_said()[self.name][command]
        return found["exit"], found["answer"]

    def journal(self, *kinds: str) -> list[dict[str, Any]]:
        """Return the entries of the journal, or those of some kinds."""
        lines = (self.run / "nantui/journal.jsonl").read_text().splitlines()
        entries = [json.loads(line) for line in lines]
        return [entry for entry in entries if not kinds or entry["kind"] in kinds]

    def steps(self, attempt: int) -> list[tuple[int, int]]:
        """Return epoch and step of every batch of an attempt, none while there is no file."""
        try:
            text = (self.run / f"nantui/attempts/{attempt:03d}.steps.csv").read_text()
        except FileNotFoundError:
            return []
        whole = text[: text.rfind("\n") + 1].splitlines()
        return [(int(row["epoch"]), int(row["step"])) for row in csv.DictReader(whole)]

    def goes_on(self, attempt: int) -> bool:
        """Tell whether an attempt began with the epoch in which the one before stopped, or the next."""
        stopped, _ = self.steps(attempt - 1)[-1]
        return self.steps(attempt)[0] in ((stopped, 1), (stopped + 1, 1))

    def ended(self, attempt: int, outcome: str) -> dict[str, Any]:
        """Wait until the supervisor has settled an attempt; returns how it ended."""

        def end() -> Any:
            its = [entry for entry in self.journal("attempt_ended") if entry["attempt"] == attempt]
            return its[-1] if its else None

        found: dict[str, Any] = eventually(end, lambda: f"{self.journal()[-3:]}")
        assert found["outcome"] == outcome, found
        return found

    def tree(self) -> dict[str, str]:
        return tree(self.run)

    def before(self) -> dict[str, str]:
        """Return the run's files as they were before the rollback that was broken off."""
        return tree(self.root / "before")


def command_line(*module_and_words: str, **how: Any) -> subprocess.CompletedProcess[str]:
    """Run a module of the checkout with arguments to its end."""
    argv = [sys.executable, "-m", *module_and_words]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=600, **how)


@cache
def everything_said() -> dict[str, Any]:
    said: dict[str, Any] = json.loads((DATA / "said.json").read_text())
    return said


def everything(run: Path) -> dict[str, str]:
    """Return what lies in a run: relative path to content digest, folders to ""."""
    return {
        path.relative_to(run).as_posix(): digest_of(path.read_bytes()) if path.is_file() else ""
        for path in sorted(run.rglob("*"))
    }


def tree(run: Path) -> dict[str, str]:
    """Return everything outside nantui/."""
    return {name: found for name, found in everything(run).items() if name.split("/")[0] != "nantui"}


def contents(run: Path) -> set[str]:
    """Return the digests of every file of a run, wherever it lies."""
    return set(everything(run).values()) - {""}


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def alike(old: Any, new: Any, left_out: tuple[str, ...] = ()) -> bool:
    """Tell whether `new` says all that `old` says; it may say more. Nobody looks at fields in `left_out`."""
    if isinstance(old, dict):
        return isinstance(new, dict) and all(
            name in left_out or (name in new and alike(value, new[name], left_out))
            for name, value in old.items()
        )
    if isinstance(old, list):
        return (
            isinstance(new, list)
            and len(old) == len(new)
            and all(alike(one, other, left_out) for one, other in zip(old, new, strict=True))
        )
    return bool(old == new)
