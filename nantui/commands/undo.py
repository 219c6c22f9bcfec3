"""Take the last rollback or resume back: everything outside nantui/ as it was before, byte for byte."""

from __future__ import annotations

import argparse

from nantui.commands import common, following
from nantui.errors import NO, UserError
from nantui.recovery.history import newest_in_force
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `nantui undo` takes."""
    following.add_run(parser)
    common.add_changer(parser)


def run(arguments: argparse.Namespace) -> int:
    """Undo, after asking."""
    question = "take the last rollback or resume back? What was trained since moves aside, no file is lost."
    return following.act(arguments, "undo", {}, f"{arguments.run}: {question}", refuse_without_rollback)


def refuse_without_rollback(layout: RunLayout) -> None:
    """Raise UserError (status NO) when there is nothing to take back."""
    if newest_in_force(RunRecord(layout).journal) is None:
        raise UserError(f"{layout.run}: there is no rollback to take back", NO)
