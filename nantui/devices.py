"""What `device` means before anything is started: the CPU or which GPUs, how many, and what these can do."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from nantui.hardware import Gpu

BF16_SINCE = 8.0
"""The CUDA compute capability from which a GPU has bfloat16 itself (`torch.cuda.is_bf16_supported`)."""


def uses_no_gpu(device: Any) -> bool:
    """Tell whether `device` names no CUDA GPU for certain: "cpu", "cpu,cpu" (two ranks on it), "mps"."""
    return str(device).strip().lower().startswith(("cpu", "mps"))


def device_count(device: Any) -> int:
    """Return how many devices `device` means, as Ultralytics reads it."""
    return max(1, len(words_of(device)))


def words_of(device: Any) -> list[str]:
    """Return the devices named one by one: "0,1", [0, 1] and 0 name GPUs; nothing where it is left open."""
    if device is None:
        return []
    parts = device if isinstance(device, (list, tuple)) else str(device).strip("[]() ").split(",")
    return [word for part in parts if (word := str(part).strip())]


def chosen(gpus: tuple[Gpu, ...], device: Any, environment: Mapping[str, str] = os.environ) -> list[Gpu]:
    """Return the GPUs that `device` names ("0,1", [0, 1], 0): none for the CPU, the first where unset.

    CUDA counts from 0 within CUDA_VISIBLE_DEVICES (Ultralytics 8.4 leaves that variable alone), NVML counts
    all; where the variable holds no plain numbers nothing can be said.
    """
    visible = visible_indexes(gpus, environment.get("CUDA_VISIBLE_DEVICES"))
    words = [word.removeprefix("cuda:") for word in words_of(device)]
    wanted = {"0"} if words in ([], ["cuda"]) else set(words)
    indexes = {index for place, index in enumerate(visible) if str(place) in wanted}
    return [gpu for gpu in gpus if gpu.index in indexes]


def visible_indexes(gpus: tuple[Gpu, ...], variable: str | None) -> list[int]:
    """Return the indexes of the GPUs that CUDA sees, in its order."""
    if variable is None:
        return [gpu.index for gpu in gpus]
    words = [word.strip() for word in variable.split(",")]
    return [int(word) for word in words] if all(word.isdigit() for word in words) else []


def has_bf16(gpus: Iterable[Gpu]) -> bool | None:
    """Tell whether every one of `gpus` supports bfloat16; None where that is not known, or there is none."""
    known = [gpu.capability for gpu in gpus]
    if any(one is not None and one < BF16_SINCE for one in known):
        return False
    return True if known and None not in known else None
