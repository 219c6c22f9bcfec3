"""Stop, roll back to a clean checkpoint, continue: the one key R."""

from __future__ import annotations

import argparse
from typing import Any

from nantui.commands import common, following


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `nantui recover` takes."""
    following.add_run(parser)
    parser.add_argument("--to", metavar="CHECKPOINT", help="the restore point, e.g. epoch130.pt")
    parser.add_argument("--into", metavar="NAME", help="continue in a new run, leave this one untouched")
    parser.add_argument("--restart", action="store_true", help="plan B: start over, there is nothing clean")
    parser.add_argument(
        "--allow", nargs="+", action="extend", default=[], metavar="NAME", help="code that loading may run"
    )
    parser.add_argument("--json", action="store_true", help="with --dry-run: the plan as one JSON document")
    following.add_settings(parser)
    common.add_changer(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show the plan, ask, and let the supervisor stop, roll back and continue, showing every stage."""
    from nantui.recovery.plan import make_plan
    from nantui.recovery.words import plan_lines

    given = following.settings_of(arguments)
    settings = given.get("set") if given else None
    plan = make_plan(
        arguments.run,
        arguments.to,
        settings,
        given.get("presets", []),
        restart=arguments.restart,
        python=arguments.python,
    )
    if arguments.json and arguments.dry_run:
        common.emit(plan.to_json())
        return 0
    for line in plan_lines(plan):
        common.say(line)
    options: dict[str, Any] = {"set": dict(plan.asked), "presets": list(plan.presets), "propose": False}
    options |= {"to": plan.restore.name} if plan.restore else {"force_restart": True}
    options |= {name: value for name, value in vars(arguments).items() if name in {"into", "allow"} and value}
    question = f"{plan.run}: stop the training, {plan.headline}, and continue. Do it?"
    return following.act(arguments, "recover", options, question)
