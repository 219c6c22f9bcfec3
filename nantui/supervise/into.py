"""Continue in a new run that recovery has made beside the old one, under a supervisor of its own.

Where nothing trains in the old run, no supervisor is started for it: not one byte of it changes, so a run
that is read-only, or somebody else's, can be continued, too.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nantui.errors import FAILED, UserError
from nantui.run import spool
from nantui.run.journal import author
from nantui.run.layout import RunLayout
from nantui.run.spec import read_spec
from nantui.run.spool import Command
from nantui.supervise.clean import printable
from nantui.supervise.client import ensure_supervisor
from nantui.supervise.helpers import ACT, helper
from nantui.supervise.launch import RESTART
from nantui.supervise.spools import spool_for


def branch_off(run: Path, options: Mapping[str, Any], python: str | None = None) -> str:
    """Make the new run that `options` of a recover name, and start it; returns a line for people.

    Raises UserError with recovery's refusal; nothing is left of the new run then.
    """
    spec = read_spec(RunLayout(run).spec)
    chosen = python or (spec.python if spec else "") or sys.executable
    command = Command("recover", dict(options), by=author())
    own = {"action": "rollback", "run": str(run), "id": command.id, "by": command.by, "python": chosen}
    answer = helper(ACT, {**options, **own}, python=chosen)
    if not answer.get("ok"):
        raise UserError(printable(answer.get("error") or answer.get("text") or "refused"), FAILED)
    return continue_elsewhere(answer, command)


def continue_elsewhere(answer: dict[str, Any], command: Command) -> str:
    """Have the run that `answer` of recovery names go on; returns a line for people. Raises UserError."""
    new = RunLayout(Path(str(answer["run"])))
    options = {name: command.options[name] for name in ("wait_gpu",) if name in command.options}
    kind = "start" if answer.get("mode") == RESTART else "resume"
    spool.put(spool_for(new), Command(kind, options, by=command.by))
    ensure_supervisor(new)
    return str(answer.get("text") or f"continues in {new.run}")
