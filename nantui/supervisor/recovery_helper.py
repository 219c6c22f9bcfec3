"""Recovery's transactions, run as helper processes; one that a crash has interrupted is put right."""

from __future__ import annotations

from nantui.errors import FAILED, UserError
from nantui.machine.training_python import training_python
from nantui.run.commands import Command
from nantui.run.documents import JsonObject
from nantui.run.events import TRANSACTION_BEGINS, TRANSACTION_ENDS, newest
from nantui.run.sole_doer import is_being_done
from nantui.supervisor.helper_process import ACT, helper
from nantui.supervisor.ports import WaitPort
from nantui.supervisor.run_spec import own_spec
from nantui.terminal_text import printable

REPAIR = "repair"


def act(port: WaitPort, command: Command, action: str) -> JsonObject:
    """Run one transaction of recovery in a helper process. Raises UserError with its refusal."""
    spec = own_spec(port.layout)
    python = training_python(str(command.options.get("python") or ""), spec.python if spec else None)
    own = {"action": action, "run": str(port.layout.run), "id": command.id, "by": command.by}
    request = {**command.options, **own, "python": python}
    try:
        answer = helper(ACT, request, python=python, pump=port.pump, started=port.start_helper)
    except UserError as error:
        # It died, out of memory perhaps, and may have left the run half rolled back.
        if action == REPAIR or not (repaired := repair(port, died=True)):
            raise
        raise UserError(f"{error}; {repaired}", FAILED) from None
    if not answer.get("ok"):
        raise UserError(printable(answer.get("error") or answer.get("text") or "refused"), FAILED)
    if notes := "; ".join(map(printable, answer.get("notes") or ())):
        port.journal.append("note", by=command.by, text=notes)
    return answer


def repair(port: WaitPort, died: bool = False) -> str:
    """Finish or undo a rollback that a crash interrupted; returns a line, empty when there was none.

    One that an earlier supervisor's helper still carries out is waited for. Of a helper that `died` before it
    had begun, copies as large as checkpoints may lie beside the run's files: they are removed.
    """
    latest = newest(port.journal.events(), *TRANSACTION_BEGINS, *TRANSACTION_ENDS)
    open_id = latest.id if isinstance(latest, TRANSACTION_BEGINS) else ""
    if not died and not open_id and not is_being_done(port.layout):
        return ""
    return str(act(port, Command("rollback", {}, open_id, "supervisor"), REPAIR).get("text") or "")
