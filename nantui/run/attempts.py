"""Attempts: what each was asked to do, what its ranks saw, how they ended, and which of them live.

Which processes belong to an attempt is told by the mark in their environment, which every child inherits,
and by what the ranks registered, which names one for good also where an environment cannot be read. Whoever
acts on a run asks both.
"""

from __future__ import annotations

import contextlib
import re
import signal
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from nantui.machine.process_identity import Machine, ProcessRef, alive, this_machine
from nantui.run.atomic_files import read_json, read_text, write_json
from nantui.run.documents import JsonObject, known_fields
from nantui.run.events import Event, Registered, of_kind, parse_lines
from nantui.run.layout import RunLayout

FINISHED, STOPPED, DIVERGED, FAILED = "finished", "stopped", "diverged", "failed"
EXIT_CODES = {FINISHED: 0, STOPPED: 70, DIVERGED: 77, FAILED: 1}
STACKS = signal.SIGRTMIN + 6
"""What asks a rank for the stacks of its threads; glibc keeps the first two real-time signals for itself."""
COLLECTIVE = signal.SIGRTMIN + 7
"""What asks a rank for the collective that it is in; its answer stands in the log."""
COLLECTIVE_SAID = re.compile(r"flight recorder, rank (\d+): (.*)")
PREEMPTED_CODE = 75
"""EX_TEMPFAIL: the same command goes on from here, so that a batch system may queue it again."""


@dataclass(frozen=True)
class Attempt:
    """What the supervisor asks the worker to do; see docs/file-formats.md for each field."""

    attempt: int
    uuid: str
    created: float
    mode: str
    checkpoint: str | None
    train: dict[str, object]
    ours: dict[str, object]
    python: str
    devices: int = 1
    faults: list[JsonObject] = field(default_factory=list)
    argv: list[str] = field(default_factory=list)
    asked: dict[str, object] = field(default_factory=dict)
    probation_epochs: int = 0
    phase: JsonObject | None = None
    nnodes: int = 1
    endpoint: str = ""
    facts: JsonObject = field(default_factory=dict)
    marks: JsonObject = field(default_factory=dict)


@dataclass(frozen=True)
class RankExit:
    """How one rank ended; a rank without one was killed."""

    outcome: str
    rank: int
    pid: int
    code: int
    t: float
    epoch: int | None = None
    step: int | None = None
    text: str = ""
    incident: JsonObject | None = None
    checkpoint: str | None = None
    resumable: bool = False
    signal: str = ""


def write_attempt(layout: RunLayout, attempt: Attempt) -> None:
    """Put the attempt's record where the worker reads it."""
    layout.attempts.mkdir(parents=True, exist_ok=True)
    write_json(layout.attempt(attempt.attempt), asdict(attempt))


def read_attempt(layout: RunLayout, number: int) -> Attempt | None:
    """Return the record of attempt `number`, or None where there is none."""
    return known_fields(Attempt, read_json(layout.attempt(number)))


def write_exit(layout: RunLayout, number: int, ending: RankExit) -> None:
    """Record how a rank ended."""
    write_json(layout.exit(number, ending.rank), asdict(ending))


def read_exits(layout: RunLayout, number: int) -> list[RankExit]:
    """Return how the ranks of an attempt ended, rank 0 first; ranks that were killed are missing."""
    exits = (known_fields(RankExit, read_json(layout.exit(number, rank))) for rank in layout.ranks(number))
    return [ending for ending in exits if ending is not None]


def rank_events(path: Path) -> list[Event]:
    """Return the typed events of one rank, oldest first."""
    return parse_lines((read_text(path) or "").split("\n"))


def end_is_meant(request: Path) -> None:
    """Leave word, before ranks get signals, that these end them: else SIGTERM is a wish to stop in order, and
    one rank says so for the whole attempt. A disk that refuses it holds up nobody.
    """
    with contextlib.suppress(OSError):
        write_json(request, {"t": time.time()})


def registered(layout: RunLayout, attempt: int) -> dict[int, ProcessRef]:
    """Return the living ranks of an attempt by what they registered; only this machine can be looked at.

    A pid noted on another host, boot or container means nothing here; an unsaid part is no objection.
    """
    here, refs = this_machine(), dict[int, ProcessRef]()
    for rank in layout.ranks(attempt):
        for event in of_kind(rank_events(layout.events(attempt, rank)), Registered):
            boot, namespace = event.boot_id or here.boot_id, event.pid_namespace or here.pid_namespace
            same = here.sees_pids_of(Machine(here.host, boot, namespace))
            ref = ProcessRef(event.pid or 0, event.created, event.ticks)
            if same and ref.pid and ref.created and alive(ref):
                refs[rank] = ref
    return refs
