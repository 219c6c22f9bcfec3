"""Before a worker starts, whoever asked: is there room on its GPUs, its disk, its data? May it wait for that?

Every start, resume and recovery goes through here, from a command, the cockpit or the ladder alike. What
others hold of a GPU is compared with what the run once needed, and what it has counted of errors is noted;
`python -m nantui.supervisor.gpu_admission REQUEST.json` does so in a process of its own: a driver that hangs
holds up nobody who watches a training.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from nantui import entry_points
from nantui.errors import FAILED, UserError
from nantui.machine.gpus import ANSWERS_S, GIB_GB, Gpu, Sampler, chosen, uses_no_gpu
from nantui.run import commands
from nantui.run.atomic_files import read_json
from nantui.run.commands import Command
from nantui.run.documents import JsonObject, Settings
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from nantui.run.spec import Spec
from nantui.run.status import ACTIVE, STARTING, STOPPED
from nantui.run.telemetry import last_step
from nantui.settings.gpu_memory import CONTEXT_GB, load, reserved_gb
from nantui.supervisor.gpu_marks import SOON_S, uncorrected
from nantui.supervisor.helper_process import helper
from nantui.supervisor.ports import RunPort

LITTLE_SHARE, LITTLE_GB = 0.1, 4.0
"""Without an earlier peak a GPU is refused only where others leave less than this share and so many GB."""
EMPTY_SHARE = 0.02
"""A GPU of which others hold no more is as empty as it gets: waiting for more room would be for ever."""
POLL_S, STOP_POLL_S = 5.0, 0.5
JUST_ENDED_S, JUST_ENDED_LOOK_S = 2.0, 0.5
"""The driver frees the memory of a process a moment after its end; refusing before that would be wrong."""
WHAT_TO_DO = "free it, choose another device=, or wait for it with --wait-gpu (nantui resume RUN --wait-gpu)"


def admit(port: RunPort, command: Command, spec: Spec) -> JsonObject:
    """Return when the run may start, with what its GPUs have counted of errors (`uncorrected`), {} where none
    answers soon. Raises UserError, with who holds what, when there is no room for it.

    The option `wait_gpu` waits instead, in the open, until there is room or somebody asks to stop. Where
    it is not known which devices a script of the user's own takes, it is not refused.
    """
    device, answer = spec.train.get("device"), dict[str, Any]()
    if uses_no_gpu(device):
        return {}

    def lacks() -> list[str]:
        nonlocal answer
        answer = _asked(port, spec.train)
        return list(answer.get("lacks") or ()) if spec.kind != "exec" or device is not None else []

    try:
        ensure_gpu_memory(
            lacks, wait_for_it=bool(command.options.get("wait_gpu")),
            say=lambda text: _show(port, command, text),
            pump=lambda seconds: _pump_unless_stopped(port, seconds),
        )  # fmt: skip
    except UserError as refusal:
        # A run that was being recovered, or waited for its first start, is stopped; others stay as they are.
        state = port.state.state
        port.publish(state=STOPPED if state in ACTIVE else state, text=str(refusal))
        raise
    return dict(answer.get("gpus") or {})


def _asked(port: RunPort, train: Settings) -> JsonObject:
    """Ask in a process of its own; a driver that cannot be asked refuses nobody. Where it takes so long that
    it would seem dead once the training has ended, nothing is noted of it.
    """
    request = {"run": str(port.layout.run), "device": train.get("device"), "train": train}
    begun = time.monotonic()
    try:
        answer = helper(
            entry_points.GPU_ADMISSION, request, python=sys.executable, pump=port.pump,
            started=port.start_helper, limit_s=ANSWERS_S,
        )  # fmt: skip
    except (UserError, OSError) as error:
        port.say(f"the GPUs cannot be asked: {error}")
        return {}
    return answer if time.monotonic() - begun < SOON_S else {**answer, "gpus": {}}


def _show(port: RunPort, command: Command, text: str) -> None:
    """Say it once in the journal, and keep it where everybody looks."""
    if port.state.state not in ACTIVE:
        port.publish(state=STARTING)
    if (port.state.doing or {}).get("text") != text:
        port.stage(command.id, "gpu", text)


def _pump_unless_stopped(port: RunPort, seconds: float) -> None:
    """Wait. Raises UserError once a stop is asked for."""
    while seconds > 0:
        if any(command.kind in commands.ENDS for _, command in commands.pending_commands(port.layout)):
            raise UserError("no longer waiting: a stop was asked for", FAILED)
        port.pump(min(seconds, STOP_POLL_S))
        seconds -= STOP_POLL_S


def await_place(port: RunPort, command: Command) -> None:
    """Return once the path `until_there` is there and `until_free` bytes are free on the run's disk; of its
    `thin`, old restore points that nantui made by the clock, as many go as it takes, oldest first.

    Raises UserError when a stop is asked for.
    """
    path, need = str(command.options.get("until_there") or ""), int(command.options.get("until_free") or 0)
    while path and not os.path.exists(path):
        _show(port, command, f"waiting until {path} is there again")
        _pump_unless_stopped(port, STOP_POLL_S)
    old = [port.layout.weights / os.path.basename(str(name)) for name in command.options.get("thin") or ()]
    while shutil.disk_usage(port.layout.run).free < need:
        if old:
            port.stage(command.id, "room", f"{old[0].name} goes, an old restore point by the clock")
            old.pop(0).unlink(missing_ok=True)
            continue
        _show(port, command, f"waiting for room: {need / 1e9:.2g} GB are needed in {port.layout.run}")
        _pump_unless_stopped(port, STOP_POLL_S)


def ensure_gpu_memory(
    lacks: Callable[[], list[str]], *, wait_for_it: bool, say: Callable[[str], None] = lambda text: None,
    pump: Callable[[float], None] = time.sleep,
) -> None:  # fmt: skip
    """Return when `lacks` finds nothing. Raises UserError with who holds what, unless it is waited for, and
    what `pump`, which waits, raises to end that.
    """
    begun = time.monotonic()
    while found := lacks():
        patience_s = JUST_ENDED_LOOK_S if time.monotonic() - begun < JUST_ENDED_S else POLL_S
        if patience_s == POLL_S and not wait_for_it:
            raise UserError(f"{found[0]}; {WHAT_TO_DO}", FAILED)
        if wait_for_it:
            say(f"waiting for room: {found[0]}")
        pump(patience_s)


def gpu_shortages(gpus: Iterable[Gpu], layout: RunLayout | None, train: Settings) -> list[str]:
    """Return which GPUs have no room for the settings `train`, and why; `layout` tells what it once took."""
    needed_gb = earlier_peak_gb(layout, train) if layout else None
    return [text for gpu in gpus if (text := _shortage(gpu, needed_gb))]


def _shortage(gpu: Gpu, needed_gb: float | None) -> str:
    others, little = gpu.others_gb, min(LITTLE_GB, LITTLE_SHARE * gpu.total_gb)
    if others <= max(gpu.total_gb - (little if needed_gb is None else needed_gb), EMPTY_SHARE * gpu.total_gb):
        return ""
    who = ", ".join(sorted({one.user or f"process {one.pid}" for one in gpu.processes if not one.ours}))
    need = f", this run needs {needed_gb:.1f} GB" if needed_gb is not None else ""
    return f"GPU {gpu.index}: {others:.1f} of {gpu.total_gb:.1f} GB are held by {who or 'others'}{need}"


def earlier_peak_gb(layout: RunLayout, then: Settings | None = None) -> float | None:
    """Return the most GPU memory the run has needed so far, CUDA's own part included, in GB (10^9, as the
    driver counts); None where it never trained on one.

    With `then` it is what a start with these settings needs at least: less where they take less than those
    of the peak, and without what PyTorch's allocator only keeps, as it gives that back when it is short.
    """
    peaks, record = [], RunRecord(layout)
    for one in record.attempts:
        step = last_step(layout.steps(one.number))
        if step is not None:
            peak, filled = step.memory_peak()
            reported = one.in_effect.values if then is not None and one.in_effect else {}
            now = {**(one.asked.train if one.asked else {}), **reported}
            share = 1.0 if then is None else min(load({**now, **then}) / load(now), 1.0)
            peaks.append(share * reserved_gb(peak, filled and then is None, now))
    most = max(filter(math.isfinite, peaks), default=None)
    return None if most is None else (most + CONTEXT_GB) * GIB_GB


def main() -> int:
    """Answer one request, {"run", "device", "train"}, on stdout: {"ok": true, "lacks": [why, ...], "gpus":
    uncorrectable errors by address}.
    """
    request = read_json(Path(sys.argv[1])) or {}
    layout, train = RunLayout(Path(str(request.get("run")))), request.get("train")
    gpus = chosen(Sampler().sample(within_s=None).gpus, request.get("device"))
    lacks = gpu_shortages(gpus, layout, train if isinstance(train, dict) else {})
    print(json.dumps({"ok": True, "lacks": lacks, "gpus": uncorrected(gpus)}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
