"""Is there room on the GPUs for this run? What others hold is compared with what the run once needed.

`python -m nantui.supervise.room REQUEST.json` answers for the supervisor, in a process of its own: a driver
that hangs then holds up nobody who watches a training.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nantui.errors import FAILED, UserError
from nantui.hardware import Gpu, Sampler
from nantui.run.files import read_json
from nantui.run.layout import RunLayout
from nantui.supervise.tail import first_line, last_lines

FULL_SHARE = 0.9
"""Without an earlier peak a GPU is refused only when others hold nearly all of it."""
LOOK_S = 5.0
JUST_ENDED_S, JUST_ENDED_LOOK_S = 2.0, 0.5
"""The driver frees the memory of a process a moment after its end; refusing before that would be wrong."""
WHAT_TO_DO = "free it, choose another device=, or wait for it with --wait-gpu (nantui resume RUN --wait-gpu)"
Look = Callable[[], tuple[Gpu, ...]]


def ensure_room(
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
        patience_s = JUST_ENDED_LOOK_S if time.monotonic() - begun < JUST_ENDED_S else LOOK_S
        if patience_s == LOOK_S and not wait_for_it:
            raise UserError(f"{found[0]}; {WHAT_TO_DO}", FAILED)
        if wait_for_it:
            say(f"waiting for room: {found[0]}")
        pump(patience_s)


def lacks(layout: RunLayout | None, device: Any, look: Look | None = None) -> list[str]:
    """Return which GPUs of `device` have no room and why; empty when all have, or there is none to ask."""
    look = look or (lambda: Sampler(layout.run if layout else None).sample().gpus)
    if uses_no_gpu(device):
        return []
    needed_gb = earlier_peak_gb(layout) if layout else None
    return [text for gpu in chosen(look(), device) if (text := lack(gpu, needed_gb))]


def uses_no_gpu(device: Any) -> bool:
    """Tell whether `device` names no CUDA GPU for certain."""
    return str(device).strip().lower().startswith(("cpu", "mps"))


def chosen(gpus: tuple[Gpu, ...], device: Any, environment: Mapping[str, str] = os.environ) -> list[Gpu]:
    """Return the GPUs that `device` names ("0,1", [0, 1], 0): none for the CPU, the first where unset.

    CUDA counts from 0 within CUDA_VISIBLE_DEVICES (Ultralytics 8.4 leaves that variable alone), NVML counts
    all; where the variable holds no plain numbers nothing can be said.
    """
    visible = visible_indexes(gpus, environment.get("CUDA_VISIBLE_DEVICES"))
    if device in (None, "", "cuda"):
        wanted = {"0"}
    else:
        words = device if isinstance(device, (list, tuple)) else str(device).strip("[]() ").split(",")
        wanted = {str(word).strip().removeprefix("cuda:") for word in words}
    indexes = {index for place, index in enumerate(visible) if str(place) in wanted}
    return [gpu for gpu in gpus if gpu.index in indexes]


def visible_indexes(gpus: tuple[Gpu, ...], variable: str | None) -> list[int]:
    """Return the indexes of the GPUs that CUDA sees, in its order."""
    if variable is None:
        return [gpu.index for gpu in gpus]
    words = [word.strip() for word in variable.split(",")]
    return [int(word) for word in words] if all(word.isdigit() for word in words) else []


def lack(gpu: Gpu, needed_gb: float | None) -> str:
    """Return why a GPU has no room, empty when it has."""
    others = gpu.others_gb
    room = gpu.total_gb - others
    if needed_gb is None and others <= FULL_SHARE * gpu.total_gb:
        return ""
    if needed_gb is not None and needed_gb <= room:
        return ""
    who = ", ".join(sorted({one.user or f"process {one.pid}" for one in gpu.processes if not one.ours}))
    need = f", this run needed {needed_gb:.1f} GB" if needed_gb is not None else ""
    return f"GPU {gpu.index}: {others:.1f} of {gpu.total_gb:.1f} GB are held by {who or 'others'}{need}"


def earlier_peak_gb(layout: RunLayout) -> float | None:
    """Return the most GPU memory the run has needed so far, in GB; None where it never trained on one."""
    peaks = [_peak(layout.steps(number)) for number in layout.attempt_numbers()]
    return max((peak for peak in peaks if peak is not None), default=None)


def _peak(path: Path) -> float | None:
    header = first_line(path).split(",")
    if "mem_peak_gb" not in header:
        return None
    place = header.index("mem_peak_gb")
    cells = [row[place] for row in csv.reader(last_lines(path)) if len(row) == len(header)]
    try:
        return max((float(cell) for cell in cells if cell and cell != "mem_peak_gb"), default=None)
    except ValueError:
        return None


def main() -> int:
    """Answer one request, {"run", "device"}, on stdout: {"ok": true, "lacks": [why, ...]}."""
    request = read_json(Path(sys.argv[1])) or {}
    found = lacks(RunLayout(Path(str(request.get("run")))), request.get("device"))
    print(json.dumps({"ok": True, "lacks": found}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
