"""Before a worker starts, whoever asked: is there room on its GPUs, its disk, its data? May it wait for that?

Every start, resume and recovery goes through here, from a command, the cockpit or the ladder alike.
"""

from __future__ import annotations

import os
import shutil
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
            say=lambda text: show(port, command, text),
            pump=lambda seconds: pump_unless_stopped(port, seconds),
        )
    except UserError as refusal:
        # A run that was being recovered, or waited for its first start, is stopped; others stay as they are.
        state = port.state.state
        port.publish(state=STOPPED if state in ACTIVE else state, text=str(refusal))
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


def show(port: StatusPort, command: Command, text: str) -> None:
    """Say it once in the journal, and keep it where everybody looks."""
    if port.state.state not in ACTIVE:
        port.publish(state=STARTING)
    if (port.state.doing or {}).get("text") != text:
        port.stage(command.id, "gpu", text)


def pump_unless_stopped(port: WaitPort, seconds: float) -> None:
    """Wait. Raises UserError once a stop is asked for."""
    while seconds > 0:
        if any(command.kind in ENDS_WAITING for _, command in commands.pending_commands(port.layout)):
            raise UserError("no longer waiting: a stop was asked for", FAILED)
        port.pump(min(seconds, POLL_S))
        seconds -= POLL_S


def await_place(port: HelperPort, command: Command) -> None:
    """Return once the path `until_there` is there and `until_free` bytes are free on the run's disk; of its
    `thin`, old restore points that nantui made by the clock, as many go as it takes, oldest first.

    Raises UserError when a stop is asked for.
    """
    path, need = str(command.options.get("until_there") or ""), int(command.options.get("until_free") or 0)
    while path and not os.path.exists(path):
        show(port, command, f"waiting until {path} is there again")
        pump_unless_stopped(port, POLL_S)
    old = [port.layout.weights / os.path.basename(str(name)) for name in command.options.get("thin") or ()]
    while shutil.disk_usage(port.layout.run).free < need:
        if old:
            port.stage(command.id, "room", f"{old[0].name} goes, an old restore point by the clock")
            old.pop(0).unlink(missing_ok=True)
            continue
        show(port, command, f"waiting for room: {need / 1e9:.2g} GB are needed in {port.layout.run}")
        pump_unless_stopped(port, POLL_S)
