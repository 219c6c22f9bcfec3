"""Is there room on the GPUs for this run? What others hold is compared with what the run once needed."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nantui.errors import FAILED, UserError
from nantui.hardware import Gpu, Sampler
from nantui.run.layout import RunLayout
from nantui.supervise.tail import first_line, last_lines

FULL_SHARE = 0.9
"""Without an earlier peak a GPU is refused only when others hold nearly all of it."""
LOOK_S = 5.0
Look = Callable[[], tuple[Gpu, ...]]


def ensure_room(
    layout: RunLayout | None,
    device: Any,
    *,
    wait_for_it: bool,
    look: Look | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Return when the GPUs of `device` have room. Raises UserError with who holds what, unless waiting."""
    look = look or (lambda: Sampler(layout.run if layout else None).sample().gpus)
    needed_gb = earlier_peak_gb(layout) if layout else None
    while True:
        full = [text for gpu in chosen(look(), device) if (text := lack(gpu, needed_gb))]
        if not full:
            return
        if not wait_for_it:
            raise UserError(f"{full[0]}; free it, choose another device=, or add --wait-gpu", FAILED)
        say(f"waiting: {full[0]}")
        time.sleep(LOOK_S)


def chosen(gpus: tuple[Gpu, ...], device: Any) -> list[Gpu]:
    """Return the GPUs that `device` names ("0,1", [0, 1], 0): none for the CPU, the first where unset."""
    if device in (None, "", "cuda"):
        return list(gpus[:1])
    words = device if isinstance(device, (list, tuple)) else str(device).strip("[]() ").split(",")
    numbers = {str(word).strip().removeprefix("cuda:") for word in words}
    return [gpu for gpu in gpus if str(gpu.index) in numbers]


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
