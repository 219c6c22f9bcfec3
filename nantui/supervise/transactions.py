"""Recovery's transactions, run as helper processes; one that a crash has interrupted is put right."""

from __future__ import annotations

import sys
from typing import Any

from nantui.errors import FAILED, UserError
from nantui.run.journal import last
from nantui.run.spool import Command
from nantui.supervise.clean import printable
from nantui.supervise.helpers import ACT, helper
from nantui.supervise.keeper import Keeper
from nantui.supervise.specs import own_spec


def act(keeper: Keeper, command: Command, action: str) -> dict[str, Any]:
    """Run one transaction of recovery in a helper process. Raises UserError with its refusal."""
    spec = own_spec(keeper.layout)
    python = str(command.options.get("python") or (spec.python if spec else "") or sys.executable)
    own = {"action": action, "run": str(keeper.layout.run), "id": command.id, "by": command.by}
    answer = helper(
        ACT,
        {**command.options, **own, "python": python},
        python=python,
        pump=keeper.pump,
        started=keeper.start_helper,
    )
    if not answer.get("ok"):
        raise UserError(printable(answer.get("error") or answer.get("text") or "refused"), FAILED)
    return answer


def repair(keeper: Keeper) -> str:
    """Finish or undo a rollback that a crash interrupted; returns a line, empty when there was none."""
    entries = keeper.journal.entries()
    begun = last(entries, "rollback_begun", "undo_begun", "phase_begun")
    ended = last(entries, "rollback_done", "rollback_reverted", "undo_done", "phase_done")
    if begun is None or (ended is not None and entries.index(dict(ended)) > entries.index(dict(begun))):
        return ""
    wanted = Command("rollback", {}, str(begun.get("id", "")), "supervisor")
    return str(act(keeper, wanted, "repair").get("text") or "an interrupted rollback was put right")
