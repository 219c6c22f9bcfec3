"""Stop at the next batch boundary, checkpoint kept; returns when no process of the training is left."""

from __future__ import annotations

import argparse
import sys

from nantui.commands import common, following
from nantui.errors import NO, USAGE, UserError
from nantui.run.discovery import require_run
from nantui.run.layout import RunLayout
from nantui.run.status import FOREIGN
from nantui.supervisor.foreign.find import describe, find_foreign, gpu_memory_gb
from nantui.supervisor.foreign.strays import end_strays, run_of, strays_of
from nantui.supervisor.status import read_status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `nantui stop` takes."""
    following.add_run(parser)
    parser.add_argument("--now", action="store_true", help="end every process at once, nothing is saved")
    parser.add_argument(
        "--foreign", metavar="NAME", help="the run's name: stop a training nantui did not start"
    )
    common.add_changer(parser)


def run(arguments: argparse.Namespace) -> int:
    """Stop or kill, and say what is left."""
    kind = "kill" if arguments.now else "stop"
    if (ended := stop_strays(arguments)) is not None:
        return ended
    layout = require_run(arguments.run)
    status = read_status(layout.run)
    if status.state == FOREIGN and status.pids:
        return stop_foreign(arguments, layout, kind)
    how = {"kill": "kill every process, losing what was not saved", "stop": "stop at the next batch boundary"}
    return following.act(arguments, kind, {}, f"{arguments.run}: {how[kind]}?")


def stop_strays(arguments: argparse.Namespace) -> int | None:
    """Stop what trains on under this name after its directory was renamed or deleted; None for nothing.

    A run that was renamed is stopped where it lies now.
    """
    if not (marks := strays_of(arguments.run.resolve())):
        return None
    if now := run_of(marks):
        common.say(f"{arguments.run} trains on as {now}")
        arguments.run = now
        return None
    common.refuse_read_only(arguments)
    question = f"{arguments.run}: its directory is gone and it trains on: end its processes?"
    if not common.go_ahead(arguments, "end its processes", question):
        return 0 if arguments.dry_run else NO
    common.say(f"{'kill' if arguments.now else 'stop'}: {end_strays(marks)}")
    return 0


def stop_foreign(arguments: argparse.Namespace, layout: RunLayout, kind: str) -> int:
    """Show whose training it is; the run's name, typed or given, confirms."""
    for training in find_foreign(layout.run):
        common.say(describe(training, gpu_memory_gb(training)))
        common.say(f"  in {training.cwd}; {training.evidence} to write into this run")
        if training.restarted_by:
            common.say(f"  it seems to be started again by {training.restarted_by}: end that first")
    if not arguments.dry_run and not named(arguments, layout.run.name):
        common.say("nothing was done")
        return NO
    arguments.yes = True
    return following.act(arguments, kind, {"foreign": True}, "end these processes and what they started?")


def named(arguments: argparse.Namespace, name: str) -> bool:
    """Tell whether the person confirms by the run's name. Raises UserError where nobody can type it."""
    if arguments.foreign is not None:
        return bool(arguments.foreign == name)
    if not sys.stdin.isatty():
        raise UserError(f"not started by nantui: confirm with --foreign {name}", USAGE)
    common.say(f"Stop it? Type the run's name ({name}): ", end="")
    return sys.stdin.readline().strip() == name
