"""What the supervisor of a run on several hosts does beside its own ranks: it gathers the others, watches
over them, waits for them, and says which of them ended an attempt.

When one host breaks off, the ranks of all others only tell of a lost connection.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict

from nantui.machine.process_identity import host_id
from nantui.run.atomic_files import write_json
from nantui.run.attempts import FAILED, Attempt, read_exits
from nantui.run.endings import ECHO
from nantui.run.layout import RunLayout
from nantui.run.spec import Spec
from nantui.supervisor.config import Patience
from nantui.supervisor.hosts import reports
from nantui.supervisor.hosts.consistency import gather_facts
from nantui.supervisor.hosts.endpoint import interface_towards, open_endpoint
from nantui.supervisor.hosts.reports import DIFFERS, ENDED, POLL_EVERY_S, READY, TRAINING, Report, Roster
from nantui.supervisor.launch import start_leading_node

Clock = Callable[[], float]


def blame(layout: RunLayout, roster: Roster) -> str:
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
        names = ", ".join(dict.fromkeys(hosts[rank] for rank in gone))
        ranks = ", ".join(map(str, gone))
        return f"host {names}: rank {ranks} ended without a word, or the connection was cut ({reasons[0]})"
    return ""


class Lead:
    """Gathers the hosts of one attempt, then watches over them. One thread."""

    def __init__(
        self, layout: RunLayout, attempt: Attempt, patience: Patience, clock: Clock = time.monotonic
    ):
        self.layout, self.attempt, self.patience = layout, attempt, patience
        self.roster = reports.read_roster(layout, attempt.attempt)
        self.text = self._missing(attempt.nnodes - 1) if self.roster is None else ""
        self._clock, self._silence = clock, reports.Silence(clock)
        self._looked = -POLL_EVERY_S
        self._ended_since: float | None = None
        self._listener: socket.socket | None = None
        if self.roster is None:
            self._listener, _ = open_endpoint(attempt.endpoint)

    @property
    def gathering(self) -> bool:
        return self.roster is None

    def due(self) -> bool:
        """Tell whether it is time to look again: the files may lie on a slow disk."""
        now = self._clock()
        if now - self._looked < POLL_EVERY_S:
            return False
        self._looked = now
        return True

    def gather(self) -> Roster | None:
        """Return the roster, written down, once enough hosts are ready; says in `text` what is missing."""
        every = [report for report in reports.read_reports(self.layout) if self._heard(report)]
        own = host_id()  # which has a report where it had joined while another host led
        mine = [report for report in every if report.host != own and report.uuid == self.attempt.uuid]
        ready = [report for report in mine if report.state == READY]
        missing = self.attempt.nnodes - 1
        if len(ready) < missing:
            differ = [f"; {report.host}: {report.text}" for report in mine if report.state == DIFFERS]
            self.text = self._missing(missing - len(ready)) + "".join(differ)
            return None
        others = sorted(ready, key=lambda report: report.host)[:missing]
        seats = [reports.Seat(host_id(), 0, self.attempt.devices)]
        seats += [reports.Seat(report.host, node, report.devices) for node, report in enumerate(others, 1)]
        self.roster = Roster(self.attempt.attempt, self.attempt.uuid, tuple(seats))
        write_json(self.layout.roster(self.roster.attempt), asdict(self.roster))  # the agents begin
        self.text = ""
        return self.roster

    def _missing(self, count: int) -> str:
        return f"waiting for {count} of {self.attempt.nnodes} hosts"

    def hand_over(self) -> int:
        """Return the descriptor of the listening socket, for the launcher; `close` ends our own part."""
        assert self._listener is not None, "an attempt is launched once"
        return self._listener.fileno()

    def close(self) -> None:
        """Listen no longer; what the launcher inherited stays open."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def failure(self) -> str:
        """Return why this host must end its part, empty while all is well.

        A host whose processes have ended gives ours a moment to end by themselves, as after an agreed stop.
        """
        for seat in self._others():
            report = reports.read_report(self.layout, seat.host)
            there = report is not None and report.uuid == self.attempt.uuid
            if report is None or not there or report.state not in (READY, TRAINING, ENDED):
                return f"host {seat.host} has left"
            if report.state == ENDED and report.text:
                return f"host {seat.host}: {report.text}"
            if report.state == ENDED:
                return self._after_end(seat.host)
            quiet_s = self._silence.quiet_s(seat.host, report.heartbeat)
            if quiet_s > self.patience.host_silent_s:
                return f"host {seat.host} has been silent for {quiet_s:.0f} s: dead, or cut off"
        return ""

    def still_there(self) -> list[str]:
        """Return the hosts whose part of the attempt has not ended yet, as far as they tell."""
        found = []
        for seat in self._others():
            report = reports.read_report(self.layout, seat.host)
            if report and report.uuid == self.attempt.uuid and report.state in (READY, TRAINING):
                found += [seat.host] if self._heard(report) else []
        return found

    def _others(self) -> tuple[reports.Seat, ...]:
        return self.roster.seats[1:] if self.roster else ()

    def _heard(self, report: Report) -> bool:
        return self._silence.heard(report, self.patience.host_silent_s)

    def _after_end(self, host: str) -> str:
        self._ended_since = self._ended_since or self._clock()
        if self._clock() - self._ended_since < self.patience.host_grace_s:
            return ""
        return f"host {host}: its processes have ended"


class Leading:
    """The supervisor's hand on the other hosts; without any, every question is answered at once."""

    def __init__(self, layout: RunLayout, patience: Patience, pids: Callable[[], list[int]]) -> None:
        self._layout, self._patience, self._pids = layout, patience, pids
        self._lead: Lead | None = None
        self._ended: Lead | None = None
        self._waiting = Waiting(layout, patience)
        self._sampling: reports.Sampling | None = None
        self._cwd: str | None = None
        self.note = ""

    @property
    def gathering(self) -> bool:
        return self._lead is not None and self._lead.gathering

    @property
    def text(self) -> str:
        """Who is missing, empty when nobody is."""
        return self._lead.text if self._lead else ""

    def begin(self, attempt: Attempt, cwd: str | None) -> bool:
        """Wait for the hosts of `attempt`; False when they were there already, before an adoption.

        Raises UserError when nothing can listen on its endpoint.
        """
        # This host may have been an agent of an earlier attempt.
        with contextlib.suppress(OSError):
            os.unlink(reports.home_of(self._layout, host_id()) / reports.AGENT_NAME)
        self._lead, self._cwd = Lead(self._layout, attempt, self._patience), cwd
        self._waiting.reset()
        self._sampling = self._sampling or reports.Sampling(self._layout, self._pids)
        return self.gathering

    def gather(self) -> subprocess.Popen[bytes] | None:
        """Start this host's ranks once enough hosts are ready; returns the launcher then, with a `note`."""
        lead = self._lead
        if lead is None or not lead.gathering or not lead.due():
            return None
        roster = lead.gather()
        if roster is None:
            return None
        self.note = "hosts: " + ", ".join(f"{seat.host} (ranks: {seat.devices})" for seat in roster.seats)
        way = interface_towards(lead.attempt.endpoint)
        child = start_leading_node(self._layout, lead.attempt, self._cwd, way, lead.hand_over())
        lead.close()
        return child

    def failure(self) -> str:
        """Return why another host ends this attempt, empty while none does."""
        lead = self._lead
        return "" if lead is None or lead.gathering or not lead.due() else lead.failure()

    def blame(self) -> str:
        """Return what happened on another host, once this host's ranks have ended; empty if nothing did."""
        roster = self._lead.roster if self._lead else None
        return blame(self._layout, roster) if roster else ""

    def end(self) -> None:
        """The attempt is over here: listen no longer. What its hosts still do is asked with `still_there`."""
        if self._lead is not None:
            self._lead.close()
            self._ended, self._lead = self._lead, None

    def still_there(self) -> list[str]:
        """Return the hosts on which processes of the attempt that ended last still live."""
        return self._ended.still_there() if self._ended else []

    def wanted(self) -> bool:
        """Tell whether agents wait for a next attempt, so that the supervisor has to stay."""
        return self._ended is not None and self._waiting.anybody()

    def dismiss(self) -> int:
        """Send the waiting agents home: they leave once nobody holds the run. Returns how many there are."""
        count = len(reports.read_reports(self._layout)) if self.wanted() else 0
        self._waiting.dismissed = True
        return count


class Waiting:
    """Tells whether agents wait for the run's next attempt, so that the supervisor stays for them."""

    def __init__(self, layout: RunLayout, patience: Patience) -> None:
        self._layout, self._patience = layout, patience
        self._silence = reports.Silence()
        self._since: float | None = None
        self._answer = False
        self._looked = -POLL_EVERY_S
        self.dismissed = False

    def reset(self) -> None:
        """An attempt runs: the time in which nothing does begins anew after it."""
        self._since, self.dismissed = None, False

    def anybody(self) -> bool:
        """Tell whether an agent is there and may still be needed."""
        now = time.monotonic()
        self._since = self._since or now
        if self.dismissed or now - self._since > self._patience.hosts_wait_s:
            return False
        if now - self._looked >= POLL_EVERY_S:
            self._looked = now
            # All are looked at: whoever is not would count as silent at the next look.
            within_s = self._patience.host_silent_s
            heard = [self._silence.heard(one, within_s) for one in reports.read_reports(self._layout)]
            self._answer = any(heard)
        return self._answer


def several(spec: Spec, pump: Callable[[float], None]) -> dict[str, object]:
    """Return what an attempt on several hosts records: where they meet, and what must be the same on all.

    Empty for one host. Raises UserError when nothing can listen there, or the interpreter gives no answer.
    """
    if spec.nnodes < 2:
        return {}
    facts = gather_facts(spec.train.get("data"), spec.python, None, pump)
    listener, endpoint = open_endpoint(spec.endpoint)
    listener.close()
    return {"nnodes": spec.nnodes, "endpoint": endpoint, "facts": facts}
