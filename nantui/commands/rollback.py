"""Go back to a clean checkpoint: back up, restore, write changed settings into it, trim. Starts nothing."""

from __future__ import annotations

import argparse

from nantui.commands import common, following
from nantui.recovery.plan import Plan, make_plan
from nantui.recovery.plan_text import plan_lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `nantui rollback` takes, and `nantui recover` too."""
    following.add_run(parser)
    parser.add_argument(
        "--to", metavar="CHECKPOINT", help="the restore point, e.g. epoch130.pt or epoch134-step1240"
    )
    parser.add_argument(
        "--restart", action="store_true", help="plan B: move everything aside and begin again"
    )
    following.add_allow(parser)
    parser.add_argument("--json", action="store_true", help="with --dry-run: the plan as one JSON document")
    following.add_settings(parser)
    common.add_changer(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show the plan, ask, and let the supervisor carry it out."""
    plan = plan_for(arguments, propose=False)
    if only_shown(arguments, plan):
        return 0
    options = following.settings_of(arguments) | options_of(arguments, plan)
    return following.act(arguments, "rollback", options, f"{plan.run}: {plan.headline}. Do it?")


def plan_for(arguments: argparse.Namespace, *, propose: bool) -> Plan:
    """Return the plan; without settings and presets it has a remedy of its own where `propose` says so."""
    given = following.settings_of(arguments)
    return make_plan(
        arguments.run,
        arguments.to,
        given.get("set"),
        given.get("presets"),
        propose=propose and not given,
        restart=arguments.restart,
        python=arguments.python,
        allow=arguments.allow,
    )


def only_shown(arguments: argparse.Namespace, plan: Plan) -> bool:
    """Show the plan; True when it was asked for as JSON, and nothing is to follow."""
    if arguments.json and arguments.dry_run:
        common.emit(plan.to_json())
        return True
    for line in plan_lines(plan):
        common.say(line)
    if arguments.dry_run and following.trains(plan.run):
        common.say("note: it trains now; what is done is planned again from the files once it has stopped")
    return False


def options_of(arguments: argparse.Namespace, plan: Plan) -> dict[str, object]:
    """Return the options of the command that carries out what was shown."""
    options: dict[str, object] = {"to": plan.restore.name} if plan.restore else {"force_restart": True}
    return options | following.given(arguments, "allow")
