"""Stop at the next batch boundary, checkpoint kept; returns when no process of the training is left."""

from __future__ import annotations

import argparse

from nantui.commands import common, following


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `nantui stop` takes."""
    following.add_run(parser)
    parser.add_argument("--now", action="store_true", help="end every process at once, nothing is saved")
    common.add_changer(parser)


def run(arguments: argparse.Namespace) -> int:
    """Stop or kill, and say what is left."""
    how = (
        "kill every process, losing what was not saved"
        if arguments.now
        else "stop at the next batch boundary"
    )
    return following.act(arguments, "kill" if arguments.now else "stop", {}, f"{arguments.run}: {how}?")
