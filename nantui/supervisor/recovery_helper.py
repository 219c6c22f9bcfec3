"""Recovery's transactions, run as helper processes; one that a crash has interrupted is put right."""

from __future__ import annotations

import sys
from typing import Any

from nantui.errors import FAILED, UserError
from nantui.run.commands import Command
from nantui.run.journal import last
from nantui.supervisor.helper_process import ACT, helper
from nantui.supervisor.run_spec import own_spec
from nantui.supervisor.supervisor import Supervisor
from nantui.terminal_text import printable


def act(supervisor: Supervisor, command: Command, action: str) -> dict[str, Any]:
    """Run one transaction of recovery in a helper process. Raises UserError with its refusal."""
    spec = own_spec(supervisor.layout)
    python = str(command.options.get("python") or (spec.python if spec else "") or sys.executable)
    own = {"action": action, "run": str(supervisor.layout.run), "id": command.id, "by": command.by}
    answer = helper(
        ACT,
        {**command.options, **own, "python": python},
        python=python,
        pump=supervisor.pump,
        started=supervisor.start_helper,
    )
    if not answer.get("ok"):
        raise UserError(printable(answer.get("error") or answer.get("text") or "refused"), FAILED)
    return answer


def repair(supervisor: Supervisor) -> str:
    """Finish or undo a rollback that a crash interrupted; returns a line, empty when there was none."""
    entries = supervisor.journal.entries()
    begun = last(entries, "rollback_begun", "undo_begun", "phase_begun")
    ended = last(entries, "rollback_done", "rollback_reverted", "undo_done", "phase_done")
    if begun is None or (ended is not None and entries.index(dict(ended)) > entries.index(dict(begun))):
        return ""
    wanted = Command("rollback", {}, str(begun.get("id", "")), "supervisor")
    return str(act(supervisor, wanted, "repair").get("text") or "an interrupted rollback was put right")
