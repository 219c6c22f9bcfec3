"""Before a worker starts, whoever asked for it: is there room on its GPUs, and may it wait for some?

Every start, resume and recovery goes through here, from a command, the cockpit or the ladder alike.
"""

from __future__ import annotations

import sys
from typing import Any

from nantui.devices import uses_no_gpu
from nantui.errors import FAILED, UserError
from nantui.run.spec import Spec
from nantui.run.spool import Command
from nantui.run.status import ACTIVE, STARTING, STOPPED
from nantui.supervise import spools
from nantui.supervise.helpers import helper
from nantui.supervise.keeper import Keeper
from nantui.supervise.room import ensure_room

ENDS_WAITING = frozenset({"stop", "kill"})
LOOK_S = 0.5
ROOM = "nantui.supervise.room"


def admit(keeper: Keeper, command: Command, spec: Spec) -> None:
    """Return when the run may start. Raises UserError, with who holds what, when there is no room for it.

    The option `wait_gpu` waits instead, in the open, until there is room or somebody asks to stop. Where
    it is not known which devices a script of the user's own takes, it is not refused.
    """
    device = spec.train.get("device")
    if uses_no_gpu(device) or (spec.kind == "exec" and device is None):
        return
    wait = bool(command.options.get("wait_gpu"))
    try:
        ensure_room(
            lambda: _lacks(keeper, device),
            wait_for_it=wait,
            say=lambda text: _show(keeper, command, text),
            pump=lambda seconds: _pump(keeper, seconds),
        )
    except UserError as refusal:
        _publish_refusal(keeper, str(refusal))
        raise


def _lacks(keeper: Keeper, device: Any) -> list[str]:
    """Ask in a process of its own; a driver that cannot be asked refuses nobody."""
    request = {"run": str(keeper.layout.run), "device": device}
    try:
        answer = helper(ROOM, request, python=sys.executable, pump=keeper.pump, started=keeper.start_helper)
    except UserError as error:
        keeper.say(f"the GPUs cannot be asked: {error}")
        return []
    return [str(text) for text in answer.get("lacks") or ()]


def _show(keeper: Keeper, command: Command, text: str) -> None:
    """Say it once in the journal, and keep it where everybody looks."""
    if keeper.state.state not in ACTIVE:
        keeper.publish(state=STARTING)
    if (keeper.state.doing or {}).get("text") != text:
        keeper.stage(command.id, "gpu", text)


def _pump(keeper: Keeper, seconds: float) -> None:
    while seconds > 0:
        if any(command.kind in ENDS_WAITING for _, command in spools.pending(keeper.layout)):
            raise UserError("no longer waiting for the GPU: a stop was asked for", FAILED)
        keeper.pump(min(seconds, LOOK_S))
        seconds -= LOOK_S


def _publish_refusal(keeper: Keeper, text: str) -> None:
    """A run that was being recovered, or waited for its first start, is stopped; others stay as they are."""
    state = keeper.state.state
    keeper.publish(state=STOPPED if state in ACTIVE else state, text=text)
