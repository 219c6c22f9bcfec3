"""Recovery's transactions, run as helper processes, and what the journal says of interrupted ones."""

from __future__ import annotations

import sys
from typing import Any

from nantui.errors import FAILED, UserError
from nantui.run.journal import Entry, last
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


def rolled_back_before(entries: list[Entry], command: str) -> dict[str, Any] | None:
    """Return the answer of a rollback that an earlier supervisor finished for this command, else None."""
    done = last(entries, "rollback_done", "attempt_started")
    begun = last((entry for entry in entries if entry.get("id") == command), "rollback_begun")
    if done is None or begun is None or done["kind"] != "rollback_done" or done.get("id") != command:
        return None
    asked = {row["name"]: row["then"] for row in begun.get("settings") or [] if not row.get("kept")}
    return {"mode": begun.get("mode"), "asked": asked, "text": begun.get("text")}
