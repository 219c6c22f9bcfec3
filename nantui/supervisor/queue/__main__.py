"""The queue's process: `python -m nantui.supervisor.queue`. It starts what may start, and notes how it ended.

A start is written down before it is asked for: whoever comes after a SIGKILL finds the entry that was to go,
and asks again under the same id. The process ends when nothing is left to do.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace

from nantui.errors import FAILED, UserError
from nantui.machine.gpus import Sampler
from nantui.machine.process_identity import host_name
from nantui.run import commands
from nantui.run.commands import Command
from nantui.run.events import CommandReceived, of_kind
from nantui.run.journal import Journal
from nantui.run.spec import kept_environment, read_spec, write_spec
from nantui.run.status import FAILED as FAILED_STATE
from nantui.run.status import QUEUED, RunStatus
from nantui.supervisor.client import ensure_supervisor, submit
from nantui.supervisor.queue.devices import Turn, look
from nantui.supervisor.queue.entries import GOING, WAITING, Entry, Queue, read_queue, served, update
from nantui.supervisor.status import read_status, whether_over
from nantui.terminal_text import printable

POLL_S = 2.0
OVER_TWICE = 2
"""Between an end and what unattended recovery makes of it a run looks over for a moment."""


def main() -> int:
    """Serve the queue until nothing is left to do. Exit status 0, or 3 where another process does so."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        while True:
            with served() as held:
                if not held:
                    text = f"another process serves this user's queue on {host_name()}"
                    print(f"nantui queue: {text}", file=sys.stderr)
                    return FAILED
                service = Service()
                while service.one_round():
                    time.sleep(POLL_S)
            if not read_queue().busy:  # else somebody added a run just before the lock was given back
                return 0
    except UserError as error:
        print(f"nantui queue: {printable(error)}", file=sys.stderr)
        return error.status


class Service:
    """Starts what may start, and notes what has ended."""

    def __init__(self) -> None:
        kept = kept_environment()
        self._own = {name: value for name, value in os.environ.items() if name not in kept}
        """What no entry has written down: secrets, and what belongs to this process."""
        self._sampler = Sampler()
        self._asked: set[str] = set()
        self._over: dict[str, int] = {}

    def one_round(self) -> bool:
        """Look at everything once; False when nothing is left to do."""
        queue = read_queue()
        pids: set[int] = set()
        for entry in queue.in_state(GOING):
            pids.update(self._attend(entry, queue).pids)
        queue = read_queue()
        if not queue.paused and queue.in_state(WAITING):
            for turn in look(queue, self._sampler, pids):
                if turn.on:
                    with suppress(UserError, OSError):  # a full disk, a mount that is away: the next round
                        self._begin(turn, queue)
        return queue.busy

    def _begin(self, turn: Turn, queue: Queue) -> None:
        """Write down that it is this entry's turn, then start it, unless somebody else has done so."""
        entry = turn.entry
        status = read_status(entry.layout.run)
        going = replace(entry, state=GOING, on=list(turn.on), gets=turn.device)
        if not os.path.isdir(entry.run):
            update(entry, replace(entry, state=FAILED_STATE, text="its directory is not there any more"))
        elif status.state != QUEUED:
            text = f"not started from the queue: {status.text}"
            update(entry, replace(entry, state=status.state, text=text))
        elif update(entry, going):
            self._attend(going, queue)

    def _attend(self, entry: Entry, queue: Queue) -> RunStatus:
        """See that an entry's start was asked for and somebody carries it out; note how it has ended."""
        layout = entry.layout
        os.environ.clear()
        os.environ.update({**queue.environments.get(entry.environment, {}), **self._own})
        try:
            if entry.id not in self._asked:
                self._ask(entry)
                self._asked.add(entry.id)
            status, over = whether_over(layout)
            if not over:
                ensure_supervisor(layout)
        except (UserError, OSError) as error:
            status, over = RunStatus(layout.run, FAILED_STATE, text=str(error)), True
        self._over[entry.id] = self._over.get(entry.id, 0) + 1 if over else 0
        if self._over[entry.id] >= OVER_TWICE:
            update(entry, replace(entry, state=status.state, text=status.text))
        return status

    def _ask(self, entry: Entry) -> None:
        """Ask for the entry's start, unless an earlier process of the queue has."""
        layout = entry.layout
        # What waits is written into the journal before it goes: looked at in this order it is not missed.
        pending = [command.id for _, command in commands.pending_commands(layout)]
        begun = [one.command.id for one in of_kind(Journal(layout.journal).events(), CommandReceived)]
        if entry.id in (*pending, *begun):
            ensure_supervisor(layout)
            return
        options, spec = {"cwd": entry.cwd, "wait_gpu": True}, read_spec(layout.spec)
        if entry.gets and spec is not None and spec.exec:  # a script is not told by a setting
            variables = {**spec.exec["env"], "CUDA_VISIBLE_DEVICES": ",".join(entry.on)}
            write_spec(layout.spec, replace(spec, exec={**spec.exec, "env": variables}))
        elif entry.gets:
            options["set"] = {"device": entry.gets}
        submit(layout.run, Command("start", options, entry.id, t=entry.added))


if __name__ == "__main__":
    raise SystemExit(main())
