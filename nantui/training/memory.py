"""How much memory this rank holds, for its row of telemetry."""

from __future__ import annotations

import os

import torch

GIBIBYTE = 2**30


def memory_gb(device: torch.device) -> tuple[float, float, float | None]:
    """Return GiB of GPU memory reserved, its peak, and the peak that tensors filled (the allocator keeps more
    than that, e.g. blocks that fitted a validation); on the CPU the process' resident memory, its peak, None.
    """
    if device.type == "cuda":
        cuda = torch.cuda
        peaks = cuda.max_memory_reserved(device) / GIBIBYTE, cuda.max_memory_allocated(device) / GIBIBYTE
        return cuda.memory_reserved(device) / GIBIBYTE, *peaks
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    with open("/proc/self/statm", encoding="ascii") as file:
        resident = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / GIBIBYTE
    return resident, peak, None
