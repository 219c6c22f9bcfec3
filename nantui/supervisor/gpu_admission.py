"""Is there room on the GPUs for this run? What others hold is compared with what the run once needed.

`python -m nantui.supervisor.gpu_admission REQUEST.json` answers for the supervisor, in a process of its own:
a driver that hangs then holds up nobody who watches a training.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

from nantui.errors import FAILED, UserError
from nantui.machine.gpus import GIBIBYTE, GIGABYTE, Gpu, Sampler, chosen, uses_no_gpu
from nantui.run.atomic_files import read_json
from nantui.run.attempts import read_attempt
from nantui.run.layout import RunLayout
from nantui.run.telemetry import last_step
from nantui.settings.gpu_memory import CONTEXT_GB, reserved_gb

FULL_SHARE = 0.9
"""Without an earlier peak a GPU is refused only when others hold nearly all of it."""
POLL_S = 5.0
JUST_ENDED_S, JUST_ENDED_LOOK_S = 2.0, 0.5
"""The driver frees the memory of a process a moment after its end; refusing before that would be wrong."""
WHAT_TO_DO = "free it, choose another device=, or wait for it with --wait-gpu (nantui resume RUN --wait-gpu)"
ReadGpus = Callable[[], tuple[Gpu, ...]]


def ensure_gpu_memory(
    lacks: Callable[[], list[str]],
    *,
    wait_for_it: bool,
    say: Callable[[str], None] = lambda text: None,
    pump: Callable[[float], None] = time.sleep,
) -> None:
    """Return when `lacks` finds nothing. Raises UserError with who holds what, unless it is waited for.

    `pump(seconds)` waits; it may raise to end the waiting.
    """
    begun = time.monotonic()
    while found := lacks():
        patience_s = JUST_ENDED_LOOK_S if time.monotonic() - begun < JUST_ENDED_S else POLL_S
        if patience_s == POLL_S and not wait_for_it:
            raise UserError(f"{found[0]}; {WHAT_TO_DO}", FAILED)
        if wait_for_it:
            say(f"waiting for room: {found[0]}")
        pump(patience_s)


def gpu_shortages(layout: RunLayout | None, device: object, read_gpus: ReadGpus | None = None) -> list[str]:
    """Return which GPUs of `device` have no room and why; empty when all have, or there is none to ask."""
    read_gpus = read_gpus or (lambda: Sampler(layout.run if layout else None).sample().gpus)
    if uses_no_gpu(device):
        return []
    needed_gb = earlier_peak_gb(layout) if layout else None
    return [text for gpu in chosen(read_gpus(), device) if (text := gpu_shortage(gpu, needed_gb))]


def gpu_shortage(gpu: Gpu, needed_gb: float | None) -> str:
    """Return why a GPU has no room, empty when it has."""
    others = gpu.others_gb
    free_gb = gpu.total_gb - others
    if needed_gb is None and others <= FULL_SHARE * gpu.total_gb:
        return ""
    if needed_gb is not None and needed_gb <= free_gb:
        return ""
    who = ", ".join(sorted({one.user or f"process {one.pid}" for one in gpu.processes if not one.ours}))
    need = f", this run needed {needed_gb:.1f} GB" if needed_gb is not None else ""
    return f"GPU {gpu.index}: {others:.1f} of {gpu.total_gb:.1f} GB are held by {who or 'others'}{need}"


def earlier_peak_gb(layout: RunLayout) -> float | None:
    """Return the most GPU memory the run has needed so far, CUDA's own part included, in GB (10^9, as the
    driver counts); None where it never trained on one.
    """
    peaks = [_peak(layout, number) for number in layout.attempt_numbers()]
    most = max((peak for peak in peaks if math.isfinite(peak)), default=None)
    return None if most is None else (most + CONTEXT_GB) * GIBIBYTE / GIGABYTE


def _peak(layout: RunLayout, number: int) -> float:
    """Return the GiB that PyTorch had to reserve in an attempt, NaN where it never trained on a GPU."""
    step, attempt = last_step(layout.steps(number)), read_attempt(layout, number)
    return reserved_gb(*step.memory_peak(), attempt.train if attempt else {}) if step else math.nan


def main() -> int:
    """Answer one request, {"run", "device"}, on stdout: {"ok": true, "lacks": [why, ...]}."""
    request = read_json(Path(sys.argv[1])) or {}
    found = gpu_shortages(RunLayout(Path(str(request.get("run")))), request.get("device"))
    print(json.dumps({"ok": True, "lacks": found}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
