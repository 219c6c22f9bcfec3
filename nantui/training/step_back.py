"""The way back from an optimizer's step that was queued before its verdict was known.

A host that waits for the verdict first leaves the GPU idle while it queues the step; measured, that cost
up to a tenth of a batch. So on a GPU everything that a step changes (weights, optimizer state, EMA) is
copied there, the step queued at once, and taken back if the verdict is bad. The copies live from the
backward pass to the batch's end, where the activations' memory is free again, so that they hardly raise
the peak.
"""

from __future__ import annotations

from typing import Any

import torch


class StepBack:
    """Copies of all that one trainer's optimizer step and EMA update change."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._copies: list[tuple[list[torch.Tensor], torch.Tensor]] = []
        self._states: dict[Any, tuple[dict[str, Any], dict[str, Any]]] = {}
        self._averaged: list[torch.Tensor] = []
        self._flats: dict[int, torch.Tensor] = {}
        self._updates = 0
        self.refresh()

    def refresh(self) -> None:
        """Find the averaged weights again: somebody may have replaced them since the last epoch."""
        ema = self._trainer.ema
        values = ema.ema.state_dict().values() if ema else ()
        self._averaged = [value for value in values if value.is_floating_point()]

    def copy(self) -> None:
        """Copy everything, queued on the device, without a host read.

        Raises RuntimeError (torch.cuda.OutOfMemoryError is one) when there is no room or a tensor has holes.
        """
        optimizer, ema = self._trainer.optimizer, self._trainer.ema
        states = {parameter: (state, dict(state)) for parameter, state in optimizer.state.items()}
        tensors = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        tensors += [value for _, kept in states.values() for value in kept.values() if torch.is_tensor(value)]
        groups: dict[tuple[torch.device, torch.dtype], list[torch.Tensor]] = {}
        for flat in self._flattened([*tensors, *self._averaged]):
            groups.setdefault((flat.device, flat.dtype), []).append(flat)
        self._copies = [(flats, torch.cat(flats)) for flats in groups.values()]
        self._states, self._updates = states, ema.updates if ema else 0

    def take_back(self) -> None:
        """Put everything back as it was at `copy`, bit for bit; without one there is nothing to do."""
        if not self._copies:
            return
        optimizer, ema = self._trainer.optimizer, self._trainer.ema
        with torch.no_grad():
            for flats, copy in self._copies:
                torch._foreach_copy_(flats, list(copy.split([flat.numel() for flat in flats])))
        for state, kept in self._states.values():
            state.clear()
            state.update(kept)
        for parameter in [parameter for parameter in optimizer.state if parameter not in self._states]:
            del optimizer.state[parameter]
        if ema:
            ema.updates = self._updates
        self.forget()

    def forget(self) -> None:
        """Let the copies go: the step was good."""
        self._copies, self._states = [], {}

    def _flattened(self, tensors: list[torch.Tensor]) -> list[torch.Tensor]:
        """Return views of one dimension that share the tensors' memory; kept while they are valid."""
        known, self._flats = self._flats, {}
        for tensor in tensors:
            flat = known.get(id(tensor))
            if flat is None or flat.data_ptr() != tensor.data_ptr() or flat.numel() != tensor.numel():
                flat = _flat(tensor)
            self._flats[id(tensor)] = flat
        return list(self._flats.values())


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """Return all elements in the order of memory (channels-last or not). Raises RuntimeError for holes."""
    strides = tensor.stride()
    order = sorted(range(tensor.dim()), key=lambda dimension: strides[dimension], reverse=True)
    return tensor.detach().permute(order).view(-1)
