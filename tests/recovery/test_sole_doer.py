"""A helper outlives its supervisor: at any line of it a successor begins under the same id, and waits.

The first one is stopped at a line of our own code; the successor starts as the next supervisor would start
it; then the first goes on (its supervisor alone was killed) or is killed (both were). One rollback comes out
of it, every byte is kept, and undo gives back what was there.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from nantui.errors import UserError
from nantui.recovery import __main__ as helper
from nantui.run.journal import Journal, interrupted, is_being_done, sole_doer
from nantui.run.layout import RunLayout
from tests.recovery import fakes
from tests.recovery.test_crash import lines_of
from tests.waiting import eventually

SAMPLE = 6


def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    fakes.without_torch(monkeypatch)
    plan = lambda request: fakes.make_plan(RunLayout(Path(request["run"])), {"lr0": 0.003}, request["id"])  # noqa: E731
    monkeypatch.setattr(helper, "plan_for", plan)


def answer(layout: RunLayout, action: str, id: str, **more: str) -> dict[str, object]:
    """Run one helper here, and return its answer."""
    request = layout.run.parent / f"{layout.run.name}.{os.getpid()}.json"
    request.write_text(json.dumps({"action": action, "run": str(layout.run), "id": id, "by": "me", **more}))
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        helper.main([str(request)])
    return json.loads(said.getvalue())


def forked(work: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def stopped_at(line: int, work: Callable[[], object]) -> int:
    """Fork a child that stops at a line of ours; return once it stands there (or has ended)."""
    child = forked(lambda: lines_of(work, line, signal.SIGSTOP))
    os.waitpid(child, os.WUNTRACED)
    return child


def trial(folder: Path, action: str, line: int, number: int, after: dict[str, str]) -> None:
    """Stop a helper at a line, begin its successor, let the first go on or kill it, look what came of it."""
    layout = ready(folder / f"{action}{line}-{number}", action)
    before, everything = fakes.tree(layout), fakes.contents(layout)
    first = stopped_at(line, partial(answer, layout, action, "c1"))
    second = forked(partial(answer, layout, action, "c1"))
    time.sleep(0.05)
    os.kill(first, number)
    for child in (first, second):
        with contextlib.suppress(ChildProcessError):  # it had ended before its line
            os.waitpid(child, 0)
    assert everything <= fakes.contents(layout), f"a byte was lost at line {line}"
    assert fakes.tree(layout) == after != before, f"not what was asked for, at line {line}"
    events = Journal(layout.journal).events()
    assert interrupted(events) is None and not is_being_done(layout)
    assert [event.kind for event in events].count(f"{action}_done") == 1, f"twice, at line {line}"
    if action == "rollback":
        assert answer(layout, "undo", "c2")["ok"] and fakes.tree(layout) == before, f"undo, line {line}"


def ready(place: Path, action: str) -> RunLayout:
    """Return a run, after a rollback and more training where an undo is to be tried."""
    layout = fakes.make_run(place)
    if action == "undo":
        assert answer(layout, "rollback", "c0")["ok"]
        fakes.train_on(layout)
    return layout


def whole(folder: Path, action: str, seen: list[tuple[str, int]] | None = None) -> tuple[int, dict[str, str]]:
    """Return how many lines a helper has, and what it leaves."""
    layout = ready(folder / f"{action}-whole", action)
    return lines_of(partial(answer, layout, action, "c1"), seen=seen), fakes.tree(layout)


@pytest.mark.parametrize("number", [signal.SIGCONT, signal.SIGKILL], ids=["supervisor", "both"])
@pytest.mark.parametrize("action", ["rollback", "undo"])
def test_a_successor_at_any_line(tmp_path, monkeypatch, action, number):
    without_torch(monkeypatch)
    total, after = whole(tmp_path, action)
    assert total > 500
    for line in sorted({1 + n * 7919 % total for n in range(SAMPLE)} | {total * 3 // 4}):
        trial(tmp_path, action, line, number, after)


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGCONT, signal.SIGKILL], ids=["supervisor", "both"])
@pytest.mark.parametrize("action", ["rollback", "undo"])
def test_a_successor_at_every_line(tmp_path, monkeypatch, action, number):
    without_torch(monkeypatch)
    total, after = whole(tmp_path, action)
    for line in range(1, total + 1):
        trial(tmp_path, action, line, number, after)


def test_a_child_of_the_doer_holds_the_lock_when_the_doer_is_gone(tmp_path):
    """As a rebase that still writes when its helper was killed."""
    import subprocess

    layout, pid = fakes.make_run(tmp_path / "run"), tmp_path / "pid"

    def do() -> None:
        with sole_doer(layout):
            words = [sys.executable, "-c", "import sys; sys.stdin.read()"]
            child = subprocess.Popen(words, close_fds=False, stdin=reader)
            pid.with_suffix(".new").write_text(str(child.pid))
            pid.with_suffix(".new").rename(pid)
            signal.pause()

    reader, writer = os.pipe()
    doer = forked(do)
    os.close(reader)
    eventually(pid.exists)
    os.kill(doer, signal.SIGKILL)
    os.waitpid(doer, 0)
    try:
        assert is_being_done(layout)
        with pytest.raises(UserError, match="another process"), sole_doer(layout, longest_s=0.2):
            pass
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)
        os.close(writer)
    eventually(lambda: not is_being_done(layout))
    with sole_doer(layout):
        assert is_being_done(layout), "another descriptor sees it"


def test_a_backup_of_a_rollback_that_was_taken_back_is_kept(tmp_path, monkeypatch):
    """What somebody else had put in the way lies there; a second try that cannot be prepared leaves it."""
    without_torch(monkeypatch)
    layout = fakes.make_run(tmp_path / "run")
    kept = layout.backups / "c1" / "in_the_way" / "weights" / "last.pt"
    Journal(layout.journal).append("rollback_begun", id="c1", steps=[])
    Journal(layout.journal).append("rollback_reverted", id="c1", text="it was interrupted")
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"somebody else's")
    monkeypatch.setattr(
        fakes.rollback, "run_rebase", lambda request, python: (_ for _ in ()).throw(OSError(28, "full"))
    )
    assert not answer(layout, "rollback", "c1")["ok"]
    assert kept.read_bytes() == b"somebody else's"
    assert not answer(layout, "rollback", "c9")["ok"]
    assert not (layout.backups / "c9").exists(), "nothing was begun: nothing is left of it"


def successor(folder: Path, dice: random.Random) -> None:
    """One trial for the soak: any line, either action, the supervisor alone or both."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        without_torch(monkeypatch)
        action = dice.choice(("rollback", "undo"))
        total, after = whole(folder, action)
        number = dice.choice((signal.SIGCONT, signal.SIGKILL))
        trial(folder, action, dice.randrange(1, total + 1), number, after)


def test_a_new_run_is_made_once_for_a_command_that_comes_twice_at_once(tmp_path, monkeypatch):
    """A supervisor was killed; its helper goes on, and the next supervisor asks for the same."""
    without_torch(monkeypatch)
    layout = fakes.make_run(tmp_path / "run")
    before = fakes.contents(layout)
    total = lines_of(partial(answer, layout, "rollback", "c0", into="counted"))
    for number, line in enumerate({1 + n * 7919 % total for n in range(SAMPLE)}):
        into, id = f"new{number}", f"c{number}"
        first = stopped_at(line, partial(answer, layout, "rollback", id, into=into))
        second = forked(partial(answer, layout, "rollback", id, into=into))
        time.sleep(0.05)
        os.kill(first, signal.SIGKILL if number % 2 else signal.SIGCONT)
        for child in (first, second):
            with contextlib.suppress(ChildProcessError):  # it had ended before its line
                os.waitpid(child, 0)
        again = answer(layout, "rollback", id, into=into)
        assert again["ok"] and again["run"] == str(tmp_path / into), f"line {line}: {again}"
        assert (tmp_path / into / "weights/last.pt").is_file()
        assert not answer(layout, "rollback", "another", into=into)["ok"], "never overwritten"
    assert fakes.contents(layout) == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".nantui")]
