"""What is shown of a training that nantui did not start, before anybody decides about it."""

from __future__ import annotations

from functools import lru_cache

from nantui.hardware import Sampler
from nantui.supervise.foreign import ForeignTraining


def describe(training: ForeignTraining, gpu_gb: float | None = None) -> str:
    """Return one line: whose process it is, from where, how old, what it holds, and its command."""
    place = f", from {training.origin}" if training.origin else ""
    gpu = f", {gpu_gb:.1f} GB of GPU memory" if gpu_gb else ""
    hours = training.age_s / 3600
    whose = f"process {training.root.pid} of {training.user}{place}"
    return f"{whose}, {hours:.1f} h old{gpu}: {training.command}"


def gpu_memory_gb(training: ForeignTraining) -> float:
    """Return the GPU memory that its processes hold, in GB; 0 where the driver does not say."""
    return sum(gpu.ours_gb for gpu in _sampler().sample(training.pids).gpus)


@lru_cache(maxsize=1)
def _sampler() -> Sampler:
    return Sampler()
