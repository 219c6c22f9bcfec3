"""A rollback or undo whose doers are killed: at any line helper, supervisor or both; then a successor comes.

Supervisor and helper are forked processes that run the code of the real ones: the handler of the command,
which starts the helper, waits for its answer and repairs; and the helper's `main`, whose lines are counted.
"""

from __future__ import annotations

import json
import os
import random
import signal
import struct
import sys
import time
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from itertools import chain, groupby, product
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest

from nantui.errors import UserError
from nantui.recovery import __main__ as helper
from nantui.recovery import transaction
from nantui.run import journal
from nantui.run.commands import Command
from nantui.run.journal import Journal, interrupted
from nantui.run.layout import RunLayout
from nantui.supervisor import handlers, helper_process, recovery
from tests.recovery import fakes
from tests.recovery.test_crash import lines_of
from tests.recovery.test_sole_doer import forked, ready, whole, without_torch
from tests.soak.harness import Kind

ACTIONS = ("rollback", "undo")
HELPER, SUPERVISOR = "helper", "supervisor"
VICTIMS = ((HELPER,), (SUPERVISOR,), (HELPER, SUPERVISOR))
PID = struct.Struct("=i")
BEHIND = 40
"""Lines at the end that are no more of the transaction: a forked helper has a few less than were counted."""


class Forked:
    """What a supervisor asks of a helper that it has started."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        if self.returncode is None:
            ended, status = os.waitpid(self.pid, os.WNOHANG)
            self.returncode = os.waitstatus_to_exitcode(status) if ended else None
        return self.returncode


def supervise(
    layout: RunLayout, kind: str, id: str, writes: int, line: int = 0, victims: tuple[str, ...] = ()
) -> None:
    """Be a supervisor: put right what an earlier one left, carry out one command, write its answer.

    The first helper kills the `victims` when it comes to the line.
    """
    lines = [line]

    def start(argv: list[str], cwd: str, *more: object, stdout: Any, **how: object) -> Any:
        at = lines.pop() if lines else 0
        return Forked(forked(lambda: act(argv[-1], stdout.fileno(), writes, at, victims)))

    handlers.refuse_while_running = lambda port: None
    helper_process.start_python = start
    journal = Journal(layout.journal)
    port: Any = SimpleNamespace(
        layout=layout,
        journal=journal,
        pump=lambda s: time.sleep(0.002),
        start_helper=lambda child: None,
        waiting=None,
        state=SimpleNamespace(state="diverged"),
        publish=lambda **changes: None,
    )
    recovery.repair(port)
    command = Command(kind, {"python": sys.executable}, id, "me")
    try:
        said = {"ok": True, "text": handlers.HANDLERS[kind](port, command)}
    except UserError as error:
        said = {"ok": False, "text": str(error)}
    answer_of(layout, id).write_text(json.dumps(said))


def act(request: str, out: int, writes: int, line: int, victims: tuple[str, ...]) -> None:
    """Be a helper: say on `writes` who moves files or writes the journal, and kill at the line."""

    def deaths(*_: object) -> None:
        if SUPERVISOR in victims:
            os.kill(os.getppid(), signal.SIGKILL)
        if HELPER in victims:
            os.kill(os.getpid(), signal.SIGKILL)

    def told(work: Callable[..., Any]) -> Callable[..., Any]:
        def telling(*arguments: Any, **options: Any) -> Any:
            os.write(writes, PID.pack(os.getpid()))
            try:
                return work(*arguments, **options)
            finally:
                os.write(writes, PID.pack(os.getpid()))

        return telling

    for place, name in ((transaction, "do"), (transaction, "revert"), (Journal, "append")):
        setattr(place, name, told(getattr(place, name)))
    signal.signal(signal.SIGUSR1, deaths)
    sys.stdout = os.fdopen(out, "w", closefd=False)
    if line:
        lines_of(lambda: helper.main([request]), line, signal.SIGUSR1)
    else:
        helper.main([request])
    sys.stdout.flush()


def answer_of(layout: RunLayout, id: str) -> Path:
    return layout.run.parent / f"{layout.run.name}.{id}.answer"


def answered(layout: RunLayout, id: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(answer_of(layout, id).read_text())
    assert "\n" not in said["text"], said
    return said


def trial(folder: Path, action: str, line: int, victims: tuple[str, ...], after: dict[str, str]) -> None:
    """Kill at the line, let a successor come, look what came of it, and take a rollback back."""
    layout = ready(folder / "run", action)
    before, everything, where = (
        fakes.tree(layout),
        fakes.contents(layout),
        f"{action}, line {line}, {victims}",
    )
    reads, writes = os.pipe()
    status = ended(forked(partial(supervise, layout, action, "c1", writes, line, victims)))
    assert os.WIFSIGNALED(status) == (SUPERVISOR in victims), where
    if victims == (HELPER,):
        said = answered(layout, "c1")
        assert not said["ok"] and "exit -9" in said["text"], f"{said}, {where}"
        assert fakes.tree(layout) in (before, after), f"neither before nor after: {where}"
        assert interrupted(Journal(layout.journal).events()) is None, f"left half done: {where}"
    again = "c1" if SUPERVISOR in victims else "c2"
    # A helper that has outlived its supervisor still moves files: it is the successor that waits for it.
    if SUPERVISOR in victims or fakes.tree(layout) != after:
        ended(forked(partial(supervise, layout, action, again, writes)))
        assert answered(layout, again)["ok"], f"{answered(layout, again)}, {where}"
    assert everything <= fakes.contents(layout), f"a byte was lost: {where}"
    if action == "rollback":
        assert fakes.tree(layout) == after, f"not rolled back whole: {where}"
        ended(forked(partial(supervise, layout, "undo", "c3", writes)))
        assert answered(layout, "c3")["ok"], f"{answered(layout, 'c3')}, {where}"
    os.close(writes)
    doers = [pid for pid, _ in groupby(everyone(reads))]
    assert len(doers) == len(set(doers)), f"two at a time, {doers}: {where}"
    assert fakes.tree(layout) == (before if action == "rollback" else after), f"undo: {where}"
    events = Journal(layout.journal).events()
    assert [event.kind for event in events].count(f"{action}_done") == 1, f"twice: {where}"
    assert interrupted(events) is None and not journal.is_being_done(layout), where
    assert everything <= fakes.contents(layout), f"a byte was lost: {where}"


def ended(child: int) -> int:
    return os.waitpid(child, 0)[1]


def everyone(reads: int) -> list[int]:
    """Return who wrote, in order, once all of them have ended."""
    with os.fdopen(reads, "rb") as pipe:
        return [pid for (pid,) in PID.iter_unpack(pipe.read())]


@lru_cache(maxsize=2)
def lines_and_end(action: str) -> tuple[dict[tuple[str, int], list[int]], dict[str, str]]:
    """Return when a helper comes to each line of code for it, counted in lines, and what it leaves."""
    seen: list[tuple[str, int]] = []
    with TemporaryDirectory() as folder:
        whole(Path(folder) / "first", action)  # fills caches, which forked helpers have filled, too
        _, after = whole(Path(folder), action, seen)
    lines: dict[tuple[str, int], list[int]] = {}
    for number, line in enumerate(seen[:-BEHIND], 1):
        lines.setdefault(line, []).append(number)
    return lines, after


def deaths(folder: Path, dice: random.Random) -> None:
    """Any line, either action, any victims."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        quick(monkeypatch)
        action = dice.choice(ACTIONS)
        lines, after = lines_and_end(action)
        trial(folder, action, dice.choice(list(chain(*lines.values()))), dice.choice(VICTIMS), after)


def every_line(dice: random.Random) -> Iterator[tuple[str, int, tuple[str, ...]]]:
    """Yield each line of code of both actions with each of the victims, one of the times that it runs."""
    for action in ACTIONS:
        for times, victims in product(lines_and_end(action)[0].values(), VICTIMS):
            yield action, dice.choice(times), victims


def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without torch, and without long pauses between two looks."""
    without_torch(monkeypatch)
    monkeypatch.setattr(journal, "POLL_S", 0.005)


KINDS = (Kind("deaths in a rollback", "or undo: helper, supervisor or both, at any line", deaths, 500, 2.0),)
