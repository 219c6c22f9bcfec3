"""A new supervisor takes up what an earlier one left: a training, an end nobody saw, hosts to wait for."""

from __future__ import annotations

from nantui.errors import UserError
from nantui.machine.process_identity import alive, this_machine
from nantui.run.attempts import Attempt, read_attempt
from nantui.run.events import AttemptEnded, AttemptStarted, Event, newest
from nantui.run.plan import after_the_end
from nantui.run.status import ACTIVE, STARTING
from nantui.supervisor.attempt_watch import Watch, journaled
from nantui.supervisor.launch import cwd_of
from nantui.supervisor.standstill import processes_of
from nantui.supervisor.supervisor import Supervisor
from nantui.words import count


def adopt(supervisor: Supervisor) -> str:
    """Find out what became of the attempt that an earlier supervisor left; returns a line for the journal.

    Empty when there was nothing to adopt or settle.
    """
    number = supervisor.layout.newest_attempt()
    attempt = read_attempt(supervisor.layout, number)
    if attempt is None:
        return ""
    events = supervisor.events()
    its = [event for event in events if event.attempt == number]
    if newest(its, AttemptStarted) is None and not supervisor.layout.ranks(number):
        # Recorded, but its supervisor died before the journal said so: nothing was started.
        supervisor.layout.attempt(number).unlink(missing_ok=True)
        return ""
    ended = newest(its, AttemptEnded)
    if ended is not None:
        if supervisor.state.state in ACTIVE:
            if not after_the_end(supervisor.layout.spec, events)[0]:
                supervisor.tell(ended.outcome, ended.text, attempt.uuid)
            supervisor.publish(state=ended.outcome, text=ended.text, worker=None)
        return ""
    _watch_again(supervisor, attempt, its)
    if attempt.nnodes > 1 and _waits(supervisor, attempt, cwd_of(events)):
        supervisor.publish(state=STARTING)
        return f"attempt {number}: still waiting for its hosts"
    found = supervisor.find_members() or processes_of(supervisor.layout, number)
    if not found:
        return f"attempt {number}: no process of it is left"
    if not alive(supervisor.state.worker):
        supervisor.state = supervisor.state.but(worker=min(found, key=lambda ref: ref.created))
    supervisor.publish(state=STARTING)
    supervisor.read_watch()
    return f"attempt {number}: adopted {count(len(found), 'process')}, first {found[0].pid}"


def _watch_again(supervisor: Supervisor, attempt: Attempt, its: list[Event]) -> None:
    """Follow the attempt, of which the journal has `its` events; its worker is known only on this machine."""
    supervisor.seen_start = False
    supervisor.watch = Watch(supervisor.layout, attempt, journaled(its))
    number, before = attempt.attempt, supervisor.before
    comparable = before is not None and this_machine().sees_pids_of(before.machine)
    worker = supervisor.state.worker if comparable and supervisor.state.attempt == number else None
    supervisor.state = supervisor.state.but(attempt=number, attempt_uuid=attempt.uuid, worker=worker)


def _waits(supervisor: Supervisor, attempt: Attempt, cwd: str | None) -> bool:
    """Tell whether the attempt still waits for hosts; one that was led elsewhere cannot be led from here."""
    try:
        return supervisor.hosts.begin(attempt, cwd)
    except UserError as error:
        supervisor.say(str(error))
        return False
