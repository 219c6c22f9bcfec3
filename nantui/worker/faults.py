"""Faults on request, for tests and the demo; imported only when an attempt asks for one.

A fault is `{"fault": kind, "epoch": 4, "batch": 3, "rank": 0, "times": 1, "attempt": 1}`: epoch and batch
count from 1; a missing `rank` is 0, a missing `attempt` any; `times` is for how many batches in a row.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import nn

from nantui.errors import UserError
from nantui.run.documents import JsonObject
from nantui.worker import ultralytics_api
from nantui.worker.ultralytics_types import Batch, Losses, RunningTrainer

ON_BATCH = frozenset(
    ("nan_pixel", "inf_pixel", "nan_label", "nan_weight", "nan_ema", "batchnorm_nan")
    + ("slow_step", "out_of_memory", "cuda_error", "exception", "kill")
)
ON_LOSS = {"nan_loss": float("nan"), "inf_loss": float("inf"), "loss_spike": 1e6, "zero_loss": 0.0}
ON_GRADIENT = {"nan_gradient": float("nan"), "inf_gradient": float("inf")}
ON_SAVE = frozenset(("save_failure", "strip_failure"))
KINDS = ON_BATCH | set(ON_LOSS) | set(ON_GRADIENT) | ON_SAVE


@dataclass(frozen=True)
class Fault:
    """One fault; `seconds` only for slow_step."""

    fault: str
    epoch: int = 1
    batch: int = 1
    rank: int = 0
    times: int = 1
    attempt: int | None = None
    seconds: float = 1.0


class Faults:
    """The faults of one rank in one attempt."""

    def __init__(self, wanted: list[dict[str, object]], attempt: int, rank: int) -> None:
        """Raises UserError for a kind that does not exist."""
        faults = [_fault(document) for document in wanted]
        self._faults = [f for f in faults if f.rank == rank and f.attempt in (None, attempt)]

    def on_batch(self, trainer: RunningTrainer, batch: Batch) -> None:
        """Spoil a batch, the model or the machine before the forward pass."""
        for fault in self._due(trainer, ON_BATCH):
            _spoil_batch(fault, trainer, batch)
        for fault in self._due(trainer, ON_LOSS):
            _spoil_loss(ultralytics_api.unwrapped(trainer.model), ON_LOSS[fault.fault])

    def on_gradients(self, trainer: RunningTrainer) -> None:
        """Spoil this rank's gradients after the backward pass (and after DDP's all-reduce)."""
        for fault in self._due(trainer, ON_GRADIENT):
            gradient = next(p.grad for p in trainer.model.parameters() if p.grad is not None)
            _spoil_first(gradient, ON_GRADIENT[fault.fault])

    def on_save(self, trainer: RunningTrainer, kind: str = "save_failure") -> None:
        """Raise as a full disk would, in the epoch of a save_failure, or when the last epoch is stripped."""
        epoch = trainer.epoch + 1
        for fault in self._faults:
            if fault.fault == kind and fault.epoch <= epoch < fault.epoch + fault.times:
                raise OSError(errno.ENOSPC, "No space left on device (injected)")

    def _due(self, trainer: RunningTrainer, kinds: Collection[str]) -> list[Fault]:
        place = trainer.session.progress
        here = [fault for fault in self._faults if fault.fault in kinds and fault.epoch == place.epoch]
        return [fault for fault in here if fault.batch <= (place.step or 0) < fault.batch + fault.times]


def _fault(document: JsonObject) -> Fault:
    kind = document.get("fault")
    if kind not in KINDS:
        raise UserError(f"no such fault: {kind!r}; there are {', '.join(sorted(KINDS))}")
    try:
        return Fault(**document)
    except TypeError as error:
        raise UserError(f"fault {kind}: {error}") from error


def _spoil_first(tensor: torch.Tensor, value: float) -> None:
    """Replace the first value, in whatever order the tensor lies in memory (channels-last on a GPU)."""
    tensor.detach()[(0,) * tensor.dim()] = value


def _spoil_batch(fault: Fault, trainer: RunningTrainer, batch: Batch) -> None:
    kind, model = fault.fault, ultralytics_api.unwrapped(trainer.model)
    if kind in ("nan_pixel", "inf_pixel"):
        batch["img"][-1, 0, 0, 0] = float(kind[:3])
    elif kind == "nan_label":
        batch["bboxes"][0] = float("nan")
    elif kind == "nan_weight":
        with torch.no_grad():
            _spoil_first(next(p for p in model.parameters() if p.requires_grad), float("nan"))
    elif kind == "nan_ema":
        _spoil_first(next(iter(trainer.ema.ema.parameters())), float("nan"))
    elif kind == "batchnorm_nan":
        for buffer in ultralytics_api.normalization_buffers(model):
            if buffer.is_floating_point():
                buffer.fill_(float("nan"))
    else:
        _disturb(fault, batch["img"].device)


def _disturb(fault: Fault, device: torch.device) -> None:
    """Faults of the machine rather than of the numbers; a GPU is really filled, until PyTorch raises."""
    if fault.fault == "slow_step":
        time.sleep(fault.seconds)
    elif fault.fault == "out_of_memory":
        filling = []
        while device.type == "cuda":
            filling.append(torch.empty(2**28, dtype=torch.uint8, device=device))
        raise RuntimeError("CUDA out of memory (injected)")
    elif fault.fault == "cuda_error":
        raise RuntimeError("CUDA error: uncorrectable ECC error encountered (injected)")
    elif fault.fault == "exception":
        raise ValueError("a bug in somebody's code (injected)")
    elif fault.fault == "kill":
        os.kill(os.getpid(), signal.SIGKILL)


def _spoil_loss(model: nn.Module, factor: float) -> None:
    """Multiply the loss and its items in the next forward pass, once."""

    def spoil(
        module: nn.Module, inputs: object, output: tuple[torch.Tensor, Losses]
    ) -> tuple[torch.Tensor, Losses]:
        handle.remove()
        loss, items = output
        if isinstance(items, dict):
            return loss * factor, {name: value * factor for name, value in items.items()}
        return loss * factor, items * factor

    handle = model.register_forward_hook(spoil)
