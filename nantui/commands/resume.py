"""Continue a run under a supervisor, with changed settings really in effect."""

from __future__ import annotations

import argparse

from nantui.commands import common, following


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `nantui resume` takes."""
    following.add_run(parser)
    following.add_settings(parser)
    following.add_wait_gpu(parser)
    common.add_changer(parser)


def run(arguments: argparse.Namespace) -> int:
    """Start the next attempt from what the last one left."""
    options = following.settings_of(arguments)
    changes = [f"{name}={value}" for name, value in options.get("set", {}).items()] + arguments.preset
    with_changes = f" with {', '.join(changes)}" if changes else ""
    question = f"{arguments.run}: continue{with_changes}?"
    return following.act(arguments, "resume", options | following.wait_gpu_of(arguments), question)
