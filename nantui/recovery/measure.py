"""GPU memory of the run: its own peak, and what the device has, for remedies that need more of it."""

from __future__ import annotations

import math

from nantui.hardware import Sampler
from nantui.recovery.signs import scan_telemetry
from nantui.run.layout import RunLayout
from nantui.settings.memory import Measured


def measured(layout: RunLayout, device: object) -> Measured | None:
    """Return the newest attempt's peak per GPU and the smallest GPU here; None on a CPU, or unmeasured."""
    numbers = layout.attempt_numbers()
    _, newest = scan_telemetry(layout, numbers[-1]) if numbers else (None, None)
    peak = newest.value("mem_peak_gb") if newest else math.nan
    if not math.isfinite(peak) or peak <= 0 or str(device) in ("cpu", "mps"):
        return None
    gpus = Sampler(layout.run).sample().gpus
    return Measured(peak, min(gpu.total_gb for gpu in gpus), device_count(device)) if gpus else None


def device_count(device: object) -> int:
    """Return how many devices `device` means, as Ultralytics reads it."""
    parts = device if isinstance(device, (list, tuple)) else str(device).strip("[]() ").split(",")
    return max(1, len([part for part in parts if str(part).strip()]))
