"""Kill something of a running training at a random moment, then stop it: nothing may be left or be torn."""

from __future__ import annotations

import random
import signal
import time

from nantui.machine.process_identity import ProcessRef
from nantui.machine.process_tree import send
from nantui.supervisor.state import read_state
from tests.supervisor.stub_run import StubRun
from tests.waiting import eventually

VICTIMS = ("supervisor", "worker", "rank", "anything")
LONGEST_WAIT_S = 0.5


def chaos(run: StubRun, dice: random.Random, victim: str) -> None:
    """Kill the victim, stop or kill the run, and look that all of it is gone and in order."""
    if dice.random() < 0.7:
        run.await_step()
    time.sleep(dice.random() * LONGEST_WAIT_S)
    for ref in _chosen(run, dice, victim):
        send(ref, signal.SIGKILL)
    outcome = run.do("stop" if dice.random() < 0.5 else "kill")
    assert outcome.ok, outcome.text
    assert_gone(run)
    assert run.status().state in {"stopped", "failed", "lost"}, run.status()


def assert_gone(run: StubRun) -> None:
    """No process, no lock, and every attempt that began has ended, in a journal without a torn line."""
    assert run.members() == []
    eventually(lambda: not run.supervisor_alive())
    assert not run.layout.lock.exists()
    assert run.kinds().count("attempt_started") == run.kinds().count("attempt_ended"), run.kinds()
    lines = [line for line in run.layout.journal.read_text().split("\n") if line]
    assert len(lines) == len(run.journal())


def _chosen(run: StubRun, dice: random.Random, victim: str) -> list[ProcessRef]:
    state = read_state(run.layout.supervisor)
    supervisor = [state.process] if state is not None else []
    worker = [state.worker] if state is not None and state.worker is not None else []
    members = run.members()
    if victim == "supervisor":
        return supervisor
    if victim == "worker":
        return worker
    pool = [ref for ref in members if ref not in worker] if victim == "rank" else [*members, *supervisor]
    return [dice.choice(pool)] if pool else []
