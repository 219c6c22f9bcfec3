"""Files that a stranger wrote: readers that get anything, copied runs whose journal and manifest lead out."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings

from nantui.errors import UserError
from nantui.recovery import __main__ as recovery
from nantui.run.layout import RunLayout
from nantui.supervisor.status import read_status
from tests.recovery import fakes
from tests.run.test_bounded import MEMORY, NAMES, SECONDS, contents, every_reader
from tests.soak.checkpoints import rolled_back
from tests.soak.harness import Kind

EXAMPLES = 10
"""Contents of one file in a trial."""
PATHS = ("path", "source", "target", "id", "of", "restore_point", "checkpoint")


def fuzz_readers(folder: Path, dice: random.Random) -> None:
    """Anything in one file of a run gives a value or one clear line, within memory and time."""
    name, layout = dice.choice(NAMES), RunLayout(folder)
    (folder / name).parent.mkdir(parents=True, exist_ok=True)

    @seed(dice.getrandbits(64))
    @settings(max_examples=EXAMPLES, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(written=contents(name))
    def read(written: bytes) -> None:
        (folder / name).write_bytes(written)
        for reader in (every_reader(layout)[name], lambda: read_status(folder, foreign=list)):
            try:
                reader()
            except UserError as refused:
                assert "\n" not in str(refused), refused

    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    before = resource.getrlimit(resource.RLIMIT_AS)
    left = signal.alarm(SECONDS * 2)
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    try:
        read()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
        signal.alarm(left)


def copied_run(folder: Path, dice: random.Random) -> None:
    """A run after a rollback, whose journal and manifest lead out and whose folders are links: what undo and
    the repair of an interrupted rollback do with it touches nothing outside, and says no in one line.
    """
    outside = folder / "outside"
    with pytest.MonkeyPatch.context() as monkeypatch:
        fakes.without_torch(monkeypatch)
        rolled_back(folder / "original")
        layout = RunLayout(Path(shutil.copytree(folder / "original", folder / "run")))
        for name in ("mine.txt", "weights/last.pt", "labels.jpg"):
            (outside / name).parent.mkdir(parents=True, exist_ok=True)
            (outside / name).write_bytes(dice.randbytes(50))
        (manifest,) = layout.backups.glob("*/manifest.json")
        if dice.random() < 0.8:
            lead_out(layout.journal, outside, dice, interrupted=dice.random() < 0.5)
        if dice.random() < 0.5:
            manifest.write_text(json.dumps(astray(json.loads(manifest.read_text()), outside, dice)))
        if dice.random() < 0.4:
            place = layout.run / dice.choice(
                ("plots", "weights/corrupted_backup", "nantui/backups", "weights")
            )
            os.rename(place, folder / "before")
            place.symlink_to(outside)
        before = fakes.tree(RunLayout(outside))
        for action in dice.sample(("undo", "repair"), 2):
            request = folder / "request.json"
            request.write_text(json.dumps({"action": action, "run": str(layout.run), "by": "me"}))
            with contextlib.redirect_stdout(io.StringIO()) as said:
                recovery.main([str(request)])
            answer = json.loads(said.getvalue())
            assert answer["ok"] or "\n" not in answer["error"], answer
        assert fakes.tree(RunLayout(outside)) == before, "something outside of the run was touched"


def lead_out(journal: Path, outside: Path, dice: random.Random, interrupted: bool) -> None:
    """Let paths and ids in a journal lead out of the run; the rollback's end may be missing, too."""
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    kept = [one for one in lines if not (interrupted and one["kind"] == "rollback_done")]
    journal.write_text("".join(json.dumps(astray(one, outside, dice)) + "\n" for one in kept))


def astray(value: Any, outside: Path, dice: random.Random, name: str = "") -> Any:
    """Return a document in which one path in ten leads elsewhere."""
    if isinstance(value, dict):
        return {key: astray(inner, outside, dice, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [astray(inner, outside, dice, name) for inner in value]
    if name not in PATHS or not isinstance(value, str) or dice.random() > 0.1:
        return value
    inside = dice.choice(("mine.txt", "weights/last.pt", "labels.jpg", ""))
    ways = (
        f"{outside}/{inside}",
        f"../outside/{inside}",
        f"plots/../../outside/{inside}",
        "..",
        "weights",
        "",
    )
    return dice.choice(ways)


KINDS = (
    Kind("readers' fuzz", "ten contents of one file of a run, within memory and time", fuzz_readers, 2000),
    Kind("copied runs", "journal, manifest and links that lead out, then undo and repair", copied_run, 1000),
)
