"""An exec run's worker: the process becomes the user's own command, with the hook in its environment."""

from __future__ import annotations

import os
import signal
from typing import NoReturn

from nantui.checkpoint.step_point import refuse_unsound
from nantui.errors import UserError
from nantui.run.events import AttemptEnded, RollbackDone, newest
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from nantui.run.spec import Spec
from nantui.worker.script.attach import HOOK, HOOK_FOLDER
from nantui.worker.script.train_calls import CALL, NUMBER, RESUME, RUN, calls_of
from nantui.worker.session import Session


def become(session: Session, spec: Spec) -> NoReturn:
    """Replace this process by the recorded command. Raises UserError when that cannot be."""
    command = spec.exec or {}
    argv = [str(word) for word in command.get("argv") or []]
    if not argv:
        raise UserError(f"{session.layout.spec}: no command recorded; start it with nantui exec -- python …")
    kept = {str(name): str(value) for name, value in (command.get("env") or {}).items()}
    environment = {**os.environ, **kept, **_hook(session, spec, kept.get("PYTHONPATH", ""))}
    if session.attempt.mode == "resume":
        refuse_later_calls(session.layout, session.attempt.attempt, int(command.get("call") or 1))
        checkpoint = session.layout.run / (session.attempt.checkpoint or "weights/last.pt")
        refuse_unsound(session.layout, checkpoint)
        environment[RESUME] = str(checkpoint)
    session.recorder.close()
    try:
        os.chdir(command.get("cwd") or session.layout.run)
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # until its train() takes it
        os.execvpe(argv[0], argv, environment)
    except OSError as error:
        raise UserError(
            f"cannot run {argv[0]}: {error.strerror}; check the command and its directory"
        ) from None


def _hook(session: Session, spec: Spec, python_path: str) -> dict[str, str]:
    """Return what brings the guard into every process of the command, whatever its own environment says."""
    ours = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = filter(None, dict.fromkeys([str(HOOK_FOLDER), *ours, *python_path.split(os.pathsep)]))
    mine = {name: value for name, value in os.environ.items() if name.startswith("NANTUI_")}
    return {
        **mine,
        HOOK: "1",
        RUN: str(session.layout.run),
        NUMBER: str(session.attempt.attempt),
        CALL: str((spec.exec or {}).get("call") or 1),
        "PYTHONPATH": os.pathsep.join(path),
    }


def refuse_later_calls(layout: RunLayout, number: int, own: int) -> None:
    """A run whose own `train()` has finished is not where its script was interrupted.

    A rollback since then means that it is to go on from an earlier point. Raises UserError that names the
    run of the later call, which is the one to be resumed.
    """
    if isinstance(newest(RunRecord(layout).journal, AttemptEnded, RollbackDone), RollbackDone):
        return
    for earlier in range(number - 1, 0, -1):
        made = calls_of(layout, earlier)
        if not any(call.index == own and call.finished for call in made):
            if made:
                return
            continue
        later = next((call.run for call in made if call.index > own and not call.finished and call.run), "")
        then = f"its script was interrupted in a later one: resume {later}" if later else "all is done"
        raise UserError(f"the train() of this run has finished; {then}")
