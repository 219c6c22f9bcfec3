"""The epoch's mean train loss, over the batches whose loss was finite.

Ultralytics keeps a running mean in `trainer.tloss`; one NaN batch makes the whole epoch's train loss
NaN, in the progress line and in results.csv. This one leaves such a batch out. It works in float32 on
the host and is bit-equal to Ultralytics' own as long as every batch is finite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch


class RunningMean:
    """Mean of vectors of losses, batch by batch."""

    def __init__(self) -> None:
        self.mean = torch.zeros(())
        self._batches = 0

    def add(self, losses: Sequence[float]) -> None:
        """Take in one batch; a batch with any non-finite loss changes nothing."""
        if all(map(math.isfinite, losses)):
            self.mean = (self.mean * self._batches + torch.tensor(losses)) / (self._batches + 1)
            self._batches += 1
        elif not self._batches:
            self.mean = torch.zeros(len(losses))
