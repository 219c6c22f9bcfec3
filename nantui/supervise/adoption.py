"""A new supervisor takes up what an earlier one left: a training, an end nobody saw, hosts to wait for."""

from __future__ import annotations

from nantui.errors import UserError
from nantui.run.attempts import Attempt, read_attempt
from nantui.run.identity import alive
from nantui.run.journal import last
from nantui.run.status import ACTIVE, STARTING
from nantui.supervise import stacks
from nantui.supervise.keeper import Keeper
from nantui.supervise.launch import cwd_of
from nantui.supervise.watch import Watch, journaled


def adopt(keeper: Keeper) -> str:
    """Find out what became of the attempt that an earlier supervisor left; returns a line for the journal.

    Empty when there was nothing to adopt or settle.
    """
    number = keeper.layout.newest_attempt()
    attempt = read_attempt(keeper.layout, number)
    entries = keeper.journal.entries()
    if attempt is None:
        return ""
    its = [entry for entry in entries if entry.get("attempt") == number]
    if last(its, "attempt_started") is None and not keeper.layout.ranks(number):
        # Recorded, but its supervisor died before the journal said so: nothing was started.
        keeper.layout.attempt(number).unlink(missing_ok=True)
        return ""
    ended = last(its, "attempt_ended")
    if ended is not None:
        if keeper.state.state in ACTIVE:
            keeper.publish(state=str(ended.get("outcome")), text=str(ended.get("text", "")), worker=None)
        return ""
    keeper.seen_start = False
    keeper.watch = Watch(keeper.layout, attempt, journaled(entries, number))
    comparable = keeper.before is not None and keeper.machine.sees_pids_of(keeper.before.machine)
    worker = keeper.state.worker if comparable and keeper.state.attempt == number else None
    keeper.state = keeper.state.but(attempt=number, attempt_uuid=attempt.uuid, worker=worker)
    if attempt.nnodes > 1 and _waits(keeper, attempt, cwd_of(entries)):
        keeper.publish(state=STARTING)
        return f"attempt {number}: still waiting for its hosts"
    return _processes(keeper, number)


def _waits(keeper: Keeper, attempt: Attempt, cwd: str | None) -> bool:
    """Tell whether the attempt still waits for hosts; one that was led elsewhere cannot be led from here."""
    try:
        return keeper.hosts.begin(attempt, cwd)
    except UserError as error:
        keeper.say(str(error))
        return False


def _processes(keeper: Keeper, number: int) -> str:
    """Take up the attempt's living processes, if there are any."""
    found = keeper.find_members() or stacks.processes_of(keeper.layout, number)
    if not found:
        return f"attempt {number}: no process of it is left"
    if not alive(keeper.state.worker):
        keeper.state = keeper.state.but(worker=min(found, key=lambda ref: ref.created))
    keeper.publish(state=STARTING)
    keeper.read_watch()
    return f"attempt {number}: adopted {len(found)} processes, first {found[0].pid}"
