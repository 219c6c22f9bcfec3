"""How runs stand, what happens to them, and how they end: status, events, wait."""

from __future__ import annotations

import argparse
import json
import math
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from nantui.commands import common
from nantui.errors import FAILED, NO, UserError, refused
from nantui.run.atomic_files import write_atomic
from nantui.run.attempts import DIVERGED, EXIT_CODES, FINISHED, PREEMPTED_CODE, STOPPED
from nantui.run.commands import Command
from nantui.run.endings import Cause
from nantui.run.events import KINDS, Event, document_of, documents, parse
from nantui.run.growing_files import LineFollower
from nantui.run.layout import RunLayout, require_run
from nantui.run.results import EpochRow, Results
from nantui.run.status import HostStatus, RunStatus, as_prometheus
from nantui.terminal_text import escaped_json, printable
from nantui.ui.format import duration

VERSION = 1
"""Of the documents that `events --json` prints; what a later one adds, a reader of this one may leave out."""
UNSPOKEN = "phase"
"""An event said many times an epoch, for machines: people are not shown it."""
POLL_S, ENSURE_EVERY_S = 0.5, 5.0
TIMED_OUT = 124
PASSED_ON = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


def add_status(parser: argparse.ArgumentParser) -> None:
    common.add_directory(parser)
    log = "what a training prints that nantui did not start"
    parser.add_argument("--log", type=Path, metavar="FILE", help=log)
    metrics = "write Prometheus text there instead, for node_exporter's textfile collector"
    parser.add_argument("--metrics", type=Path, metavar="FILE", help=metrics)
    common.add_reader(parser)


def run_status(arguments: argparse.Namespace) -> int:
    """State, epoch, time to go, losses and last incident of a run, or of every run below a directory."""
    from nantui.supervisor.status import each_status, read_status

    top, log = common.existing(arguments.directory), arguments.log
    if log and not log.is_file():
        raise UserError(f"{log}: no such file; --log wants what the training prints")
    seen = [read_status(require_run(top).run, log=log)] if log else each_status(top)
    found = sorted(seen, key=lambda status: status.path)
    if arguments.metrics:
        with refused(f"cannot write {arguments.metrics}", "nothing was changed"):
            write_atomic(arguments.metrics, as_prometheus(found), mode=0o644)
    elif arguments.json:
        common.emit({"runs": [one.to_json() for one in found]})
    elif not found:
        common.say(f"no runs in {top.resolve()}; start one: nantui train model=… data=…")
    else:
        print("\n".join(line for one in found for line in describe(one)))
    return 0 if found else NO


def describe(status: RunStatus) -> list[str]:
    """Return the lines that tell a person where a run stands."""
    phase = f"phase {status.phase['number']} of {status.phase['of']}" if status.phase else ""
    epoch = f"epoch {status.epoch}/{status.epochs or '?'}{_in_all(status)}" if status.epoch else ""
    step = f"step {status.step}/{status.steps_per_epoch}" if status.step else ""
    losses = " ".join(f"{printable(name)} {value:.4g}" for name, value in status.losses.items())
    metric = status.metric.words if status.metric else ""
    begins = [f"{status.state:<10}", printable(status.path), phase, epoch, step]
    first = "  ".join(filter(None, [*begins, losses, metric, _to_go(status)]))
    more = [printable(status.text)] if status.text else []
    if status.doing:  # how far a command is, its time limit included
        doing = f"{status.doing.get('kind', '')}: {status.doing.get('text') or 'begun'}"
        more.insert(0, printable(doing))
    if status.guarded is False:
        more.append("unguarded, nothing keeps a NaN out of its weights: guard=off, or see nantui doctor")
    more += [printable(f"host {host.host}: {_part(host)}") for host in status.hosts]
    if incident := status.incident:
        where = f"epoch {incident.epoch}, step {incident.step}"
        more.append(printable(f"last incident: {incident.incident} at {where}: {incident.text}"))
    return [first, *(f"{'':<12}{line}" for line in more)]


def _in_all(status: RunStatus) -> str:
    before, total = ((status.phase or {}).get(name) for name in ("epochs_before", "epochs_in_all"))
    if before is None or status.epoch is None:
        return ""
    return f" ({before + status.epoch}/{total or '?'} of all phases)"


def _to_go(status: RunStatus) -> str:
    phase = status.phase or {}
    if status.eta_s is not None:
        return f"{duration(status.eta_s)} to go"
    if phase.get("eta_s") is None:
        return ""
    return f"{duration(phase['eta_s'])} to go in this phase, unknown for {phase['unknown']}"


def _part(host: HostStatus) -> str:
    ranks = f", ranks {host.ranks[0]}-{host.ranks[-1]}" if len(host.ranks) > 1 else ""
    ranks = ranks or (f", rank {host.ranks[0]}" if host.ranks else "")
    return f"{host.state}{ranks}" + (f": {host.text}" if host.text else "")


def add_events(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="the runs")
    common.add_flags(parser, follow="go on with what comes, until Ctrl-C")
    common.add_list(parser, "--kind", "KIND", "only these kinds, e.g. incident warning saved")
    parser.add_argument("--attempt", type=int, metavar="N", help="only those of attempt N")
    common.add_flags(parser, json="one JSON document a line on stdout")


def run_events(arguments: argparse.Namespace) -> int:
    """What happened to runs, one line an event: the journal and what every rank reported, oldest first."""
    if unknown := set(arguments.kind) - set(KINDS):
        raise UserError(f"no kind {', '.join(sorted(unknown))}; there are {', '.join(sorted(KINDS))}")
    layouts = [require_run(path) for path in arguments.runs]
    followers: dict[Path, LineFollower] = {}
    told: tuple[set[object], set[object]] = set(), set()
    say = _as_json if arguments.json else _as_text
    while True:
        new = ((layout.run, event) for layout in layouts for event in _new_events(layout, followers, told))
        for run, event in sorted(new, key=lambda told: told[1].t):
            if _wanted(arguments, event):
                print(say(run, event), flush=arguments.follow)
        if not arguments.follow:
            return 0
        time.sleep(POLL_S)


def _new_events(
    layout: RunLayout, followers: dict[Path, LineFollower], told: tuple[set[object], set[object]]
) -> Iterator[Event]:
    """Yield what is new, of attempts and ranks that appear later, too; what the journal has as well, once."""
    ranks = [(number, rank) for number in layout.attempt_numbers() for rank in layout.ranks(number)]
    own = [(layout.events(*place), dict(zip(("attempt", "rank"), place, strict=True))) for place in ranks]
    for path, place in ((layout.journal, {}), *own):
        for document in documents(followers.setdefault(path, LineFollower(path)).read_all()):
            event = parse({**document, **place} if isinstance(document, dict) else document)
            mark = event and (layout.run, event.kind, event.t, event.rank or 0)
            if event and mark not in told[not place]:
                told[bool(place)].add(mark)
                yield event


def _wanted(arguments: argparse.Namespace, event: Event) -> bool:
    if arguments.attempt not in (None, event.attempt):
        return False
    return event.kind in arguments.kind if arguments.kind else arguments.json or event.kind != UNSPOKEN


def _as_json(run: Path, event: Event) -> str:
    return escaped_json(json.dumps({"version": VERSION, "run": str(run), **document_of(event)}))


def _as_text(run: Path, event: Event) -> str:
    when = datetime.fromtimestamp(event.t).strftime("%Y-%m-%d %H:%M:%S") if event.t else "-" * 19
    places = (("attempt", event.attempt), *((name, getattr(event, name, None)) for name in ("epoch", "step")))
    where = ", ".join(f"{name} {value}" for name, value in places if value is not None)
    parts = (when, run.name, event.kind.replace("_", " "), where, event.text)
    return "  ".join(printable(part) for part in parts if part)


def add_wait(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run directories")
    timeout = f"give up after S seconds (status {TIMED_OUT})"
    parser.add_argument("--timeout", type=float, metavar="S", help=timeout)
    common.add_reader(parser)


def run_wait(arguments: argparse.Namespace) -> int:
    """Wait until runs have ended, a line an epoch, and return how: the exit status is the run's own."""
    followed = [Followed(require_run(run)) for run in dict.fromkeys(arguments.runs)]
    until = time.monotonic() + (math.inf if arguments.timeout is None else arguments.timeout)
    while not (over := all([one.look(arguments.json) for one in followed])) and time.monotonic() <= until:
        time.sleep(POLL_S)
    found = [one.status for one in followed]
    # The status is that of the first that did not finish.
    result = next(filter(None, map(exit_status, found)), 0) if over else TIMED_OUT
    if arguments.json:
        rows = [{**one.to_json(), "exit_status": exit_status(one)} for one in found]
        common.emit({"runs": rows, "exit_status": result})
    elif not over:
        common.say(f"not over after {arguments.timeout:g} s: {', '.join(str(one.path) for one in found)}")
    return result


def exit_status(status: RunStatus) -> int:
    """Return what a run's end means to a script; docs/commands.md has the table."""
    if Cause(status.ending).requeue:
        return PREEMPTED_CODE
    known = status.state in (FINISHED, STOPPED, DIVERGED)
    return EXIT_CODES[status.state] if known else FAILED


def foreground(run: Path, *, take_over: bool = False) -> int:
    """Stay with a run that was just started, and return its status. A signal is passed on: the run stops at
    an agreed step. A second Ctrl-C leaves it as it is.
    """
    from nantui.supervisor.client import ensure_supervisor, submit

    told: list[signal.Signals] = []
    for number in PASSED_ON:
        signal.signal(number, lambda number, frame: told.append(signal.Signals(number)))
    followed, asked, ensured = Followed(RunLayout(run)), False, time.monotonic()
    while not followed.look():
        if told and not asked:
            asked, interrupted = True, told[0] == signal.SIGINT
            in_order = "stopping in order; Ctrl-C again leaves it to its supervisor"
            common.say(in_order if interrupted else told[0].name)
            options = {} if interrupted else {"signal": told[0].name}
            submit(run, Command("stop", options), take_over=take_over)
        elif told.count(signal.SIGINT) > 1:
            raise KeyboardInterrupt
        if time.monotonic() - ensured > ENSURE_EVERY_S:
            ensured = time.monotonic()
            with suppress(UserError):  # another host's: it is looked at, and not acted on
                ensure_supervisor(followed.layout)
        time.sleep(POLL_S)
    return exit_status(followed.status)


class Followed:
    """One run: prints what is new of it at each look."""

    def __init__(self, layout: RunLayout) -> None:
        self.layout = layout
        self.status = RunStatus(layout.run, "")
        self._follower, self._results, self._said = LineFollower(layout.results_csv), Results(), ""
        self._told = set[tuple[int, float]]()
        while self._new_rows():  # one chunk after the other
            pass

    def look(self, quiet: bool = False) -> bool:
        """Say what is new; True once the run is over: nothing trains, is being done, or waits to be."""
        from nantui.supervisor.status import whether_over

        self.status, over = whether_over(self.layout)
        if not quiet:
            self._say(self._new_rows())
        return over

    def _new_rows(self) -> list[EpochRow]:
        new = self._follower.read()
        if new.restarted:  # a rollback has written it anew
            self._results = Results()
        known = len(self._results.rows)
        self._results.feed(new.lines)
        rows = [row for row in self._results.rows[known:] if (row.epoch, row.seconds) not in self._told]
        self._told.update((row.epoch, row.seconds) for row in rows)
        return rows

    def _say(self, rows: Iterable[EpochRow]) -> None:
        for row in rows:
            metrics = {name: value for name, value in row.values.items() if name.startswith("metrics/mAP")}
            shown = {**row.losses("train"), **metrics}.items()
            values = [f"{name.removeprefix('metrics/')} {value:.4g}" for name, value in shown]
            common.say("  ".join([f"epoch {row.epoch}/{self.status.epochs or '?'}", *values]))
        now = "  ".join(filter(None, [self.status.state, self.status.text]))
        if now != self._said and self.status.state:
            self._said = now
            common.say(f"{self.layout.run}: {now}")
