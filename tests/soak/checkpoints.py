"""Rollbacks killed at any line, and checkpoints that are damaged or hostile."""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import pytest

from nantui.checkpoint.scan import scan
from nantui.recovery.phase_change import advance
from nantui.recovery.rollback import roll_back
from nantui.recovery.undo import undo
from nantui.run.layout import RunLayout
from nantui.run.spec import read_spec
from tests.checkpoint import archives
from tests.checkpoint.editing import edited, strip
from tests.checkpoint.flips import flip_one, small_checkpoint
from tests.checkpoint.hostile import DATA, RUNS_CODE
from tests.checkpoint.test_mutations import LONG_AGO, MUTATIONS, Sample
from tests.checkpoint.trainings import RECIPES, train
from tests.recovery import fakes
from tests.recovery.test_crash import in_a_child, lines_of, put_right
from tests.recovery.test_sole_doer import successor
from tests.soak.harness import Kind

ASKED = {"lr0": 0.003}
SOON_S = 10.0
BADGES = {"clean", "corrupt", "unreadable"}
WATCHED = (
    "os.system",
    "subprocess.Popen",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "socket.",
    "pickle.find_class",
)


Tree = dict[str, str]


def rolled_back(folder: Path) -> RunLayout:
    """Return a run after a rollback and more training."""
    layout = fakes.make_run(folder)
    roll_back(fakes.make_plan(layout, ASKED), by="me")
    fakes.train_on(layout)
    return layout


@lru_cache(maxsize=1)
def whole_rollback() -> tuple[int, Tree]:
    """Return how many lines a rollback has, and what it leaves."""
    with tempfile.TemporaryDirectory() as folder:
        layout = fakes.make_run(Path(folder) / "run")
        plan = fakes.make_plan(layout, ASKED)
        return lines_of(lambda: roll_back(plan, by="me")), fakes.tree(layout)


@lru_cache(maxsize=1)
def whole_undo() -> tuple[int, Tree]:
    """Return how many lines an undo has, and what was there before the rollback."""
    with tempfile.TemporaryDirectory() as folder:
        original = fakes.tree(fakes.make_run(Path(folder) / "original"))
        layout = rolled_back(Path(folder) / "run")
        return lines_of(lambda: undo(layout, by="me")), original


def crash_a_rollback(folder: Path, dice: random.Random) -> None:
    """No byte is lost, and the next start makes it as before or as after."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        fakes.without_torch(monkeypatch)
        total, complete = whole_rollback()
        layout = fakes.make_run(folder / "run")
        plan = fakes.make_plan(layout, ASKED)
        crash(layout, lambda: roll_back(plan, by="me"), dice.randrange(1, total + 1), complete)


def crash_an_undo(folder: Path, dice: random.Random) -> None:
    """The same for taking a rollback back, after more training."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        fakes.without_torch(monkeypatch)
        total, original = whole_undo()
        layout = rolled_back(folder / "run")
        crash(layout, lambda: undo(layout, by="me"), dice.randrange(1, total + 1), original)


@lru_cache(maxsize=1)
def whole_phase() -> tuple[int, Tree]:
    """Return how many lines a change of phase has, and what it leaves."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as monkeypatch:
        layout = fakes.finished_phase(fakes.make_run(Path(folder) / "run"), monkeypatch)
        return lines_of(lambda: advance(layout, id="p1", by="me")), fakes.tree(layout)


def crash_a_change_of_phase(folder: Path, dice: random.Random) -> None:
    """The same for the change from one phase of a plan to the next; the spec says the phase that is there."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        fakes.without_torch(monkeypatch)
        total, complete = whole_phase()
        layout = fakes.finished_phase(fakes.make_run(folder / "run"), monkeypatch)
        line = dice.randrange(1, total + 1)
        crash(layout, lambda: advance(layout, id="p1", by="me"), line, complete)
        spec = read_spec(layout.spec)
        phase = 2 if fakes.tree(layout) == complete else 1
        assert spec is not None and spec.plan is not None and spec.plan["phase"] == phase, f"line {line}"


def crash(layout: RunLayout, action: Callable[[], object], line: int, after: Tree) -> None:
    """Kill the action at a line; every byte is somewhere, and the next start puts all in its place."""
    before, everything = fakes.tree(layout), fakes.contents(layout)
    in_a_child(action, line)
    assert everything <= fakes.contents(layout), f"a byte was lost at line {line}"
    put_right(layout, before, after, line)


@lru_cache(maxsize=1)
def samples() -> list[Sample]:
    """Return real checkpoints in three precisions and one that is stripped; trained once."""
    import torch

    folder = Path(tempfile.mkdtemp(prefix="nantui-soak-samples-"))
    source = train(RECIPES["detect26"], folder) / "weights" / "epoch0.pt"
    kinds = {
        "half": lambda checkpoint: None,
        "single": lambda checkpoint: checkpoint["ema"].to(torch.float32) and None,
        "brain": lambda checkpoint: checkpoint["ema"].to(torch.bfloat16) and None,
        "stripped": strip,
    }
    return [Sample(edited(source, folder / f"{name}.pt", change)) for name, change in kinds.items()]


def mutate(folder: Path, dice: random.Random) -> None:
    """Never a crash or a hang, and never `clean` with a non-finite weight inside."""
    dice.choice(MUTATIONS)(samples(), folder, dice.getrandbits(64))


@lru_cache(maxsize=1)
def small() -> bytes:
    """Return a small real checkpoint; made once."""
    return small_checkpoint(Path(tempfile.mkdtemp(prefix="nantui-soak-small-")) / "small.pt")


def flip(folder: Path, dice: random.Random) -> None:
    """One bit of it is another: never clean where torch loads something else or nothing."""
    flip_one(small(), dice.randrange(8 * len(small())), folder)


class Tripwire:
    """Counts what a pickle that runs would do, while it is armed; an audit hook cannot be taken out again."""

    def __init__(self) -> None:
        self.armed, self.seen = False, list[str]()
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: object) -> None:
        if self.armed and event.startswith(WATCHED):
            self.seen.append(event)


@lru_cache(maxsize=1)
def tripwire() -> Tripwire:
    """Return the one tripwire of this process."""
    return Tripwire()


def hostile_pickle(folder: Path, dice: random.Random) -> None:
    """A pickle that would run code, as it is or damaged, alone or between others: nothing runs."""
    bodies = list(RUNS_CODE.values())
    body = bytearray(dice.choice(bodies))
    whole = dice.random() < 0.3
    if not whole:
        if dice.random() < 0.5:
            other = dice.choice(bodies)
            body = bytearray(body[: dice.randrange(len(body))] + other[dice.randrange(len(other)) :])
        for _ in range(dice.randrange(1, 5)):
            body[dice.randrange(len(body))] = dice.randrange(256)
    wire = tripwire()
    path = archives.write(folder / "evil.pt", bytes(body), DATA)
    os.utime(path, (LONG_AGO, LONG_AGO))
    wire.seen.clear()
    begun, wire.armed = time.monotonic(), True
    try:
        verdict = scan(path)
    finally:
        wire.armed = False
    assert wire.seen == [], wire.seen
    assert verdict.badge in BADGES and time.monotonic() - begun < SOON_S
    assert not whole or (verdict.badge == "unreadable" and not verdict.usable)


KINDS = (
    Kind("crash in a rollback", "SIGKILL at any line, then the next start", crash_a_rollback, 1000, 3.0),
    Kind("crash in an undo", "SIGKILL at any line, then the next start", crash_an_undo, 300, 2.0),
    Kind(
        "crash between phases", "SIGKILL at any line, then the next start", crash_a_change_of_phase, 300, 2.0
    ),
    Kind("mutated checkpoints", "bits, records, directory and pickle of real files", mutate, 10000, 8.0),
    Kind("bit flips", "any one bit of a small checkpoint, against what torch loads", flip, 40000, 2.0),
    Kind("a helper's successor", "another helper at any line of a rollback or undo", successor, 500, 2.0),
    Kind("hostile pickles", "that would run code, whole, damaged and spliced", hostile_pickle, 10000),
)
