"""Continue a run under a supervisor, with changed settings really in effect."""

from __future__ import annotations

import argparse
from functools import partial

from nantui.commands import common, following, wait
from nantui.errors import FAILED, UserError
from nantui.run.discovery import require_run
from nantui.run.layout import RunLayout
from nantui.settings.plan_files import checked
from nantui.settings.schema import Schema


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `nantui resume` takes."""
    following.add_run(parser)
    following.add_settings(parser)
    following.add_allow(parser)
    following.add_wait_gpu(parser)
    wait.add_wait(parser)
    parser.add_argument(
        "--phase", nargs="+", default=[], metavar="KEY=VALUE", help="of a finished run: a new phase"
    )
    following.add_our_runner(parser)
    common.add_changer(parser)


def run(arguments: argparse.Namespace) -> int:
    """Start the next attempt from what the last one left."""
    options = following.settings_of(arguments)
    if arguments.phase:
        schema = Schema.load(arguments.python)
        options["phase"] = checked(schema.parse_assignments(arguments.phase), schema)
    changes = [f"{name}={value}" for name, value in options.get("set", {}).items()] + arguments.preset
    changes += [f"a new phase: {', '.join(arguments.phase)}"] if arguments.phase else []
    with_changes = f" with {', '.join(changes)}" if changes else ""
    question = f"{arguments.run}: continue{with_changes}?"
    options |= following.given(arguments, "wait_gpu", "our_runner", "allow")
    agreed = partial(agree, arguments)
    status = following.act(arguments, "resume", options, question, agreed)
    if status or arguments.dry_run or not arguments.wait:
        return status
    return wait.foreground(require_run(arguments.run).run, take_over=arguments.take_over)


def agree(arguments: argparse.Namespace, layout: RunLayout) -> bool:
    """Ask about what would be lost. Raises UserError for a dry run where something trains already."""
    if arguments.dry_run and following.trains(layout.run):
        raise UserError(
            f"{layout.run.name} is training: nothing to resume; `nantui stop {layout.run}` first", FAILED
        )
    return following.agree_to_lose(arguments, layout)
