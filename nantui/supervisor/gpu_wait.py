"""Before a worker starts, whoever asked for it: is there room on its GPUs, and may it wait for some?

Every start, resume and recovery goes through here, from a command, the cockpit or the ladder alike.
"""

from __future__ import annotations

import sys

from nantui import entry_points
from nantui.errors import FAILED, UserError
from nantui.machine.gpus import uses_no_gpu
from nantui.run import commands
from nantui.run.commands import Command
from nantui.run.spec import Spec
from nantui.run.status import ACTIVE, STARTING, STOPPED
from nantui.supervisor.gpu_admission import ensure_gpu_memory
from nantui.supervisor.helper_process import helper
from nantui.supervisor.ports import HelperPort, StatusPort, WaitPort

ENDS_WAITING = frozenset({"stop", "kill"})
POLL_S = 0.5
GPU_ADMISSION = entry_points.GPU_ADMISSION


def admit(port: HelperPort, command: Command, spec: Spec) -> None:
    """Return when the run may start. Raises UserError, with who holds what, when there is no room for it.

    The option `wait_gpu` waits instead, in the open, until there is room or somebody asks to stop. Where
    it is not known which devices a script of the user's own takes, it is not refused.
    """
    device = spec.train.get("device")
    if uses_no_gpu(device) or (spec.kind == "exec" and device is None):
        return
    wait = bool(command.options.get("wait_gpu"))
    try:
        ensure_gpu_memory(
            lambda: _gpu_shortages(port, device),
            wait_for_it=wait,
            say=lambda text: _show(port, command, text),
            pump=lambda seconds: _pump(port, seconds),
        )
    except UserError as refusal:
        _publish_refusal(port, str(refusal))
        raise


def _gpu_shortages(port: WaitPort, device: object) -> list[str]:
    """Ask in a process of its own; a driver that cannot be asked refuses nobody."""
    request = {"run": str(port.layout.run), "device": device}
    try:
        answer = helper(
            GPU_ADMISSION, request, python=sys.executable, pump=port.pump, started=port.start_helper
        )
    except UserError as error:
        port.say(f"the GPUs cannot be asked: {error}")
        return []
    return [str(text) for text in answer.get("lacks") or ()]


def _show(port: StatusPort, command: Command, text: str) -> None:
    """Say it once in the journal, and keep it where everybody looks."""
    if port.state.state not in ACTIVE:
        port.publish(state=STARTING)
    if (port.state.doing or {}).get("text") != text:
        port.stage(command.id, "gpu", text)


def _pump(port: WaitPort, seconds: float) -> None:
    while seconds > 0:
        if any(command.kind in ENDS_WAITING for _, command in commands.pending_commands(port.layout)):
            raise UserError("no longer waiting for the GPU: a stop was asked for", FAILED)
        port.pump(min(seconds, POLL_S))
        seconds -= POLL_S


def _publish_refusal(port: StatusPort, text: str) -> None:
    """A run that was being recovered, or waited for its first start, is stopped; others stay as they are."""
    state = port.state.state
    port.publish(state=STOPPED if state in ACTIVE else state, text=text)
