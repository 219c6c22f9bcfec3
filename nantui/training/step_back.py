"""The way back from an optimizer's step that was queued before its verdict was known.

A host that waits for the verdict first leaves the GPU idle while it queues the step; measured, that cost
up to a tenth of a batch. So on a GPU what the step changes (weights, optimizer state) is copied there,
the step queued at once, and taken back if the verdict is bad. The copies live from the backward pass to
the batch's end, where the activations' memory is free again, so that they hardly raise the peak.
"""

from __future__ import annotations

from typing import Any

import torch


class StepBack:
    """Copies of all that one trainer's optimizer step changes."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._copies: list[torch.Tensor] = []
        self._states: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self._flats: list[list[torch.Tensor]] = []
        self._pointers: list[int] = []

    def copy(self) -> None:
        """Copy everything, queued on the device, without a host read.

        Raises RuntimeError (torch.cuda.OutOfMemoryError is one) when there is no room or a tensor has holes.
        """
        optimizer = self._trainer.optimizer
        states = [(state, dict(state)) for state in optimizer.state.values()]
        tensors = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        tensors += [v for _, kept in states for v in kept.values() if isinstance(v, torch.Tensor)]
        pointers = [tensor.data_ptr() for tensor in tensors]
        if pointers != self._pointers:
            self._flats, self._pointers = _flattened(tensors), pointers
        self._copies, self._states = [torch.cat(flats) for flats in self._flats], states

    def take_back(self) -> None:
        """Put everything back as it was at `copy`, bit for bit; without one there is nothing to do."""
        if not self._copies:
            return
        for flats, copy in zip(self._flats, self._copies, strict=True):
            torch._foreach_copy_(flats, list(copy.split([flat.numel() for flat in flats])))
        for state, kept in self._states:
            state.clear()
            state.update(kept)
        every = self._trainer.optimizer.state
        for parameter in list(every)[len(self._states) :]:  # a dict keeps its order: these are new
            del every[parameter]
        self.forget()

    def forget(self) -> None:
        """Let the copies go: the step was good."""
        self._copies, self._states = [], []


def _flattened(tensors: list[torch.Tensor]) -> list[list[torch.Tensor]]:
    """Return views of one dimension that share the tensors' memory, in groups that can be joined."""
    groups: dict[tuple[torch.device, torch.dtype], list[torch.Tensor]] = {}
    for tensor in tensors:
        groups.setdefault((tensor.device, tensor.dtype), []).append(_flat(tensor))
    return list(groups.values())


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """Return all elements in the order of memory (channels-last or not). Raises RuntimeError for holes."""
    strides = tensor.stride()
    order = sorted(range(tensor.dim()), key=lambda dimension: strides[dimension], reverse=True)
    return tensor.detach().permute(order).view(-1)
