"""What happened to runs, one line an event: the journal and what every rank reported, oldest first."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from nantui.commands import common
from nantui.errors import UserError
from nantui.run.discovery import require_run
from nantui.run.events import KINDS, Event, document_of, parse_lines
from nantui.run.growing_files import LineFollower
from nantui.run.layout import RunLayout
from nantui.terminal_text import escaped_json, printable

VERSION = 1
"""Of the documents that `--json` prints; what a later version adds, a reader of this one may leave out."""
POLL_S = 0.5
UNSPOKEN = "phase"
"""Said many times an epoch, for machines: people are not shown it."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `nantui events` takes."""
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="the runs")
    parser.add_argument("--follow", action="store_true", help="go on with what comes, until Ctrl-C")
    common.add_list(parser, "--kind", "KIND", "only these kinds, e.g. incident warning saved")
    parser.add_argument("--attempt", type=int, metavar="N", help="only those of attempt N")
    parser.add_argument("--json", action="store_true", help="one JSON document a line on stdout")


@dataclass(frozen=True)
class Told:
    """An event and the run that it is about."""

    run: Path
    event: Event


class EventFollower:
    """Reads the new events of one run; attempts and ranks that appear later are followed too."""

    def __init__(self, layout: RunLayout) -> None:
        self.layout = layout
        self._files: dict[Path, LineFollower] = {}

    def read(self) -> Iterator[Told]:
        """Yield what was written since the last call, file by file."""
        for path in self._paths():
            follower = self._files.setdefault(path, LineFollower(path))
            more = True
            while more:
                new = follower.read()
                more = new.more
                yield from (Told(self.layout.run, event) for event in parse_lines(new.lines))

    def _paths(self) -> Iterator[Path]:
        yield self.layout.journal
        for number in self.layout.attempt_numbers():
            for rank in self.layout.ranks(number):
                yield self.layout.events(number, rank)


def run(arguments: argparse.Namespace) -> int:
    """Print the events that there are and, with --follow, those that come."""
    if unknown := set(arguments.kind) - set(KINDS):
        raise UserError(f"no kind {', '.join(sorted(unknown))}; there are {', '.join(sorted(KINDS))}")
    followers = [EventFollower(require_run(path)) for path in arguments.runs]
    say = as_json if arguments.json else as_text
    while True:
        for told in in_order(followers):
            if wanted(arguments, told.event):
                print(say(told), flush=arguments.follow)
        if not arguments.follow:
            return 0
        time.sleep(POLL_S)


def wanted(arguments: argparse.Namespace, event: Event) -> bool:
    """Tell whether an event is among those asked for."""
    if arguments.attempt not in (None, event.attempt):
        return False
    return event.kind in arguments.kind if arguments.kind else arguments.json or event.kind != UNSPOKEN


def in_order(followers: Sequence[EventFollower]) -> list[Told]:
    """Return what is new in all runs, oldest first."""
    return sorted((told for one in followers for told in one.read()), key=lambda told: told.event.t)


def as_json(told: Told) -> str:
    """Return one event as a line of JSON."""
    document = {"version": VERSION, "run": str(told.run), **document_of(told.event)}
    return escaped_json(json.dumps(document))


def as_text(told: Told) -> str:
    """Return one event as a line for people: when, which run, where, what."""
    event = told.event
    when = datetime.fromtimestamp(event.t).strftime("%Y-%m-%d %H:%M:%S") if event.t else "-" * 19
    places = (("attempt", event.attempt), *((name, getattr(event, name, None)) for name in ("epoch", "step")))
    where = ", ".join(f"{name} {value}" for name, value in places if value is not None)
    parts = (when, told.run.name, event.kind.replace("_", " "), where, event.text)
    return "  ".join(printable(part) for part in parts if part)
