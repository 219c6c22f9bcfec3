"""Stop, roll back to a clean checkpoint, continue: the one key R."""

from __future__ import annotations

import argparse
from typing import Any

from nantui.commands import following, planning


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `nantui recover` takes."""
    planning.add_arguments(parser)
    parser.add_argument("--into", metavar="NAME", help="continue in a new run, leave this one untouched")
    following.add_wait_gpu(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show the plan, ask, and let the supervisor stop, roll back and continue, showing every stage."""
    plan = planning.plan_for(arguments, propose=True)
    if planning.only_shown(arguments, plan):
        return 0
    options: dict[str, Any] = {"set": dict(plan.asked), "presets": list(plan.presets), "propose": False}
    options |= planning.options_of(arguments, plan) | ({"into": arguments.into} if arguments.into else {})
    options |= following.wait_gpu_of(arguments)
    question = f"{plan.run}: stop the training, {plan.headline}, and continue. Do it?"
    return following.act(arguments, "recover", options, question)
