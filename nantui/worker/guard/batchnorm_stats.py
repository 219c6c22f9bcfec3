"""The running statistics of normalization layers: looked at and remembered with one copy a step.

The forward pass of a bad batch pollutes them even where the optimizer's step is skipped. Joining them
into one vector gives both what must be checked and what must be put back.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from nantui.worker import ultralytics_api


@dataclass(frozen=True)
class Snapshot:
    """A copy of all running statistics: the floats, and the integer counters of batches."""

    floats: torch.Tensor
    counters: torch.Tensor


class BatchNormStatistics:
    """Copies of a model's normalization buffers and the way back."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._nothing = torch.zeros(0, device=next(model.parameters()).device)
        self.refresh()
        self._good = self.snapshot()

    def refresh(self) -> None:
        """Find the buffers again: something may have replaced their storage (`model.to`, `half`)."""
        every = [buffer.detach().view(-1) for buffer in ultralytics_api.normalization_buffers(self._model)]
        self._floats = [buffer for buffer in every if buffer.is_floating_point()]
        self._counters = [buffer for buffer in every if not buffer.is_floating_point()]

    def snapshot(self) -> Snapshot:
        """Return a copy of the statistics as they are now."""
        return Snapshot(
            torch.cat(self._floats) if self._floats else self._nothing,
            torch.cat(self._counters) if self._counters else self._nothing,
        )

    @staticmethod
    def peak(snapshot: Snapshot) -> torch.Tensor:
        """Return the largest magnitude as a 0-dim tensor: NaN or Inf when any value is."""
        if snapshot.floats.numel() == 0:
            return snapshot.floats.new_zeros(())
        return torch.linalg.vector_norm(snapshot.floats.float(), ord=float("inf"))

    def remember(self, snapshot: Snapshot) -> None:
        """Make `snapshot` the state that `restore` goes back to."""
        self._good = snapshot

    def restore(self) -> None:
        """Put the remembered statistics back into the model."""
        for buffers, copy in ((self._floats, self._good.floats), (self._counters, self._good.counters)):
            if buffers:
                torch._foreach_copy_(buffers, list(copy.split([buffer.numel() for buffer in buffers])))
