"""An exec run's worker: the process becomes the user's own command, with the hook in its environment."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn

from nantui.errors import UserError
from nantui.run.files import read_json
from nantui.run.layout import RunLayout
from nantui.run.spec import Spec
from nantui.training.attach import HOOK, HOOK_FOLDER, NUMBER, OURS, RESUME, RUN
from nantui.training.session import Session


def become(session: Session, spec: Spec) -> NoReturn:
    """Replace this process by the recorded command. Raises UserError when that cannot be."""
    command = spec.exec or {}
    argv = [str(word) for word in command.get("argv") or []]
    if not argv:
        raise UserError(f"{session.layout.spec}: no command recorded; start it with nantui exec -- python …")
    environment = {**command.get("env", {}), **os.environ, **_hook(session)}
    if session.attempt.mode == "resume":
        refuse_later_calls(session.layout, session.attempt.attempt)
        environment[RESUME] = str(session.layout.run / (session.attempt.checkpoint or "weights/last.pt"))
    session.recorder.close()
    try:
        os.chdir(command.get("cwd") or session.layout.run)
        os.execvpe(argv[0], argv, environment)
    except OSError as error:
        raise UserError(
            f"cannot run {argv[0]}: {error.strerror}; check the command and its directory"
        ) from None


def _hook(session: Session) -> dict[str, str]:
    path = [str(HOOK_FOLDER), *filter(None, [os.environ.get("PYTHONPATH", "")])]
    return {
        HOOK: "1",
        RUN: str(session.layout.run),
        NUMBER: str(session.attempt.attempt),
        OURS: "{}",
        "PYTHONPATH": os.pathsep.join(path),
    }


def refuse_later_calls(layout: RunLayout, number: int) -> None:
    """A script interrupted in a later `train()` cannot be resumed there. Raises UserError with the reason."""
    for earlier in range(number - 1, 0, -1):
        calls: list[dict[str, Any]] = (read_json(_calls(layout, earlier)) or {}).get("calls", [])
        if not calls:
            continue
        if calls[0].get("finished"):
            raise UserError(
                "the script had finished its first train() and went on to the next; only the first can be "
                "resumed under nantui: resume the later one from its own last.pt, or run the script anew"
            )
        return


def _calls(layout: RunLayout, number: int) -> Path:
    return layout.attempts / f"{number:03d}.calls.json"
