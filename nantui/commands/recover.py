"""Stop, roll back to a clean checkpoint, continue: the one key R."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from nantui.commands import common, following, rollback
from nantui.errors import NO
from nantui.run.layout import RunLayout
from nantui.supervisor.client import branch_off


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `nantui recover` takes."""
    rollback.add_arguments(parser)
    following.add_our_runner(parser)
    parser.add_argument("--auto", action="store_true", help="and let the ladder recover it from now on")
    parser.add_argument("--into", metavar="NAME", help="continue in a new run, leave this one untouched")
    following.add_wait_gpu(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show the plan, ask, and let the supervisor stop, roll back and continue, showing every stage."""
    plan = rollback.plan_for(arguments, propose=True)
    if rollback.only_shown(arguments, plan):
        return 0
    options: dict[str, object] = {"set": dict(plan.asked), "presets": list(plan.presets), "propose": False}
    options |= rollback.options_of(arguments, plan)
    options |= following.given(arguments, "into", "wait_gpu", "our_runner", "auto")
    question = f"{plan.run}: stop the training, {plan.headline}, and continue. Do it?"
    agreed = partial(following.agree_to_lose, arguments)
    if arguments.into and not following.trains(plan.run):
        return into(arguments, plan.run, options)
    return following.act(arguments, "recover", options, question, agreed)


def into(arguments: argparse.Namespace, run: Path, options: dict[str, object]) -> int:
    """Continue in a new run without a supervisor for the old one, of which no byte changes."""
    common.refuse_read_only(arguments)
    if not following.agree_to_lose(arguments, RunLayout(run)):
        return NO
    question = f"continue {run} in {run.parent / arguments.into}, leaving it untouched?"
    strange = following.strangeness(RunLayout(run), "recover")
    if arguments.dry_run:
        common.say(f"would {question.rstrip('?')}")
        return 0
    if not following.agreed(arguments, RunLayout(run), question, strange):
        return NO
    common.say(f"recover: {branch_off(run, options, arguments.python)}")
    return 0
