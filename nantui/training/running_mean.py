"""The epoch's mean train loss, over the batches whose loss was finite.

Ultralytics keeps a running mean in `trainer.tloss`; one NaN batch makes the whole epoch's train loss
NaN, in the progress line and in results.csv. This one leaves such a batch out. It works in float32 on
the host and is bit-equal to Ultralytics' own as long as every batch is finite. PyTorch on CUDA divides by
a number by multiplying with its reciprocal (aten/src/ATen/native/cuda/BinaryDivTrueKernel.cu), which may
differ in the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch


class RunningMean:
    """Mean of vectors of losses, batch by batch, as a device of the type `device` rounds it."""

    def __init__(self, device: str = "cpu") -> None:
        self.mean = torch.zeros(())
        self._batches = 0
        self._by_reciprocal = device == "cuda"

    def add(self, losses: Sequence[float]) -> None:
        """Take in one batch; a batch with any non-finite loss changes nothing."""
        if all(map(math.isfinite, losses)):
            total = self.mean * self._batches + torch.tensor(losses)
            self._batches += 1
            self.mean = total * self._reciprocal() if self._by_reciprocal else total / self._batches
        elif not self._batches:
            self.mean = torch.zeros(len(losses))

    def _reciprocal(self) -> torch.Tensor:
        return torch.ones(()) / self._batches
