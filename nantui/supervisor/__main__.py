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
from dataclasses import asdict
from pathlib import Path

from nantui import entry_points
from nantui.errors import FAILED, UserError
from nantui.machine.patient_output import print_patiently
from nantui.machine.process_tree import prepare_process
from nantui.run.binding import HERE, STARTS, STRANGE, standing
from nantui.run.commands import POLICY, Command, pending_commands
from nantui.run.events import CommandDone, CommandReceived, of_kind
from nantui.run.inside import refuse_links
from nantui.run.layout import RunLayout
from nantui.run.status import FAILED as FAILED_STATE
from nantui.run.status import LOST
from nantui.supervisor import after_attempt, handlers, recovery_helper
from nantui.supervisor.adoption import adopt
from nantui.supervisor.config import Config, load_config
from nantui.supervisor.handlers import begun_before
from nantui.supervisor.lock import RunLock
from nantui.supervisor.outcome import Ending
from nantui.supervisor.queue.entries import wake
from nantui.supervisor.supervisor import LostLock, Moved, Supervisor
from nantui.terminal_text import printable

RETRY_S = 2.0
ENDING = frozenset({"stop", "kill"})


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
    try:
        holder = lock.acquire(take_over=take_over)
    except OSError as error:
        raise UserError(f"{lock.path} cannot be written: {error.strerror}", FAILED) from error
    if holder is not None:
        raise UserError(
            f"{layout.run} is held by process {holder.process.pid} on {holder.machine.host}", FAILED
        )
    prepare_process()
    try:
        supervisor = Supervisor(layout, lock, config)
        supervisor.publish()
        tell_parent(ready, "")
        Service(supervisor, config).serve()
        return 0
    except Moved as moved:
        follow(lock, moved.place)
        return FAILED
    except LostLock:
        print("nantui supervisor: the run was taken over; ending", file=sys.stderr)
        return FAILED
    finally:
        with contextlib.suppress(OSError):  # a dead holder's lock is broken by whoever comes next
            lock.release()
        with contextlib.suppress(UserError):  # devices are free: others may wait for them in the queue
            wake()


def follow(lock: RunLock, place: Path | None) -> None:
    """Go on as the supervisor of the directory that the run has now; the worker stays its child."""
    if place is None:
        print("nantui supervisor: the run directory was deleted", file=sys.stderr)
        return
    print(f"nantui supervisor: the run lies in {printable(place)} now", file=sys.stderr, flush=True)
    RunLock(RunLayout(place).lock, token=lock.token).release()
    os.execv(sys.executable, [sys.executable, "-m", entry_points.SUPERVISOR, str(place)])


class Service:
    """Takes commands one after the other, and settles what ends by itself."""

    def __init__(self, supervisor: Supervisor, config: Config) -> None:
        self.supervisor, self.config = supervisor, config
        self.told = ""
        """The signal that asked this supervisor to end, and with it the training."""
        supervisor.write_waiting()
        events = supervisor.events()
        self._done = {done.id for done in of_kind(events, CommandDone)}
        self._begun = [received.command.id for received in of_kind(events, CommandReceived)]
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, self._end)

    def serve(self) -> None:
        """Adopt what is there, then serve until nothing has been left to do for a while."""
        self._take_up()
        idle_since = time.monotonic()
        while not self.told:
            supervisor = self.supervisor
            busy = (
                self._round_despite_disk()
                or supervisor.watch is not None
                or supervisor.hosts.wanted()
                or supervisor.unwritten
            )
            idle_since = time.monotonic() if busy else idle_since
            if time.monotonic() - idle_since > self.config.patience.idle_exit_s and self._let_go():
                return
            self.supervisor.pump(self.config.patience.tick_s)
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
        adopted = adopt(supervisor)
        if adopted:
            gone = not supervisor.worker_alive()
            supervisor.record("adopted", text=adopted)
            ending = supervisor.settle() if gone else None
            if ending is not None and ending.outcome == LOST:
                supervisor.record("lost", text=supervisor.state.text)
            if ending is not None:
                self._what_follows(ending)
        try:
            if repaired := recovery_helper.repair(supervisor):
                supervisor.record("note", text=repaired)
        except UserError as error:
            supervisor.publish(text=f"an interrupted rollback could not be put right: {error}")
        after_attempt.follow_up(supervisor)

    def _what_follows(self, ending: Ending) -> None:
        """Ask the policy and the plan, in the open: whoever waits for the end must not take this for it."""
        self.supervisor.publish(doing={"command": "", "kind": "auto", "stage": "", "text": "what follows?"})
        if not self.told:
            after_attempt.recover_unattended(self.supervisor, ending)
        after_attempt.follow_up(self.supervisor)
        self.supervisor.publish(doing=None)

    def _round_despite_disk(self) -> bool:
        """A full disk or a file server that is away delays what is asked; it does not end the supervisor."""
        try:
            return self._one_round()
        except OSError as error:
            self.supervisor.say(f"{type(error).__name__}: {error}; trying again")
            self.supervisor.pump(RETRY_S)
            return True

    def _one_round(self) -> bool:
        """Settle an ended worker, carry out what waits; True when there was something to do."""
        supervisor = self.supervisor
        failed_host = supervisor.hosts.failure() if supervisor.watch is not None else ""
        hung = supervisor.hung if supervisor.hung and after_attempt.is_automatic(supervisor) else ""
        if supervisor.watch is not None and (failed_host or hung or not supervisor.worker_alive()):
            try:
                self._what_follows(supervisor.settle(because=failed_host, hung=hung))
                return True
            except UserError as error:
                supervisor.say(str(error))
        waiting = pending_commands(supervisor.layout)
        for path, command in waiting[:1]:
            self._carry_out(command)
            path.unlink(missing_ok=True)
        return bool(waiting)

    def _carry_out(self, command: Command) -> None:
        """Carry out one command, once: whoever sent it twice gets one outcome."""
        supervisor = self.supervisor
        if command.id in self._done:
            return
        times = self._begun.count(command.id)
        # What only ends processes need not wait for a disk; anything else is on it before it is done.
        journal = supervisor.record if command.kind in ENDING else supervisor.journal.append
        journal("command", by=command.by, command=asdict(command))
        self._begun.append(command.id)
        supervisor.publish(doing={"command": command.id, "kind": command.kind, "stage": "begun", "text": ""})
        try:
            if command.kind in STARTS and standing(supervisor.layout.run) != HERE:
                raise UserError("not made here, and not agreed to: nothing that it names is started", FAILED)
            text = begun_before(supervisor, command.id) if times else ""
            if times > 1 and not text:
                raise UserError("given up: the supervisor died twice while carrying this out", FAILED)
            ok, text = True, text or handlers.HANDLERS[command.kind](supervisor, command)
        except UserError as error:
            ok, text = False, str(error)
        except (OSError, ValueError, KeyError, TypeError) as error:
            supervisor.say(f"{command.kind} failed: {type(error).__name__}: {error}")
            ok, text = False, f"{type(error).__name__}: {error}"
        if not ok and command.kind == "start":
            self._show_refused_start(printable(text))
        if not ok and command.by == POLICY:
            after_attempt.give_up(supervisor, supervisor.state.state, text)
        self._done.add(command.id)
        told = printable(text)
        supervisor.record("command_done", id=command.id, command_kind=command.kind, ok=ok, text=told)
        supervisor.publish(doing=None)

    def _show_refused_start(self, text: str) -> None:
        """A run that was never started shows why, instead of starting for ever."""
        layout = self.supervisor.layout
        if not layout.attempt_numbers() and not os.path.isfile(layout.args_yaml):
            self.supervisor.publish(state=FAILED_STATE, text=text)

    def _let_go(self) -> bool:
        """Give the lock back, then look once more: a command may have come just before."""
        self.supervisor.publish()
        self.supervisor.lock.release()
        if not pending_commands(self.supervisor.layout):
            return True
        return self.supervisor.lock.acquire() is not None

    def _end(self, number: int, frame: object) -> None:
        self.told = signal.Signals(number).name


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
