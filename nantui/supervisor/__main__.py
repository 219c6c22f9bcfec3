"""The supervisor: `python -m nantui.supervisor RUN`. One small process per run, in a session of its own.

It holds the run's lock, carries out the commands of the spool, watches the worker, and ends some seconds
after there is nothing left to do. It imports the standard library, psutil and yaml only.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from nantui import entry_points
from nantui.errors import FAILED, UserError, refused
from nantui.machine.patient_output import print_patiently
from nantui.machine.process_identity import ProcessRef, alive, ref_of, stat_of, this_machine
from nantui.machine.process_tree import prepare_process
from nantui.run.attempts import read_attempt, registered
from nantui.run.binding import HERE, STARTS, STRANGE, standing
from nantui.run.commands import ENDS, POLICY, Command, pending_commands
from nantui.run.endings import Traces
from nantui.run.events import AttemptEnded, AttemptStarted, CommandDone, CommandReceived, newest, of_kind
from nantui.run.inside import refuse_links
from nantui.run.layout import RunLayout
from nantui.run.plan import after_the_end
from nantui.run.status import ACTIVE, LOST, STARTING
from nantui.run.status import FAILED as FAILED_STATE
from nantui.supervisor import handlers, recovery
from nantui.supervisor.attempt_watch import Watch, journaled
from nantui.supervisor.config import load_config
from nantui.supervisor.handlers import begun_before
from nantui.supervisor.helper_process import POLL_S
from nantui.supervisor.launch import cwd_of
from nantui.supervisor.outcome import Ending
from nantui.supervisor.queue.entries import wake
from nantui.supervisor.state import RunLock
from nantui.supervisor.supervisor import LostRun, Supervisor
from nantui.terminal_text import printable
from nantui.words import count

RETRY_S = 2.0
GOING_ON = ("recover", "resume")


def main(argv: Sequence[str] | None = None) -> int:
    """Hold one run until nothing is left to do. Exit status 0, or 3 when somebody else holds it."""
    parser = argparse.ArgumentParser(entry_points.SUPERVISOR, description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--detach", action="store_true", help="return once the run is held")
    parser.add_argument("--take-over", action="store_true")
    arguments = parser.parse_args(argv)
    ready = detach() if arguments.detach else -1
    if arguments.detach:
        print_patiently()
    try:
        return hold(RunLayout(arguments.run.resolve()), ready, arguments.take_over)
    except UserError as error:
        tell_parent(ready, printable(error))
        print(f"nantui supervisor: {printable(error)}", file=sys.stderr)
        return error.status


def hold(layout: RunLayout, ready: int, take_over: bool) -> int:
    """Take the lock and serve; gives the lock back whatever happens."""
    config = load_config()
    refuse_links(layout)
    lock = RunLock(layout.lock)
    with refused(f"{lock.path} cannot be written"):
        holder = lock.acquire(take_over=take_over)
    if holder is not None:
        raise UserError(
            f"{layout.run} is held by process {holder.process.pid} on {holder.machine.host}", FAILED
        )
    prepare_process()
    try:
        supervisor = Supervisor(layout, lock, config)
        supervisor.publish()
        tell_parent(ready, "")
        try:
            Service(supervisor).serve()
        finally:
            if supervisor.waiting is not None:
                supervisor.waiting.end()
        return 0
    except LostRun as lost:
        print(f"nantui supervisor: {printable(lost)}", file=sys.stderr, flush=True)
        if lost.place is not None:  # go on as the supervisor of that directory; the worker stays its child
            RunLock(RunLayout(lost.place).lock, token=lock.token).release()
            os.execv(sys.executable, [sys.executable, "-m", entry_points.SUPERVISOR, str(lost.place)])
        return FAILED
    finally:
        with contextlib.suppress(OSError):  # a dead holder's lock is broken by whoever comes next
            lock.release()
        with contextlib.suppress(UserError):  # devices are free: others may wait for them in the queue
            wake()


class Service:
    """Takes commands one after the other, and settles what ends by itself."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.told = ""
        """The signal that asked this supervisor to end, and with it the training."""
        supervisor.write_waiting()
        events = supervisor.events()
        self._done = {done.id for done in of_kind(events, CommandDone)}
        self._begun = [received.command.id for received in of_kind(events, CommandReceived)]
        self._overtaken = set[str]()
        self._left: Ending | None = None
        """The end that the policy has left to what a person asked for."""
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._end)

    def serve(self) -> None:
        """Adopt what is there, then serve until nothing has been left to do for a while."""
        self._take_up()
        idle_since = time.monotonic()
        while not self.told:
            supervisor = self.supervisor
            try:
                busy = self._one_round()
            except OSError as error:  # a full disk, a file server that is away: later
                supervisor.say(f"{type(error).__name__}: {error}; trying again")
                supervisor.pump(RETRY_S)
                busy = True
            stays = supervisor.watch or supervisor.waiting or supervisor.hosts.wanted()
            if busy or stays or supervisor.unwritten:
                idle_since = time.monotonic()
            if time.monotonic() - idle_since > supervisor.patience.idle_exit_s and self._let_go():
                return
            supervisor.pump(POLL_S if supervisor.waiting else supervisor.patience.tick_s)
        # Whoever ends this process (systemd, docker stop, a batch system) wants the host back.
        if self.supervisor.watch is not None:
            self._carry_out(Command("stop", {"signal": self.told}, by=self.told))

    def _take_up(self) -> None:
        """Bring the run into a known state: an interrupted rollback, an attempt that another left.

        A run that was made elsewhere is left as it is: nothing in it was begun by this user, here.
        """
        supervisor = self.supervisor
        if standing(supervisor.layout.run) == STRANGE:
            return
        if adopted := adopt(supervisor):
            gone = not supervisor.worker_alive()
            supervisor.record("adopted", text=adopted)
            if gone:
                ending = supervisor.settle()
                if ending.outcome == LOST:
                    supervisor.record("lost", text=supervisor.state.text)
                self._what_follows(ending)
        try:
            if repaired := recovery.repair(supervisor):
                supervisor.record("note", text=repaired)
        except UserError as error:
            supervisor.publish(text=f"an interrupted rollback could not be put right: {error}")
        recovery.follow_up(supervisor)

    def _what_follows(self, ending: Ending) -> None:
        """Ask the policy and the plan, in the open: whoever waits for the end must not take this for it."""
        self.supervisor.publish(doing={"command": "", "kind": "ended", "stage": "", "text": "what follows?"})
        withdrew = not self.told and recovery.recover_unattended(self.supervisor, ending)
        self._left = ending if withdrew else None
        recovery.follow_up(self.supervisor)
        self.supervisor.publish(doing=None)

    def _one_round(self) -> bool:
        """Settle an ended worker, carry out what waits; True when there was something to do."""
        supervisor = self.supervisor
        failed_host = supervisor.hosts.failure() if supervisor.watch is not None else ""
        hung = supervisor.hung if supervisor.hung and recovery.is_automatic(supervisor) else ""
        if supervisor.watch is not None and (failed_host or hung or not supervisor.worker_alive()):
            try:
                self._what_follows(supervisor.settle(Traces(elsewhere=failed_host, hung=hung)))
                return True
            except UserError as error:
                supervisor.say(str(error))
        waiting = pending_commands(supervisor.layout)
        for path, command in waiting[:1]:
            self._carry_out(command)
            path.unlink(missing_ok=True)
        if not waiting and self._left is not None and supervisor.watch is None:
            self._what_follows(self._left)
        return bool(waiting)

    def _carry_out(self, command: Command) -> None:
        """Carry out one command, once: whoever sent it twice gets one outcome."""
        supervisor = self.supervisor
        if command.id in self._done:
            return
        times = self._begun.count(command.id)
        # What only ends processes need not wait for a disk; anything else is on it before it is done.
        journal = supervisor.record if command.kind in ENDS else supervisor.journal.append
        journal("command", by=command.by, command=asdict(command))
        self._begun.append(command.id)
        supervisor.publish(doing={"command": command.id, "kind": command.kind, "stage": "begun", "text": ""})
        try:
            if command.kind in STARTS and standing(supervisor.layout.run) != HERE:
                raise UserError("not made here, and not agreed to: nothing that it names is started", FAILED)
            if command.id in self._overtaken:  # it would end the healthy training that the first one began
                raise UserError("another recovery came first; look at the run before you recover", FAILED)
            text = begun_before(supervisor, command.id) if times else ""
            if not text and command.kind in (GOING_ON if supervisor.watch is None else ("recover",)):
                supervisor.bring_up()
            if times > 1 and not text:
                raise UserError("given up: the supervisor died twice while carrying this out", FAILED)
            ok, text = True, text or handlers.HANDLERS[command.kind](supervisor, command)
        except UserError as error:
            ok, text = False, str(error)
        except (OSError, ValueError, KeyError, TypeError) as error:
            supervisor.say(f"{command.kind} failed: {type(error).__name__}: {error}")
            ok, text = False, f"{type(error).__name__}: {error}"
        refused = not ok and command.kind in ("start", "resume") and not supervisor.layout.attempt_numbers()
        if refused and (handlers.made_by_us(supervisor) or not os.path.isfile(supervisor.layout.args_yaml)):
            supervisor.publish(state=FAILED_STATE, text=printable(text))  # it would be starting for ever
        if not ok and command.by == POLICY:
            recovery.give_up(supervisor, supervisor.state.state, text)
        if ok and command.kind == "recover":
            waiting = (one for _, one in pending_commands(supervisor.layout))
            self._overtaken |= {one.id for one in waiting if one.kind == command.kind}
        if ok and command.kind not in ("set", "quarantine"):
            self._left = None
        self._done.add(command.id)
        told = printable(text)
        supervisor.record("command_done", id=command.id, command_kind=command.kind, ok=ok, text=told)
        supervisor.publish(doing=None)

    def _let_go(self) -> bool:
        """Give the lock back, then look once more: a command may have come just before."""
        self.supervisor.publish()
        self.supervisor.lock.release()
        if not pending_commands(self.supervisor.layout):
            return True
        return self.supervisor.lock.acquire() is not None

    def _end(self, number: int, frame: object) -> None:
        self.told = signal.Signals(number).name


def adopt(supervisor: Supervisor) -> str:
    """Take up the attempt that an earlier supervisor left: a training, an end nobody saw, hosts to wait for;
    returns a line for the journal, empty when there was nothing to adopt or settle.
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
    supervisor.seen_start = False
    supervisor.watch = Watch(supervisor.layout, attempt, journaled(its))
    before = supervisor.before  # its worker is known only on this machine
    comparable = before is not None and this_machine().sees_pids_of(before.machine)
    worker = supervisor.state.worker if comparable and supervisor.state.attempt == number else None
    supervisor.state = replace(supervisor.state, attempt=number, attempt_uuid=attempt.uuid, worker=worker)
    try:
        waits = attempt.nnodes > 1 and supervisor.hosts.begin(attempt, cwd_of(events))
    except UserError as error:  # one that was led elsewhere cannot be led from here
        supervisor.say(str(error))
        waits = False
    if waits:
        supervisor.publish(state=STARTING)
        return f"attempt {number}: still waiting for its hosts"
    found = supervisor.find_members() or _unmarked(supervisor.layout, number)
    if not found:
        return f"attempt {number}: no process of it is left"
    if not alive(supervisor.state.worker):
        supervisor.state = replace(supervisor.state, worker=min(found, key=lambda ref: ref.created))
    supervisor.publish(state=STARTING)
    supervisor.read_watch()
    return f"attempt {number}: adopted {count(len(found), 'process')}, first {found[0].pid}"


def _unmarked(layout: RunLayout, attempt: int) -> list[ProcessRef]:
    """Return the process that trains in a script of the user's own, or the launcher of its ranks: no
    supervisor started it, it carries no mark and has only registered itself.
    """
    ranks = list(registered(layout, attempt).values())
    stat = stat_of(ranks[0].pid) if len(ranks) > 1 else None
    launcher = ref_of(stat.parent) if stat else None
    return [launcher] if launcher else ranks


def detach() -> int:
    """Become a process without terminal or parent; the parent waits for a word and exits with it.

    Returns the descriptor for `tell_parent`.
    """
    reader, writer = os.pipe()
    if os.fork():
        os.close(writer)
        with os.fdopen(reader, "rb") as pipe:
            word = pipe.read().decode()
        print(word, end="", flush=True)
        os._exit(0 if word == "" else FAILED)
    os.close(reader)
    os.dup2(2, 1)  # whoever reads our output would wait for its end
    os.setsid()
    os.chdir("/")
    return writer


def tell_parent(ready: int, word: str) -> None:
    """Let the waiting parent return: an empty word is success."""
    if ready >= 0:
        os.write(ready, word.encode())
        os.close(ready)


if __name__ == "__main__":
    raise SystemExit(main())
