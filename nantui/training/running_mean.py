"""The epoch's mean train loss, over the batches whose loss was finite.

Ultralytics keeps a running mean in `trainer.tloss`; one NaN batch makes the whole epoch's train loss
NaN, in the progress line and in results.csv. This one leaves such a batch out, on the device, without
waiting for the GPU, and is bit-equal to Ultralytics' own as long as every batch is finite.
"""

from __future__ import annotations

import torch


class RunningMean:
    """Mean of vectors of losses, batch by batch."""

    def __init__(self, first: torch.Tensor) -> None:
        """Begin an epoch with its first batch's losses, a float vector of shape (losses,)."""
        self.mean = torch.zeros_like(first)
        self._batches = torch.zeros((), dtype=first.dtype, device=first.device)
        self.add(first)

    def add(self, losses: torch.Tensor) -> None:
        """Take in one batch; a batch with any non-finite loss changes nothing."""
        finite = torch.isfinite(losses).all()
        moved = (self.mean * self._batches + losses) / (self._batches + 1)
        self.mean = torch.where(finite, moved, self.mean)
        self._batches = self._batches + finite
