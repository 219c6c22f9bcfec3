"""How much memory this rank holds, for its row of telemetry."""

from __future__ import annotations

import os

import torch


def memory_gb(device: torch.device) -> tuple[float, float]:
    """Return GB of GPU memory reserved and its peak, on the CPU the process' resident memory and its peak."""
    if device.type == "cuda":
        return torch.cuda.memory_reserved(device) / 2**30, torch.cuda.max_memory_reserved(device) / 2**30
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    with open("/proc/self/statm", encoding="ascii") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**30
    return resident, peak
