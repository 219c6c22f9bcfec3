"""What is known about the machine and the data a run trains on, for remarks and remedies that depend on it.

Nothing is guessed: what neither the run's files nor the driver tell stays unknown, and rules that need it are
silent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from nantui.checkpoint.verdict import Verdict
from nantui.hardware import GIGABYTE, Sampler
from nantui.recovery.signs import scan_telemetry
from nantui.run.journal import Journal, last
from nantui.run.layout import RunLayout
from nantui.run.spec import read_args
from nantui.settings.lint import Known
from nantui.settings.memory import STATES, Measured

GIBIBYTE = 2**30
"""PyTorch's figures in steps.csv are in GiB; the driver's are in GB."""


def measured(layout: RunLayout, device: object, verdicts: Iterable[Verdict] = ()) -> Measured | None:
    """Return the newest attempt's peak per GPU and the smallest GPU here; None on a CPU, or unmeasured.

    `verdicts` are the run's checkpoints: their size tells how much of the peak the weights are.
    """
    _, newest = scan_telemetry(layout, layout.newest_attempt())
    peak = newest.value("mem_peak_gb") if newest else math.nan
    if not math.isfinite(peak) or peak <= 0 or on_cpu(device):
        return None
    gpus = Sampler(layout.run).sample().gpus
    if not gpus:
        return None
    smallest = min(gpu.total_gb for gpu in gpus) * GIGABYTE / GIBIBYTE
    return Measured(peak, smallest, device_count(device), weights_gb(verdicts))


def weights_gb(verdicts: Iterable[Verdict]) -> float:
    """Return the GiB of a model's weights in fp32, from the size of its smallest checkpoint; 0 without one.

    A checkpoint holds EMA in fp16 and the optimizer's state: SGD's momentum in fp16, both moments of Adam's
    family in fp32 (`BaseTrainer.save_model`, `convert_optimizer_state_dict_to_fp16`); stripped, the fp16
    weights alone. The head's strides, results and arguments in it are small beside them.
    """
    sizes = (one.bytes * 4 / bytes_per_weight(one) for one in verdicts if one.badge != "unreadable")
    return min(sizes, default=0.0) / GIBIBYTE


def bytes_per_weight(verdict: Verdict) -> int:
    """Return how many bytes of the file one weight takes."""
    if verdict.stripped:
        return 2
    return 4 if str(verdict.train_args.get("optimizer")).lower() in STATES else 10


def known_about(
    layout: RunLayout, settings: Mapping[str, Any], epoch: int = 0, verdicts: Iterable[Verdict] = ()
) -> Known:
    """Return what is known about a run with `settings` in effect whose next epoch is `epoch`, from 0."""
    live = (last(Journal(layout.journal).entries(), "in_effect") or {}).get("values") or {}
    images = live.get("images")
    return Known(
        epoch=epoch,
        classes=classes_of(settings.get("data")),
        images=images if isinstance(images, int) else None,
        devices=device_count(settings.get("device")),
        on_gpu=on_gpu(settings.get("device"), live.get("device")),
        measured=measured(layout, settings.get("device"), verdicts),
        now=settings,
    )


def classes_of(data: object) -> int | None:
    """Return how many classes the data set's YAML names, None where it cannot be read here."""
    document = read_args(Path(str(data))) if data else {}
    names, count = document.get("names"), document.get("nc")
    return len(names) if isinstance(names, (list, dict)) else count if isinstance(count, int) else None


def on_gpu(asked: object, live: object) -> bool | None:
    """Tell whether it trains on a GPU, from what was asked and what the worker reported; None: not known."""
    if on_cpu(asked):
        return False
    return None if live is None else str(live).startswith("cuda")


def on_cpu(device: object) -> bool:
    """Tell whether `device` names no GPU: "cpu", "cpu,cpu" (ranks on the CPU) or Apple's "mps"."""
    return {part.strip() for part in str(device).split(",")} <= {"cpu", "mps"}


def device_count(device: object) -> int:
    """Return how many devices `device` means, as Ultralytics reads it."""
    parts = device if isinstance(device, (list, tuple)) else str(device).strip("[]() ").split(",")
    return max(1, len([part for part in parts if str(part).strip()]))
