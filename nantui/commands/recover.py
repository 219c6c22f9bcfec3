"""Stop, roll back to a clean checkpoint, continue: the one key R."""

from __future__ import annotations

import argparse

from nantui.commands import common, following


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `nantui recover` takes."""
    following.add_run(parser)
    parser.add_argument("--to", metavar="CHECKPOINT", help="the restore point, e.g. epoch130.pt")
    parser.add_argument("--into", metavar="NAME", help="continue in a new run, leave this one untouched")
    parser.add_argument("--restart", action="store_true", help="plan B: start over, there is nothing clean")
    following.add_settings(parser)
    common.add_changer(parser)


def run(arguments: argparse.Namespace) -> int:
    """Recover, showing every stage."""
    given = {"to": arguments.to, "into": arguments.into, "force_restart": arguments.restart or None}
    options = {name: value for name, value in given.items() if value is not None}
    where = f"to {arguments.to}" if arguments.to else "to the newest clean checkpoint"
    question = f"{arguments.run}: stop the training, go back {where}, and continue?"
    return following.act(arguments, "recover", {**options, **following.settings_of(arguments)}, question)
