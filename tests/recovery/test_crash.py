"""SIGKILL at any line of a rollback or an undo: no byte is lost, and the next start puts it right.

A forked child traces the lines of our own code and kills itself at one of them. `make test` takes a sample of
all points; `-m soak` takes every one.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from nantui.recovery.phase_change import advance
from nantui.recovery.rollback import roll_back
from nantui.recovery.transaction import pending, settle
from nantui.recovery.undo import undo
from nantui.run.layout import RunLayout
from nantui.run.spec import read_spec
from tests.recovery import fakes

TRACED = (
    "nantui/recovery/",
    "nantui/run/atomic_files.py",
    "nantui/run/journal.py",
)
SAMPLE = 25


def lines_of(
    action: Callable[[], Any],
    kill_at: int = 0,
    how: int = signal.SIGKILL,
    seen: list[tuple[str, int]] | None = None,
) -> int:
    """Run `action` and return how many lines of ours it took; at line `kill_at` the process kills itself
    (or is stopped, by another signal). What was `seen` are file and number of each line, in order.
    """
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        if not any(part in frame.f_code.co_filename for part in TRACED):
            return None
        if event == "line":
            count += 1
            if seen is not None:
                seen.append((frame.f_code.co_filename, frame.f_lineno))
            if count == kill_at:
                os.kill(os.getpid(), how)
        return trace

    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(None)
    return count


def in_a_child(action: Callable[[], Any], kill_at: int) -> bool:
    """Run `action` in a forked child that dies at line `kill_at`; True when it was killed there."""
    child = os.fork()
    if child == 0:
        try:
            lines_of(action, kill_at)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def points(total: int, every: bool) -> list[int]:
    """Return the lines at which to kill: all, or a sample spread over all and shifted by a prime."""
    return (
        list(range(1, total + 1))
        if every
        else sorted({1 + (n * 7919) % total for n in range(SAMPLE)} | {total})
    )


def crash_rollback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: bool) -> int:
    fakes.without_torch(monkeypatch)
    trial = fakes.make_run(tmp_path / "trial")
    plan = fakes.make_plan(trial, {"lr0": 0.003})
    total = lines_of(lambda: roll_back(plan, by="me"))
    complete = fakes.tree(trial)
    ends = set()
    for number in points(total, every):
        layout = fakes.make_run(tmp_path / f"run{number}")
        before, originals = fakes.tree(layout), fakes.contents(layout)
        mine = fakes.make_plan(layout, {"lr0": 0.003})
        assert in_a_child(lambda mine=mine: roll_back(mine, by="me"), number) or number == total
        assert originals <= fakes.contents(layout), f"a byte was lost at line {number}"
        ends.add(put_right(layout, before, complete, number))
    assert ends == {"before", "after"}
    return total


def crash_undo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: bool) -> int:
    fakes.without_torch(monkeypatch)

    def ready(name: str) -> tuple[RunLayout, dict[str, str]]:
        layout = fakes.make_run(tmp_path / name)
        original = fakes.tree(layout)
        roll_back(fakes.make_plan(layout, {"lr0": 0.003}), by="me")
        fakes.train_on(layout)
        return layout, original

    trial, original = ready("trial")
    total = lines_of(lambda: undo(trial, by="me"))
    ends = set()
    for number in points(total, every):
        layout, _ = ready(f"run{number}")
        before, everything = fakes.tree(layout), fakes.contents(layout)
        assert in_a_child(lambda layout=layout: undo(layout, by="me"), number) or number == total
        assert everything <= fakes.contents(layout), f"a byte was lost at line {number}"
        ends.add(put_right(layout, before, original, number))
    assert ends == {"before", "after"}
    return total


def crash_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: bool) -> int:
    fakes.without_torch(monkeypatch)

    def ready(name: str) -> RunLayout:
        return fakes.finished_phase(fakes.make_run(tmp_path / name), monkeypatch)

    trial = ready("trial")
    total = lines_of(lambda: advance(trial, id="p1", by="me"))
    complete = fakes.tree(trial)
    ends = set()
    for number in points(total, every):
        layout = ready(f"run{number}")
        before, originals = fakes.tree(layout), fakes.contents(layout)
        assert in_a_child(lambda layout=layout: advance(layout, id="p1", by="me"), number) or number == total
        assert originals <= fakes.contents(layout), f"a byte was lost at line {number}"
        ends.add(put_right(layout, before, complete, number))
        spec = read_spec(layout.spec)
        assert spec is not None and spec.plan["phase"] == (1 if fakes.tree(layout) == before else 2)
    assert ends == {"before", "after"}
    return total


def put_right(layout: RunLayout, before: dict[str, str], after: dict[str, str], number: int) -> str:
    """Settle as the next start does; everything must be as before or as after, and stay so."""
    settle(layout, by="next start")
    now = fakes.tree(layout)
    assert now in (before, after), f"neither before nor after, killed at line {number}"
    assert pending(layout) is None and settle(layout, by="again") == "" and fakes.tree(layout) == now
    return "before" if now == before else "after"


def test_a_rollback_killed_at_any_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert crash_rollback(tmp_path, monkeypatch, every=False) > 500


def test_an_undo_killed_at_any_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert crash_undo(tmp_path, monkeypatch, every=False) > 500


def test_a_change_of_phase_killed_at_any_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert crash_phase(tmp_path, monkeypatch, every=False) > 300


def test_settling_killed_at_any_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repair itself may be killed, too."""
    fakes.without_torch(monkeypatch)
    trial = fakes.make_run(tmp_path / "trial")
    plan = fakes.make_plan(trial, {"lr0": 0.003})
    total = lines_of(lambda: roll_back(plan, by="me"))
    complete = fakes.tree(trial)
    for number in (total * 3 // 4, total * 7 // 8):
        for second in range(5, 400, 50):
            layout = fakes.make_run(tmp_path / f"run{number}-{second}")
            before, originals = fakes.tree(layout), fakes.contents(layout)
            mine = fakes.make_plan(layout, {"lr0": 0.003})
            in_a_child(lambda mine=mine: roll_back(mine, by="me"), number)
            in_a_child(lambda layout=layout: settle(layout, by="first"), second)
            assert originals <= fakes.contents(layout)
            put_right(layout, before, complete, number)


@pytest.mark.soak
def test_a_rollback_killed_at_every_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert crash_rollback(tmp_path, monkeypatch, every=True) > 1000


@pytest.mark.soak
def test_a_change_of_phase_killed_at_every_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert crash_phase(tmp_path, monkeypatch, every=True) > 300


@pytest.mark.soak
def test_an_undo_killed_at_every_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert crash_undo(tmp_path, monkeypatch, every=True) > 1000
