"""Go back to a clean checkpoint: back up, restore, write changed settings into it, trim. Starts nothing."""

from __future__ import annotations

import argparse

from nantui.commands import common, following


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `nantui rollback` takes."""
    following.add_run(parser)
    parser.add_argument("--to", metavar="CHECKPOINT", help="the restore point, e.g. epoch130.pt")
    parser.add_argument(
        "--restart", action="store_true", help="plan B: move everything aside and begin again"
    )
    parser.add_argument(
        "--allow", nargs="+", action="extend", default=[], metavar="NAME", help="code that loading may run"
    )
    parser.add_argument("--json", action="store_true", help="with --dry-run: the plan as one JSON document")
    following.add_settings(parser)
    common.add_changer(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show the plan, ask, and let the supervisor carry it out."""
    from nantui.recovery.plan import make_plan
    from nantui.recovery.words import plan_lines

    options = following.settings_of(arguments)
    wanted, presets = options.get("set", {}), options.get("presets", [])
    plan = make_plan(
        arguments.run,
        arguments.to,
        wanted,
        presets,
        restart=arguments.restart,
        python=arguments.python,
        allow=arguments.allow,
    )
    if arguments.json and arguments.dry_run:
        common.emit(plan.to_json())
        return 0
    for line in plan_lines(plan):
        common.say(line)
    options |= {"to": plan.restore.name} if plan.restore else {"force_restart": True}
    if arguments.allow:
        options["allow"] = arguments.allow
    return following.act(arguments, "rollback", options, f"{plan.run}: {plan.headline}. Do it?")
