"""Recover into a new run: the old directory is left as it is, the new one begins at the restore point.

The plan is made in the old run, where the evidence is. Only what a rollback needs is copied; the new run then
recovers by itself, under a supervisor of its own, which writes its own `save_dir` into the checkpoint.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from nantui.errors import FAILED, UserError
from nantui.run import spool
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.spec import Spec, write_spec
from nantui.run.spool import Command
from nantui.supervise.client import ensure_supervisor
from nantui.supervise.spools import spool_for


def recover_into(layout: RunLayout, spec: Spec, command: Command, plan: dict[str, Any]) -> str:
    """Make the new run beside the old one and have it recover. Raises UserError for a name that is taken."""
    new = new_layout(layout, str(command.options["into"]))
    point = plan.get("restore_point") or {}
    if not point.get("path"):
        raise UserError("nothing clean to continue from: train anew under another name", FAILED)
    try:
        copy_run(layout, new, Path(str(point["path"])))
    except OSError as error:
        shutil.rmtree(new.run, ignore_errors=True)
        raise UserError(f"{new.run} could not be made ({error}); nothing was changed", FAILED) from None
    place = {"project": str(new.run.parent), "name": new.run.name, "save_dir": str(new.run)}
    write_spec(new.spec, Spec(**{**spec.__dict__, "train": {**spec.train, **place}, "faults": []}))
    Journal(new.journal).append("created", by=command.by, spec=place, cwd=None)
    settings = {row["name"]: row["then"] for row in plan.get("settings") or [] if not row.get("kept")}
    options = {"to": str(point["name"]), "set": settings, "allow": command.options.get("allow") or []}
    spool.put(spool_for(new), Command("recover", options, by=command.by))
    ensure_supervisor(new)
    return f"continues from {point['name']} in {new.run}; this run is left as it is"


def new_layout(layout: RunLayout, name: str) -> RunLayout:
    """Return the new run's layout. Raises UserError for a path, or a directory that exists."""
    if name in {"", ".", ".."} or Path(name).name != name:
        raise UserError(f"--into {name}: give a name, not a path; the new run lies beside the old one")
    new = RunLayout(layout.run.parent / name)
    if new.run.exists():
        raise UserError(f"{new.run} exists already and is never overwritten; choose another name")
    return new


def copy_run(layout: RunLayout, new: RunLayout, checkpoint: Path) -> None:
    """Copy what a rollback in the new run needs: arguments, results, the restore point. Raises OSError."""
    new.weights.mkdir(parents=True)
    new.home.mkdir()
    for source in (layout.args_yaml, layout.results_csv):
        if source.is_file():
            shutil.copy2(source, new.run / source.name)
    shutil.copy2(layout.weights / checkpoint.name, new.weights / checkpoint.name)
