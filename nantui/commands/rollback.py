"""Go back to a clean checkpoint: back up, restore, write changed settings into it, trim. Starts nothing."""

from __future__ import annotations

import argparse

from nantui.commands import following, planning


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `nantui rollback` takes."""
    planning.add_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Show the plan, ask, and let the supervisor carry it out."""
    plan = planning.plan_for(arguments, propose=False)
    if planning.only_shown(arguments, plan):
        return 0
    options = following.settings_of(arguments) | planning.options_of(arguments, plan)
    return following.act(arguments, "rollback", options, f"{plan.run}: {plan.headline}. Do it?")
