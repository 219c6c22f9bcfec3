"""Copies of all that a batch may change, each made in a few pieces, and the way back, bit for bit."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from nantui.worker import ultralytics_api
from nantui.worker.ultralytics_types import Trainer


class Joined:
    """Tensors that are copied together: those of one device and type in one piece."""

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        """Raises RuntimeError for a tensor with holes."""
        groups: dict[tuple[torch.device, torch.dtype], list[torch.Tensor]] = {}
        for tensor in tensors:
            groups.setdefault((tensor.device, tensor.dtype), []).append(_flat(tensor))
        self._groups = list(groups.values())

    def copies(self) -> list[torch.Tensor]:
        """Return the pieces, queued on the device, without a host read."""
        return [torch.cat(flats) for flats in self._groups]

    def put_back(self, copies: list[torch.Tensor]) -> None:
        """Fill the tensors from pieces."""
        for flats, copy in zip(self._groups, copies, strict=True):
            torch._foreach_copy_(flats, list(copy.split([flat.numel() for flat in flats])))


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """Return a view of all elements in the order of memory (channels-last or not)."""
    strides = tensor.stride()
    order = sorted(range(tensor.dim()), key=lambda dimension: strides[dimension], reverse=True)
    return tensor.detach().permute(order).view(-1)


class BatchNormStatistics:
    """The running statistics of a model's normalization layers, which a bad batch's forward pass pollutes.

    One copy a step gives both what must be checked and what must be put back.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self.refresh()
        self.remember(self.snapshot())

    def refresh(self) -> None:
        """Find the buffers again: something may have replaced their storage (`model.to`, `half`)."""
        self._buffers = Joined(ultralytics_api.normalization_buffers(self._model))

    def snapshot(self) -> list[torch.Tensor]:
        """Return a copy of the statistics as they are now, in pieces."""
        return self._buffers.copies()

    def remember(self, snapshot: list[torch.Tensor]) -> None:
        """Make `snapshot` the state that `restore` goes back to."""
        self._good = snapshot

    def restore(self) -> None:
        """Put the remembered statistics back into the model."""
        self._buffers.put_back(self._good)


class StepBackup:
    """Copies of all that one trainer's optimizer step changes."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self._copies: list[torch.Tensor] = []
        self._states: list[tuple[dict[str, object], dict[str, object]]] = []
        self._pointers: list[int] = []

    def copy(self) -> None:
        """Copy everything. Raises RuntimeError (torch.cuda.OutOfMemoryError is one) where it cannot be."""
        optimizer = self._trainer.optimizer
        states = [(state, dict(state)) for state in optimizer.state.values()]
        tensors = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        tensors += [v for _, kept in states for v in kept.values() if isinstance(v, torch.Tensor)]
        pointers = [tensor.data_ptr() for tensor in tensors]
        if pointers != self._pointers:
            self._joined, self._pointers = Joined(tensors), pointers
        self._copies, self._states = self._joined.copies(), states

    def restore(self) -> None:
        """Put everything back as it was at `copy`; without one there is nothing to do."""
        if not self._copies:
            return
        self._joined.put_back(self._copies)
        for state, kept in self._states:
            state.clear()
            state.update(kept)
        every = self._trainer.optimizer.state
        for parameter in list(every)[len(self._states) :]:  # a dict keeps its order: these are new
            del every[parameter]
        self.discard()

    def discard(self) -> None:
        """Let the copies go: the step was good."""
        self._copies, self._states = [], []
