"""A host's part in a run that another host leads: `python -m nantui.supervisor.hosts.agent RUN`.

It joins each attempt by itself, starts this host's ranks, and ends them when the run is over, when the
leading host says so, or when the endpoint cannot be reached any more. It acts on nothing but its own host.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from nantui import entry_points
from nantui.errors import FAILED, UserError
from nantui.machine.gpus import device_count
from nantui.machine.process_identity import ProcessRef, host_id, host_name, this_machine, this_process
from nantui.machine.process_tree import Leftover, end_all, members, prepare_process
from nantui.run.atomic_files import write_json
from nantui.run.attempts import FINISHED, Attempt, end_is_meant
from nantui.run.layout import RunLayout
from nantui.run.status import ACTIVE
from nantui.supervisor.attempt_watch import Silence
from nantui.supervisor.config import Config, Patience, load_config
from nantui.supervisor.hosts import consistency, reports
from nantui.supervisor.hosts.endpoint import Link, interface_towards
from nantui.supervisor.hosts.reports import DIFFERS, ENDED, LEFT, READY, TRAINING, WAITING
from nantui.supervisor.launch import start_joined_node
from nantui.supervisor.state import RunLock, SupervisorState, read_state
from nantui.terminal_text import printable
from nantui.words import count

CHECK_AGAIN_S = 15.0
WITNESS_TRIES = 60


class Agent:
    """Takes part in the attempts of one run, one after the other."""

    def __init__(self, layout: RunLayout, device: str, python: str | None, config: Config) -> None:
        self.layout, self.python, self.patience = layout, python, config.patience
        here = host_id(), this_process(), this_machine()
        self.report = reports.Report(*here, device=device, devices=device_count(device))
        self.leaving = False
        self._child: subprocess.Popen[bytes] | None = None
        self._link: Link | None = None
        self._silence = Silence()
        self._written = self._checked = 0.0
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
            signal.signal(number, self._leave)

    def serve(self) -> int:
        """Take part until the run needs this host no more. Returns 0 when it finished, else 1."""
        sampling = reports.start_sampling(self.layout, self.pids)
        try:
            while not self.leaving:
                state = read_state(self.layout.supervisor)
                if self._child is not None:
                    self._follow(state)
                elif self._over(state):
                    break
                else:
                    self._look_for_work(state)
                self.pump(reports.POLL_EVERY_S)
            self._end_in_order()
        finally:
            sampling.set()
            self._end("its agent broke off" if self._child else "")
            self.publish(state=LEFT)
        final = read_state(self.layout.supervisor)
        return 0 if final is not None and final.state == FINISHED else 1

    # what everybody sees

    def publish(self, **changes: Any) -> None:
        """Change the report and write it; a disk that is away is tried again at the next heartbeat."""
        self.report = replace(self.report, **changes, heartbeat=time.time())
        self._written = time.monotonic()
        try:
            reports.write_report(self.layout, self.report)
        except OSError as error:
            print(f"cannot write the report: {printable(error)}", flush=True)

    def pump(self, seconds: float) -> None:
        """Wait, showing that we live."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            if time.monotonic() - self._written > self.patience.heartbeat_s:
                self.publish()
            time.sleep(min(left, self.patience.tick_s))

    def pids(self) -> list[int]:
        roots = [self._child.pid] if self._child else []
        return [ref.pid for ref in members(mark_of(self.report), roots)]

    # joining

    def _look_for_work(self, state: SupervisorState | None) -> None:
        number = self.layout.newest_attempt()
        active = state is not None and state.state in ACTIVE and state.attempt == number
        leads = state is not None and state.machine.host == host_name()  # it joined while another host led
        attempt = reports.read_own_attempt(self.layout, number) if active and not leads else None
        if attempt is None or attempt.nnodes < 2:
            if self.report.state in (READY, DIFFERS):
                self.publish(state=WAITING, text="")
            return
        again = self.report.state == DIFFERS and time.monotonic() - self._checked > CHECK_AGAIN_S
        if attempt.uuid != self.report.uuid or again:
            self._check(attempt)
        elif self.report.state == READY:
            self._begin_when_called(attempt)

    def _check(self, attempt: Attempt) -> None:
        """Say whether this host can take part in an attempt that it has not seen before, or not in order."""
        self._checked = time.monotonic()
        if reports.read_roster(self.layout, attempt.attempt) is not None:
            state, text = WAITING, f"attempt {attempt.attempt} began without this host; it joins the next one"
        else:
            device, python = self.report.device, consistency.python_here(attempt, self.python)
            found = consistency.owners(self.layout, attempt.attempt)
            found = found or consistency.differences(attempt, device, python, self.pump)
            state, text = DIFFERS if found else READY, "; ".join(found)
        self.publish(state=state, attempt=attempt.attempt, uuid=attempt.uuid, text=text, code=None)

    def _begin_when_called(self, attempt: Attempt) -> None:
        roster = reports.read_roster(self.layout, attempt.attempt)
        seats = roster.seats if roster and roster.uuid == attempt.uuid else ()
        seat = next((one for one in seats if one.host == self.report.host), None)
        if seat is None:
            return
        python = consistency.python_here(attempt, self.python)
        log = self.layout.hosts / self.report.host / f"{attempt.attempt:03d}.log"
        here = replace(attempt, python=python, devices=seat.devices)
        way = interface_towards(attempt.endpoint)
        self._link = Link(attempt.endpoint, self.patience.heartbeat_s)
        self._child = start_joined_node(
            self.layout, here, seat.node, self.report.device, mark_of(self.report), way, log
        )
        self.publish(state=TRAINING, text="")

    # taking part

    def _follow(self, state: SupervisorState | None) -> None:
        assert self._child is not None and self._link is not None, "called while ranks run"
        if self._child.poll() is not None:
            self._end("")
        elif self._link.down_s() > self.patience.link_s:
            self._end(f"no connection to {self._link.endpoint} for {self._link.down_s():.0f} s")
        elif state is not None and (state.attempt != self.report.attempt or state.state not in ACTIVE):
            # The leading host says that the attempt is over: ranks that agreed to end are about to.
            over_s = self._silence.quiet_s(f"over {self.report.uuid}", 0.0)
            if over_s > self.patience.teardown_s:
                self._end("")

    def _end(self, reason: str) -> None:
        """End this host's processes of the attempt and say how."""
        if self._child is None:
            return
        child, number = self._child, self.report.attempt or 0
        left = end_ranks(
            self.layout, self.report,
            lambda: members(mark_of(self.report), [child.pid] if child.poll() is None else []), self.pump,
            self.patience.terminate_s, self.patience.die_s,
        )  # fmt: skip
        if self._link is not None:
            self._link.close()
        self._child = self._link = None
        text = reason or (f"{count(len(left), 'process')} not ended by SIGKILL: {left[0]}" if left else "")
        code = child.poll()
        ended = {"attempt": number, "t": time.time(), "code": code, "text": text}
        self.publish(state=ENDED, text=text, code=code)
        with contextlib.suppress(OSError):  # a full disk must not end the agent, whom the next attempt needs
            write_json(self.layout.hosts / self.report.host / f"{number:03d}.exit.json", ended)

    # leaving

    def _end_in_order(self) -> None:
        """Told to leave while its ranks run: they ask for the agreed stop of all, and have the grace time.

        torchrun hands SIGTERM on to them. Then the leading host may still be saving what they agreed on.
        """
        if (child := self._child) is None:
            return
        child.terminate()
        begun, patience = time.monotonic(), self.patience
        while child.poll() is None and time.monotonic() - begun < patience.grace_s:
            self.pump(patience.tick_s)
        self._end("")
        begun = time.monotonic()
        while time.monotonic() - begun < patience.host_grace_s:
            state = read_state(self.layout.supervisor)
            if state is None or state.state not in ACTIVE or state.attempt != self.report.attempt:
                break
            self.pump(patience.tick_s)

    def _over(self, state: SupervisorState | None) -> bool:
        """Tell whether nothing is to be expected: the run has finished, or nobody holds it any more."""
        if state is not None and state.state == FINISHED:
            return True
        held = self.layout.lock.exists()
        quiet_s = self._silence.quiet_s("held", float(held))
        beat_s = self._silence.quiet_s("lead", state.heartbeat if state else 0.0)
        return (not held and quiet_s > self.patience.host_grace_s) or beat_s > self.patience.rejoin_silent_s

    def _leave(self, number: int, frame: object) -> None:
        self.leaving = True


def leave_a_witness(layout: RunLayout, patience: Patience) -> None:
    """Have a small process beside this one say that it is gone and end its ranks, should it be killed.

    The witness waits at a pipe whose other end this process alone holds: only its end wakes it, no pause and
    no slow disk. Whatever kills both (the host's end, a control group's) leaves the silence to tell.
    """
    own, (reader, writer) = this_process(), os.pipe()
    if os.fork():
        os.close(reader)  # `writer` stays open for as long as this process lives
        return
    try:
        os.close(writer)
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        os.read(reader, 1)
        for _ in range(WITNESS_TRIES):  # the disk may be away
            report = reports.read_report(layout, host_id())
            if report is not None and (report.process != own or report.state == LEFT):
                break
            if report is not None:
                text = f"its agent, process {report.process.pid}, ended without a word"
                with contextlib.suppress(OSError):
                    reports.write_report(layout, replace(report, state=LEFT, text=text))
                left = partial(members, mark_of(report))  # it holds this host's GPUs
                end_ranks(layout, report, left, time.sleep, 0.0, patience.die_s)
            time.sleep(1.0)
    finally:
        os._exit(0)


def end_ranks(
    layout: RunLayout, report: reports.Report, find: Callable[[], list[ProcessRef]],
    pump: Callable[[float], None], grace_s: float, limit_s: float,
) -> list[Leftover]:  # fmt: skip
    """End this host's processes of the attempt as `end_all` does; its ranks are told that this is meant."""
    if report.attempt is not None and find():
        end_is_meant(layout.host_end_request(report.attempt, report.host))
    return end_all(find, pump, grace_s=grace_s, limit_s=limit_s)


def mark_of(report: reports.Report) -> str:
    """Return what a host's processes of the attempt carry, and no other host's; "" for no attempt."""
    return f"{report.host}@{report.uuid}" if report.uuid else ""


def hold(layout: RunLayout, device: str, python: str | None) -> int:
    """Be this host's only agent of the run until it needs none. Raises UserError where there is one."""
    home = layout.hosts / host_id()
    home.mkdir(parents=True, exist_ok=True)
    lock = RunLock(home / "lock")
    holder = lock.acquire()
    if holder is not None:
        raise UserError(
            f"process {holder.process.pid} takes part for host {host_id()} already (two hosts of one name? "
            "set NANTUI_HOST)",
            FAILED,
        )
    prepare_process()
    config = load_config()
    leave_a_witness(layout, config.patience)
    try:
        return Agent(layout, device, python, config).serve()
    finally:
        lock.release()


def main(argv: Sequence[str] | None = None) -> int:
    """Take part in a run. Exit status: 0 when it finished, 1 when it did not, 3 on refusal."""
    parser = argparse.ArgumentParser(entry_points.HOST_AGENT, description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--device", default="")
    parser.add_argument("--python", default=None)
    arguments = parser.parse_args(argv)
    try:
        return hold(RunLayout(arguments.run.resolve()), arguments.device, arguments.python)
    except UserError as error:
        print(f"nantui agent: {printable(error)}", file=sys.stderr)
        return error.status


if __name__ == "__main__":
    raise SystemExit(main())
