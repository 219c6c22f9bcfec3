"""What the hosts tell one another, as files of the run: an agent's report, the roster of an attempt.

Only files of this very user are believed: world size, hosts and endpoint decide what connects where.

GPU and host figures of this host, written where the cockpit on any other host finds them.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from nantui.machine.gpus import Sample, Sampler
from nantui.machine.process_identity import Machine, ProcessRef, host_id, ref_from
from nantui.run.atomic_files import read_json, read_own_json, write_json
from nantui.run.attempts import Attempt
from nantui.run.documents import known_fields
from nantui.run.layout import RunLayout
from nantui.run.status import HostStatus
from nantui.supervisor.hosts.endpoint import repeated

WAITING, READY, DIFFERS, TRAINING, ENDED, LEFT = "waiting", "ready", "differs", "training", "ended", "left"
POLL_EVERY_S = 0.5
"""How often the hosts look at one another's files: they may lie on a slow disk."""
AGENT_NAME, SAMPLE_NAME = "agent.json", "sample.json"
OLD_S = 60.0
EVERY_S = 2.0


@dataclass(frozen=True)
class Report:
    """An agent's word, hosts/ID/agent.json. `heartbeat` in s since the epoch; `code` is its launcher's."""

    host: str
    process: ProcessRef
    machine: Machine
    heartbeat: float = 0.0
    state: str = WAITING
    attempt: int | None = None
    uuid: str = ""
    device: str = ""
    devices: int = 1
    text: str = ""
    code: int | None = None


@dataclass(frozen=True)
class Seat:
    """One host's place in an attempt: `node` 0 leads, `devices` are its ranks."""

    host: str
    node: int
    devices: int


@dataclass(frozen=True)
class Roster:
    """Who takes part in an attempt: the word to begin."""

    attempt: int
    uuid: str
    seats: tuple[Seat, ...]

    def hosts_of_ranks(self) -> list[str]:
        return [seat.host for seat in self.seats for _ in range(seat.devices)]


def read_report(layout: RunLayout, host: str) -> Report | None:
    """Return a host's report, None where there is none of this user."""
    told = read_own_json(layout.hosts / host / AGENT_NAME) or {}
    return known_fields(Report, {**told, "host": host, "process": ref_from(told.get("process"))})


def write_report(layout: RunLayout, report: Report) -> None:
    """Write a host's report. Raises OSError."""
    write_json(layout.hosts / report.host / AGENT_NAME, {"format": 1, **asdict(report)})


def read_reports(layout: RunLayout) -> list[Report]:
    """Return what every host that ever took part reports, by name; without those that have left."""
    try:
        names = sorted(os.listdir(layout.hosts))
    except OSError:
        return []
    found = (read_report(layout, name) for name in names)
    return [report for report in found if report is not None and report.state != LEFT]


def read_roster(layout: RunLayout, attempt: int) -> Roster | None:
    """Return who takes part in an attempt, None while that is open (or says somebody else's file)."""
    return known_fields(Roster, read_own_json(layout.roster(attempt)))


def read_own_attempt(layout: RunLayout, number: int) -> Attempt | None:
    """Return the record of an attempt, where it is there and belongs to this user."""
    return known_fields(Attempt, read_own_json(layout.attempt(number)))


def host_rows(layout: RunLayout, attempt: int, leader: str) -> tuple[HostStatus, ...]:
    """Return the hosts of an attempt and those that wait, the leading one first, with their ranks."""
    roster = read_roster(layout, attempt)
    hosts = roster.hosts_of_ranks() if roster else []
    first = hosts[0] if hosts else leader

    def row(host: str, name: str, state: str, text: str = "") -> HostStatus:
        return HostStatus(name, state, tuple(rank for rank, its in enumerate(hosts) if its == host), text)

    others = [one for one in read_reports(layout) if one.host != first]
    return row(first, leader, "leads"), *(row(one.host, one.host, one.state, one.text) for one in others)


def samples_elsewhere(hosts: Path, here: str, now: float) -> tuple[tuple[str, Sample], ...]:
    """Return the newest samples that the agents of other hosts left in `hosts`, leaving out old ones."""
    found = []
    for path in sorted(hosts.glob(f"*/{SAMPLE_NAME}")):
        told = {**(read_json(path) or {}), "elsewhere": []}
        sample = known_fields(Sample, told) if path.parent.name != here else None
        if sample is not None and abs(now - sample.t) < OLD_S:
            found.append((path.parent.name, sample))
    return tuple(found)


def start_sampling(layout: RunLayout, pids: Callable[[], list[int]]) -> threading.Event:
    """Sample this host in a thread of its own, so that a slow driver or disk never holds up the heartbeat;
    returns what ends it.
    """
    home, sampler = layout.hosts / host_id(), Sampler(layout.run)

    def sample() -> None:
        # Without a disk there is nobody to show it to; the next sample comes.
        with contextlib.suppress(OSError):
            home.mkdir(parents=True, exist_ok=True)
            write_json(home / SAMPLE_NAME, asdict(sampler.sample(pids())))

    return repeated(sample, EVERY_S, "nantui-sampling")
