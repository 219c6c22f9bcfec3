"""Continue a run under a supervisor, with changed settings really in effect."""

from __future__ import annotations

import argparse

from nantui.commands import common, following
from nantui.run.layout import RunLayout
from nantui.run.spec import read_spec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `nantui resume` takes."""
    following.add_run(parser)
    following.add_settings(parser)
    parser.add_argument("--wait-gpu", action="store_true", help="wait until others have freed the GPU")
    common.add_changer(parser)


def run(arguments: argparse.Namespace) -> int:
    """Start the next attempt from what the last one left."""
    from nantui.supervise.room import ensure_room

    options = following.settings_of(arguments)
    changes = [f"{name}={value}" for name, value in options.get("set", {}).items()] + arguments.preset
    with_changes = f" with {', '.join(changes)}" if changes else ""
    question = f"{arguments.run}: continue{with_changes}?"

    def check(layout: RunLayout) -> None:
        spec = read_spec(layout.spec)
        device = spec.train.get("device") if spec else None
        ensure_room(layout, device, wait_for_it=arguments.wait_gpu, say=common.say)

    return following.act(arguments, "resume", options, question, check)
