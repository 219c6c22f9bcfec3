"""What the supervisor of a run on several hosts does beside its own ranks: it gathers the others, watches
over them, waits for them, and says which of them ended an attempt.

When one host breaks off, the ranks of all others only tell of a lost connection.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict

from nantui.machine.process_identity import host_id
from nantui.run.atomic_files import write_json
from nantui.run.attempts import FAILED, Attempt, read_exits
from nantui.run.endings import ECHO
from nantui.run.layout import RunLayout
from nantui.run.spec import Spec
from nantui.supervisor.attempt_watch import Silence
from nantui.supervisor.config import Patience
from nantui.supervisor.hosts import reports
from nantui.supervisor.hosts.consistency import gather_facts
from nantui.supervisor.hosts.endpoint import interface_towards, open_endpoint
from nantui.supervisor.launch import start_worker


def blame(layout: RunLayout, roster: reports.Roster) -> str:
    """Return what happened on another host, empty where this host's own ranks know the reason."""
    hosts = roster.hosts_of_ranks()
    exits = {one.rank: one for one in read_exits(layout, roster.attempt)}
    own = [rank for rank, host in enumerate(hosts) if host == hosts[0]]
    reasons = [exits[rank].text for rank in own if rank in exits and exits[rank].outcome == FAILED]
    if any(not ECHO.search(text) for text in reasons):
        return ""
    for rank, host in enumerate(hosts):
        ended = exits.get(rank)
        if ended is not None and ended.outcome == FAILED and not ECHO.search(ended.text):
            return f"host {host}, rank {rank}: {ended.text}"
    gone = [rank for rank, host in enumerate(hosts) if rank not in exits and host != hosts[0]]
    if gone and reasons:
        away = dict.fromkeys(hosts[rank] for rank in gone)
        for host in away:
            report = reports.read_report(layout, host)
            if report is not None and report.state == reports.LEFT:
                return _left(host, report)
        names, ranks = ", ".join(away), ", ".join(map(str, gone))
        return f"host {names}: rank {ranks} ended without a word, or the connection was cut ({reasons[0]})"
    return ""


def _left(host: str, report: reports.Report | None) -> str:
    return f"host {host} has left" + (f": {report.text}" if report and report.text else "")


class Leading:
    """The supervisor's hand on the other hosts: it gathers those of an attempt, watches over them, and waits
    with them for the next one. Without any, every question is answered at once. One thread.
    """

    def __init__(self, layout: RunLayout, patience: Patience, pids: Callable[[], list[int]]) -> None:
        self._layout, self._patience, self._pids = layout, patience, pids
        self._attempt: Attempt | None = None
        self._roster: reports.Roster | None = None
        """Of the attempt that is led, or was led last."""
        self._leads = False
        self._listener: socket.socket | None = None
        self._sampling: threading.Event | None = None
        self._cwd: str | None = None
        self._silence = Silence()
        self._looked = -reports.POLL_EVERY_S
        self._somebody_waits = self._dismissed = False
        self.text = ""
        """Who is missing or silent, empty when nobody is."""
        self.note = ""

    @property
    def gathering(self) -> bool:
        return self._leads and self._roster is None

    def begin(self, attempt: Attempt, cwd: str | None) -> bool:
        """Wait for the hosts of `attempt`; False when they were there already, before an adoption.

        Raises UserError when nothing can listen on its endpoint.
        """
        # This host may have been an agent of an earlier attempt.
        with contextlib.suppress(OSError):
            os.unlink(self._layout.hosts / host_id() / reports.AGENT_NAME)
        roster = reports.read_roster(self._layout, attempt.attempt)
        self._listener = None if roster else open_endpoint(attempt.endpoint)[0]
        self._attempt, self._roster, self._leads, self._cwd = attempt, roster, True, cwd
        self._silence, self._looked = Silence(), -reports.POLL_EVERY_S
        self._dismissed = False
        self.text = "" if roster else _missing(attempt, attempt.nnodes - 1)
        self._sampling = self._sampling or reports.start_sampling(self._layout, self._pids)
        return self.gathering

    def gather(self) -> subprocess.Popen[bytes] | None:
        """Start this host's ranks once enough hosts are ready; returns the launcher then, with a `note`."""
        attempt = self._attempt
        if attempt is None or not self.gathering or not self._due():
            return None
        roster = self._roster_of(attempt)
        if roster is None:
            return None
        write_json(self._layout.roster(roster.attempt), asdict(roster))  # the agents begin
        self._roster, self.text = roster, ""
        self.note = "hosts: " + ", ".join(f"{seat.host} (ranks: {seat.devices})" for seat in roster.seats)
        assert self._listener is not None, "an attempt is launched once"
        way, listener = interface_towards(attempt.endpoint), self._listener.fileno()
        child = start_worker(self._layout, attempt, self._cwd, way, listener)
        self._close()
        return child

    def failure(self) -> str:
        """Return why another host ends this attempt, empty while none does.

        A host whose processes have ended gives ours a moment to end by themselves, as after an agreed stop.
        One that is silent is named early: a slow disk or a pause ends nothing.
        """
        if not self._leads or self.gathering or not self._due():
            return ""
        quiet: list[str] = []
        for host, report in self._others():
            if report is None or report.state not in (reports.READY, reports.TRAINING, reports.ENDED):
                return _left(host, report)
            if report.state == reports.ENDED:
                after_s = self._silence.quiet_s(f"{host}, ended", 0.0)
                text = "its processes have ended" if after_s >= self._patience.host_grace_s else ""
                return f"host {host}: {report.text or text}" if report.text or text else ""
            quiet_s = self._silence.quiet_s(host, report.heartbeat)
            if quiet_s > self._patience.host_silent_s:
                return f"host {host} has been silent for {quiet_s:.0f} s: dead, or cut off"
            quiet += [host] if quiet_s > self._patience.host_silent_s / 4 else []
        self.text = f"nothing heard of host {', '.join(quiet)}: slow, paused or dead" if quiet else ""
        return ""

    def blame(self) -> str:
        """Return what happened on another host, once this host's ranks have ended; empty if nothing did."""
        return blame(self._layout, self._roster) if self._leads and self._roster else ""

    def end(self) -> None:
        """The attempt is over here: listen no longer. What its hosts still do is asked with `still_there`."""
        self._close()
        self._leads, self.text = False, ""

    def still_there(self) -> list[str]:
        """Return the hosts on which processes of the attempt that ended last still live, as they tell."""
        living = ((host, report) for host, report in self._others() if report is not None)
        busy = (reports.READY, reports.TRAINING)
        return [host for host, one in living if one.state in busy and self._heard(one)]

    def wanted(self) -> bool:
        """Tell whether agents wait for a next attempt, and may still be needed: the supervisor stays then."""
        if self._attempt is None or self._leads or self._dismissed:
            return False
        if self._silence.quiet_s("", 0.0) > self._patience.hosts_wait_s:
            return False
        if self._due():
            # All are looked at: whoever is not would count as silent at the next look.
            self._somebody_waits = any([self._heard(one) for one in reports.read_reports(self._layout)])
        return self._somebody_waits

    def dismiss(self) -> int:
        """Send the waiting agents home: they leave once nobody holds the run. Returns how many there are."""
        count = len(reports.read_reports(self._layout)) if self.wanted() else 0
        self._dismissed = True
        return count

    def _roster_of(self, attempt: Attempt) -> reports.Roster | None:
        """Return who takes part, once enough hosts are ready; says in `text` what is missing."""
        own = host_id()  # which has a report where it had joined while another host led
        every = [report for report in reports.read_reports(self._layout) if self._heard(report)]
        mine = [report for report in every if report.host != own and report.uuid == attempt.uuid]
        ready = [report for report in mine if report.state == reports.READY]
        missing = attempt.nnodes - 1
        if len(ready) < missing:
            differ = [f"; {report.host}: {report.text}" for report in mine if report.state == reports.DIFFERS]
            self.text = _missing(attempt, missing - len(ready)) + "".join(differ)
            return None
        others = sorted(ready, key=lambda report: report.host)[:missing]
        seats = [reports.Seat(own, 0, attempt.devices)]
        seats += [reports.Seat(report.host, node, report.devices) for node, report in enumerate(others, 1)]
        return reports.Roster(attempt.attempt, attempt.uuid, tuple(seats))

    def _others(self) -> Iterator[tuple[str, reports.Report | None]]:
        """Yield each other host of the attempt, with its report where that is of this very attempt."""
        for seat in self._roster.seats[1:] if self._roster else ():
            report = reports.read_report(self._layout, seat.host)
            its = report is not None and self._attempt is not None and report.uuid == self._attempt.uuid
            yield seat.host, report if its else None

    def _heard(self, report: reports.Report) -> bool:
        return self._silence.quiet_s(report.host, report.heartbeat) < self._patience.host_silent_s

    def _due(self) -> bool:
        """Tell whether it is time to look again: the files may lie on a slow disk."""
        now = time.monotonic()
        due = now - self._looked >= reports.POLL_EVERY_S
        self._looked = now if due else self._looked
        return due

    def _close(self) -> None:
        """Listen no longer; what the launcher inherited stays open."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None


def _missing(attempt: Attempt, count: int) -> str:
    return f"waiting for {count} of {attempt.nnodes} hosts"


def several(spec: Spec, pump: Callable[[float], None]) -> dict[str, object]:
    """Return what an attempt on several hosts records, {} for one: where they meet, and what must be the same
    on all. Raises UserError when nothing can listen there, or the interpreter gives no answer.
    """
    if spec.nnodes < 2:
        return {}
    facts = gather_facts(spec.train.get("data"), spec.python, pump)
    listener, endpoint = open_endpoint(spec.endpoint)
    listener.close()
    return {"nnodes": spec.nnodes, "endpoint": endpoint, "facts": facts}
