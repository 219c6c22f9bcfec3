"""Wait until runs have ended, a line an epoch, and return how: the exit status is the run's own."""

from __future__ import annotations

import argparse
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from nantui.commands import common
from nantui.errors import FAILED, UserError
from nantui.run.attempts import DIVERGED, EXIT_CODES, FINISHED, PREEMPTED_CODE, STOPPED
from nantui.run.commands import Command
from nantui.run.discovery import require_run
from nantui.run.endings import Cause
from nantui.run.growing_files import LineFollower
from nantui.run.layout import RunLayout
from nantui.run.results import EpochRow, Results
from nantui.run.status import RunStatus
from nantui.supervisor.client import ensure_supervisor, submit
from nantui.supervisor.status import whether_over

POLL_S, ENSURE_EVERY_S = 0.5, 5.0
TIMED_OUT = 124
PASSED_ON = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `nantui wait` takes."""
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="run directories")
    parser.add_argument(
        "--timeout", type=float, metavar="S", help=f"give up after S seconds (status {TIMED_OUT})"
    )
    common.add_reader(parser)


def add_wait(parser: argparse.ArgumentParser) -> None:
    """Add `--wait` to a command that starts a training."""
    parser.add_argument("--wait", action="store_true", help="stay until it has ended, and return its status")


def run(arguments: argparse.Namespace) -> int:
    """Follow the runs; the status is that of the first that did not finish. Raises UserError for no run."""
    followed = [Followed(require_run(run)) for run in dict.fromkeys(arguments.runs)]
    begun, over = time.monotonic(), False
    while not over:
        over = all([one.look(quiet=arguments.json) for one in followed])
        if not over and arguments.timeout is not None and time.monotonic() - begun > arguments.timeout:
            break
        if not over:
            time.sleep(POLL_S)
    statuses = [one.status for one in followed]
    status = next(filter(None, map(exit_status, statuses)), 0) if over else TIMED_OUT
    if arguments.json:
        rows = [{**one.to_json(), "exit_status": exit_status(one)} for one in statuses]
        common.emit({"runs": rows, "exit_status": status})
    elif not over:
        common.say(f"not over after {arguments.timeout:g} s: {', '.join(str(one.path) for one in statuses)}")
    return status


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
    told: list[signal.Signals] = []
    for number in PASSED_ON:
        signal.signal(number, lambda number, frame: told.append(signal.Signals(number)))
    followed, asked, ensured = Followed(RunLayout(run)), False, time.monotonic()
    while not followed.look():
        if told and not asked:
            asked = True
            interrupted = told[0] == signal.SIGINT
            common.say(
                "stopping in order; Ctrl-C again leaves it to its supervisor" if interrupted else told[0].name
            )
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
        self._rows()

    def look(self, quiet: bool = False) -> bool:
        """Say what is new; True once the run is over: nothing trains, is being done, or waits to be."""
        self.status, over = whether_over(self.layout)
        if not quiet:
            self._say(self._rows())
        return over

    def _rows(self) -> list[EpochRow]:
        """Return the epochs that results.csv has got since the last look."""
        known = len(self._results.rows)
        self._results.feed(self._follower.read().lines)
        return self._results.rows[known:]

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
