"""What is known about the machine and the data a run trains on, for remarks and remedies that depend on it.

Nothing is guessed: what neither the run's files nor the driver tell stays unknown, and rules that need it are
silent.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nantui.checkpoint.verdict import Verdict
from nantui.machine.gpus import GIB_GB, GIBIBYTE, Gpu, Sampler, chosen, device_count, has_bf16, uses_no_gpu
from nantui.run.events import InEffect, newest
from nantui.run.record import RunRecord, in_full
from nantui.run.spec import read_args
from nantui.settings.gpu_memory import COUNTS, STATES, Measured
from nantui.settings.lint import Known


def measured(
    record: RunRecord, device: object, verdicts: Iterable[Verdict] = (), gpus: Sequence[Gpu] = ()
) -> Measured | None:
    """Return the newest attempt's peak per GPU and the smallest of `gpus`; None without any, or unmeasured.

    `verdicts` are the run's checkpoints: their size tells how much of the peak the weights are.
    """
    step = record.newest.steps.newest
    peak, filled = step.memory_peak() if step else (math.nan, False)
    if not math.isfinite(peak) or peak <= 0 or not gpus:
        return None
    smallest = min(gpu.total_gb for gpu in gpus) / GIB_GB
    return Measured(peak, smallest, device_count(device), weights_gb(verdicts), filled)


def gpus_of(device: object) -> list[Gpu]:
    """Return the GPUs of this machine that `device` means; all of them where it cannot be told which."""
    gpus = () if uses_no_gpu(device) else Sampler().sample().gpus
    return chosen(gpus, device) or list(gpus)


def weights_gb(verdicts: Iterable[Verdict]) -> float:
    """Return the GiB of a model's weights in fp32, from the size of its smallest checkpoint; 0 without one.

    A checkpoint holds EMA in fp16 and the optimizer's state: SGD's momentum in fp16, both moments of Adam's
    family in fp32 (`BaseTrainer.save_model`, `convert_optimizer_state_dict_to_fp16`); stripped, the fp16
    weights alone. The head's strides, results and arguments in it are small beside them.
    """
    sizes = []
    for one in verdicts:
        momentum_alone = str(one.train_args.get("optimizer")).lower() in STATES
        bytes_per_weight = 2 if one.stripped else 4 if momentum_alone else 10
        sizes += [one.bytes * 4 / bytes_per_weight] if one.badge != "unreadable" else []
    return min(sizes, default=0.0) / GIBIBYTE


def known_about(
    record: RunRecord, settings: Mapping[str, object], epoch: int = 0, verdicts: Iterable[Verdict] = ()
) -> Known:
    """Return what is known about a run with `settings` in effect whose next epoch is `epoch`, from 0.

    Settings may have changed since the newest attempt, whose peak is measured: `now` has its own.
    """
    reported = newest(record.journal, InEffect)
    live: Mapping[str, Any] = reported.values if reported else {}
    device, images, ran_on = settings.get("device"), live.get("images"), live.get("device")
    gpus = gpus_of(device)
    own = live if reported and reported.attempt == record.standing.number else {}
    return Known(
        epoch=epoch, classes=classes_of(in_full(record, settings).get("data")),
        images=images if isinstance(images, int) else None, devices=device_count(device),
        on_gpu=False if uses_no_gpu(device) else str(ran_on).startswith("cuda") if ran_on else None,
        bf16=has_bf16(gpus), measured=measured(record, device, verdicts, gpus),
        now={**settings, **{name: own[name] for name in COUNTS if name in own}}, stride=live.get("stride"),
    )  # fmt: skip


def classes_of(data: object) -> int | None:
    """Return how many classes the data set's YAML names, None where it cannot be read here."""
    document = read_args(Path(str(data))) if data else {}
    names, count = document.get("names"), document.get("nc")
    return len(names) if isinstance(names, (list, dict)) else count if isinstance(count, int) else None
