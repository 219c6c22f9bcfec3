"""The leading host's view of the others: who is ready, who takes part, and whether they are still there."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from nantui.run.attempts import Attempt
from nantui.run.host import host_id
from nantui.run.layout import RunLayout
from nantui.supervise.config import Patience
from nantui.supervise.hosts import reports
from nantui.supervise.hosts.endpoint import open_endpoint
from nantui.supervise.hosts.reports import (
    DIFFERS,
    ENDED,
    LOOK_EVERY_S,
    READY,
    TRAINING,
    Report,
    Roster,
    Seat,
    Silence,
)

Clock = Callable[[], float]


class Lead:
    """Gathers the hosts of one attempt, then watches over them. One thread."""

    def __init__(
        self, layout: RunLayout, attempt: Attempt, patience: Patience, clock: Clock = time.monotonic
    ):
        self.layout, self.attempt, self.patience = layout, attempt, patience
        self.roster = reports.read_roster(layout, attempt.attempt)
        self.text = self._missing(attempt.nnodes - 1) if self.roster is None else ""
        self._clock, self._silence = clock, Silence(clock)
        self._looked = -LOOK_EVERY_S
        self._ended_since: float | None = None
        self._listener: socket.socket | None = None
        if self.roster is None:
            self._listener, _ = open_endpoint(attempt.endpoint)

    @property
    def gathering(self) -> bool:
        """Tell whether hosts are still missing."""
        return self.roster is None

    def due(self) -> bool:
        """Tell whether it is time to look again: the files may lie on a slow disk."""
        now = self._clock()
        if now - self._looked < LOOK_EVERY_S:
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
        seats = [Seat(host_id(), 0, self.attempt.devices)]
        seats += [Seat(report.host, node, report.devices) for node, report in enumerate(others, 1)]
        self.roster = Roster(self.attempt.attempt, self.attempt.uuid, tuple(seats))
        reports.write_roster(self.layout, self.roster)
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

    def trouble(self) -> str:
        """Return why this host must end its part, empty while all is well.

        A host whose processes have ended gives ours a moment to end by themselves, as after an agreed stop.
        """
        for seat in self._others():
            report = reports.read_report(self.layout, seat.host)
            if (
                report is None
                or report.uuid != self.attempt.uuid
                or report.state not in (READY, TRAINING, ENDED)
            ):
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

    def _others(self) -> tuple[Seat, ...]:
        return self.roster.seats[1:] if self.roster else ()

    def _heard(self, report: Report) -> bool:
        return self._silence.heard(report, self.patience.host_silent_s)

    def _after_end(self, host: str) -> str:
        self._ended_since = self._ended_since or self._clock()
        if self._clock() - self._ended_since < self.patience.host_grace_s:
            return ""
        return f"host {host}: its processes have ended"
