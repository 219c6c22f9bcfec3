"""The supervisor: `python -m nantui.supervise.main RUN`. One small process per run, in a session of its own.

It holds the run's lock, carries out the commands of the spool, watches the worker, and ends some seconds
after there is nothing left to do. It imports the standard library, psutil and yaml only.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from nantui.errors import FAILED, UserError
from nantui.run.layout import RunLayout
from nantui.run.spool import Command
from nantui.run.status import FAILED as FAILED_STATE
from nantui.run.status import LOST
from nantui.supervise import acts, phases, spools, transactions, unattended
from nantui.supervise.adoption import adopt
from nantui.supervise.carried import begun_before
from nantui.supervise.clean import printable
from nantui.supervise.config import Config, load_config
from nantui.supervise.keeper import Keeper, LostLock
from nantui.supervise.lock import RunLock
from nantui.supervise.processes import prepare_process

RETRY_S = 2.0


def main(argv: Sequence[str] | None = None) -> int:
    """Hold one run until nothing is left to do. Exit status 0, or 3 when somebody else holds it."""
    parser = argparse.ArgumentParser("nantui.supervise.main", description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--detach", action="store_true", help="return once the run is held")
    parser.add_argument("--take-over", action="store_true")
    arguments = parser.parse_args(argv)
    ready = detach() if arguments.detach else -1
    try:
        return hold(RunLayout(arguments.run.resolve()), ready, arguments.take_over)
    except UserError as error:
        tell_parent(ready, printable(error))
        print(f"nantui supervisor: {printable(error)}", file=sys.stderr)
        return error.status


def hold(layout: RunLayout, ready: int, take_over: bool) -> int:
    """Take the lock and serve; gives the lock back whatever happens."""
    config = load_config()
    lock = RunLock(layout.lock)
    holder = lock.acquire(take_over=take_over)
    if holder is not None:
        raise UserError(
            f"{layout.run} is held by process {holder.process.pid} on {holder.machine.host}", FAILED
        )
    prepare_process()
    try:
        keeper = Keeper(layout, lock, config)
        keeper.publish()
        tell_parent(ready, "")
        Service(keeper, config).serve()
        return 0
    except LostLock:
        print("nantui supervisor: the run was taken over; ending", file=sys.stderr)
        return FAILED
    finally:
        lock.release()


class Service:
    """Takes commands one after the other, and settles what ends by itself."""

    def __init__(self, keeper: Keeper, config: Config) -> None:
        self.keeper, self.config = keeper, config
        self.ending = False
        entries = keeper.journal.entries()
        self._done = {str(entry.get("id")) for entry in entries if entry["kind"] == "command_done"}
        self._begun = [entry["command"] for entry in entries if entry["kind"] == "command"]
        signal.signal(signal.SIGTERM, self._end)

    def serve(self) -> None:
        """Adopt what is there, then serve until nothing has been left to do for a while."""
        self._take_up()
        idle_since = time.monotonic()
        while not self.ending:
            busy = self._round_despite_disk() or self.keeper.watch is not None or self.keeper.hosts.wanted()
            idle_since = time.monotonic() if busy else idle_since
            if time.monotonic() - idle_since > self.config.patience.idle_exit_s and self._let_go():
                return
            self.keeper.pump(self.config.patience.tick_s)

    def _take_up(self) -> None:
        """Bring the run into a known state: an interrupted rollback, an attempt that another left."""
        keeper = self.keeper
        adopted = adopt(keeper)
        if adopted:
            gone = not keeper.worker_alive()
            keeper.journal.append("adopted", text=adopted)
            if gone:
                self._settle_unseen()
        try:
            if repaired := transactions.repair(keeper):
                keeper.journal.append("note", text=repaired)
        except UserError as error:
            keeper.publish(text=f"an interrupted rollback could not be put right: {error}")
        phases.follow_up(keeper)

    def _settle_unseen(self) -> None:
        outcome = self.keeper.settle().outcome
        if outcome == LOST:
            self.keeper.journal.append("lost", text=self.keeper.state.text)
        unattended.follow_up(self.keeper, outcome)
        phases.follow_up(self.keeper)

    def _round_despite_disk(self) -> bool:
        """A full disk or a file server that is away delays what is asked; it does not end the supervisor."""
        try:
            return self._one_round()
        except OSError as error:
            self.keeper.say(f"{type(error).__name__}: {error}; trying again")
            self.keeper.pump(RETRY_S)
            return True

    def _one_round(self) -> bool:
        """Settle an ended worker, carry out what waits; True when there was something to do."""
        keeper = self.keeper
        trouble = keeper.hosts.trouble() if keeper.watch is not None else ""
        if keeper.watch is not None and (trouble or not keeper.worker_alive()):
            try:
                unattended.follow_up(keeper, keeper.settle(because=trouble).outcome)
                phases.follow_up(keeper)
                return True
            except UserError as error:
                keeper.say(str(error))
        waiting = spools.pending(keeper.layout)
        for path, command in waiting[:1]:
            self._carry_out(command)
            path.unlink(missing_ok=True)
        return bool(waiting)

    def _carry_out(self, command: Command) -> None:
        """Carry out one command, once: whoever sent it twice gets one outcome."""
        keeper = self.keeper
        if command.id in self._done:
            return
        times = sum(entry.get("id") == command.id for entry in self._begun)
        document = asdict(command)
        keeper.journal.append("command", by=command.by, command=document)
        self._begun.append(document)
        keeper.publish(doing={"command": command.id, "kind": command.kind, "stage": "begun", "text": ""})
        try:
            text = begun_before(keeper, command.id) if times else ""
            if times > 1 and not text:
                raise UserError("given up: the supervisor died twice while carrying this out", FAILED)
            ok, text = True, text or acts.HANDLERS[command.kind](keeper, command)
        except UserError as error:
            ok, text = False, str(error)
        except (OSError, ValueError, KeyError, TypeError) as error:
            keeper.say(f"{command.kind} failed: {type(error).__name__}: {error}")
            ok, text = False, f"{type(error).__name__}: {error}"
        if not ok and command.kind == "start":
            self._show_refused_start(printable(text))
        self._finish(command, ok, printable(text))

    def _show_refused_start(self, text: str) -> None:
        """A run that was never started shows why, instead of starting for ever."""
        layout = self.keeper.layout
        if not layout.attempt_numbers() and not os.path.isfile(layout.args_yaml):
            self.keeper.publish(state=FAILED_STATE, text=text)

    def _finish(self, command: Command, ok: bool, text: str) -> None:
        self._done.add(command.id)
        self.keeper.record("command_done", id=command.id, command_kind=command.kind, ok=ok, text=text)
        self.keeper.publish(doing=None)

    def _let_go(self) -> bool:
        """Give the lock back, then look once more: a command may have come just before."""
        self.keeper.publish()
        self.keeper.lock.release()
        if not spools.pending(self.keeper.layout):
            return True
        return self.keeper.lock.acquire() is not None

    def _end(self, number: int, frame: object) -> None:
        self.ending = True


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
