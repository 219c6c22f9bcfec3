"""Continue in a new run that recovery has made beside the old one, under a supervisor of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nantui.run import spool
from nantui.run.layout import RunLayout
from nantui.run.spool import Command
from nantui.supervise.client import ensure_supervisor
from nantui.supervise.launch import RESTART
from nantui.supervise.spools import spool_for


def continue_elsewhere(answer: dict[str, Any], command: Command) -> str:
    """Have the run that `answer` of recovery names go on; returns a line for people. Raises UserError."""
    new = RunLayout(Path(str(answer["run"])))
    options = {name: command.options[name] for name in ("wait_gpu",) if name in command.options}
    kind = "start" if answer.get("mode") == RESTART else "resume"
    spool.put(spool_for(new), Command(kind, options, by=command.by))
    ensure_supervisor(new)
    return str(answer.get("text") or f"continues in {new.run}")
