"""Take part, with this host's devices, in a run that another host leads; both see the same run directory."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from nantui import entry_points
from nantui.commands import common
from nantui.errors import FAILED, USAGE, UserError
from nantui.machine.process_identity import host_id, host_name
from nantui.run.attempts import Attempt
from nantui.run.layout import RunLayout, require_run
from nantui.run.spec import read_spec
from nantui.run.status import ACTIVE
from nantui.supervisor.helper_process import worker_environment
from nantui.supervisor.hosts import consistency, reports
from nantui.supervisor.hosts.agent import hold
from nantui.supervisor.outcome import last_message
from nantui.supervisor.state import read_state

Found = TypeVar("Found")
LOOK_S, APPEARS_S, BEGINS_S, ANSWERS_S = 0.1, 600.0, 120.0, 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    common.add_run(parser)
    parser.add_argument("settings", nargs="*", metavar="device=…", help="this host's devices, as for train")
    common.add_flags(parser, wait="wait for the run to appear, and stay until it is over")
    common.add_changer(parser, asks=False)


def run(arguments: argparse.Namespace) -> int:
    """Check, name every difference, and start this host's agent."""
    common.refuse_read_only(arguments)
    device = device_of(arguments.settings)
    if arguments.wait:
        wait_for(led_from_now(arguments.run), f"{arguments.run}: nobody leads it", APPEARS_S)
    layout = require_run(arguments.run)
    attempt = attempt_to_join(layout)
    device = device or str(attempt.train.get("device") or "")
    check(layout, attempt, device, arguments.python)
    if arguments.dry_run:
        common.say(f"would join {layout.run} with device={device}")
        return 0
    # With --wait this very process is the agent, until the run is over.
    return hold(layout, device, arguments.python) if arguments.wait else start(layout, device, arguments)


def device_of(words: list[str]) -> str:
    """Return the device asked for, empty for none. Raises UserError for other settings."""
    device = ""
    for word in words:
        name, _, device = word.partition("=")
        if name != "device" or not device:
            raise UserError(f"{word}: a host brings its device= only; the run has all other settings", USAGE)
    return device


def led_from_now(run: Path) -> Callable[[], bool]:
    """Return what tells whether somebody leads its newest attempt: what a dead one has left says nothing."""
    layout = RunLayout(run.resolve())
    before = read_state(layout.supervisor)

    def led() -> bool:
        state = read_state(layout.supervisor)
        if state is None or (before is not None and state.heartbeat == before.heartbeat):
            return False
        return state.state in ACTIVE and state.attempt == layout.newest_attempt()

    return led


def attempt_to_join(layout: RunLayout) -> Attempt:
    """Return the newest attempt. Raises UserError where there is nothing to take part in."""
    spec = read_spec(layout.spec)
    if spec is None or spec.nnodes < 2:
        raise UserError(f"{layout.run} trains on one host; start it with: nantui train nnodes=2 …", FAILED)
    if layout.lock.exists():
        # The leading host looks at its data set before it writes down the attempt.
        wait_for(layout.newest_attempt, f"{layout.run}: nothing was started yet", BEGINS_S)
    number = layout.newest_attempt()
    attempt = reports.read_own_attempt(layout, number)
    if number and attempt is None:
        consistency.refuse(consistency.owners(layout, number))
    if attempt is None or not layout.lock.exists():
        raise UserError(f"{layout.run}: nobody leads it; start or resume it on the leading host", FAILED)
    return attempt


def check(layout: RunLayout, attempt: Attempt, device: str, python: str | None) -> None:
    """Compare this host with the leading one. Raises UserError with every difference."""
    consistency.refuse(consistency.owners(layout, attempt.attempt))
    state = read_state(layout.supervisor)
    if state is not None and state.machine.host == host_name():
        other = "join on another (two hosts of one name? set NANTUI_HOST)"
        raise UserError(f"host {host_name()} leads this run: {other}", FAILED)
    found = consistency.differences(attempt, device, consistency.python_here(attempt, python))
    late = consistency.clock(layout.supervisor)
    consistency.refuse([*found, *([late] if late else [])])
    common.say("same versions, same images, endpoint reached, clocks agree")


def start(layout: RunLayout, device: str, arguments: argparse.Namespace) -> int:
    """Start the agent, detached, and return once it has said that it is ready. Raises UserError."""
    home = layout.hosts / host_id()
    home.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", entry_points.HOST_AGENT, str(layout.run), "--device", device]
    argv += ["--python", arguments.python] if arguments.python else []
    with (home / "agent.log").open("ab") as log:
        child = subprocess.Popen(
            argv, cwd="/", env=worker_environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip

    def answer() -> reports.Report | None:
        if child.poll() is not None:
            why = last_message(home / "agent.log") or "without a word"
            raise UserError(f"this host's agent ended at once: {why}", FAILED)
        report = reports.read_report(layout, host_id())
        return report if report and report.process.pid == child.pid and report.uuid else None

    report = wait_for(answer, "the agent does not answer", ANSWERS_S)
    common.say(f"host {report.host} is {report.state}" + (f": {report.text}" if report.text else ""))
    return FAILED if report.state == reports.DIFFERS else 0


def wait_for(look: Callable[[], Found | None], what: str, seconds: float) -> Found:
    """Return what `look` gives once it is true. Raises UserError saying `what` else."""
    until = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > until:
            raise UserError(f"{what} (waited {seconds:.0f} s)", FAILED)
        time.sleep(LOOK_S)
    return found
