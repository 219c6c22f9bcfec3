"""Copies of a training's tensors in host memory, in places that are made once and used again.

On the CPU the copy is there when `take` returns. On a GPU it is queued on a stream of its own: the training
goes on at once, and the next optimizer step, which changes what is being copied, waits for it on the device.
"""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path
from typing import Any, TypeAlias

import psutil
import torch
from torch import nn

from nantui.worker import ultralytics_api

Tree: TypeAlias = Any
"""Dictionaries and lists of tensors and plain values."""
Pairs: TypeAlias = list[tuple[torch.Tensor, torch.Tensor]]


class HostCopy:
    """Room for the tensors of one step point."""

    def __init__(self, device: torch.device) -> None:
        self.tree: Tree = {}
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._done: torch.cuda.Event | None = None
        self._under_way: Pairs = []

    def take(self, live: Tree) -> Tree:
        """Copy `live`; returns it in host memory, complete after `wait`.

        Raises RuntimeError where there is no memory; then the place is empty.
        """
        self.wait()
        pairs: Pairs = []
        try:
            self.tree = _places(live, self.tree, pairs, self._stream is not None)
        except (RuntimeError, MemoryError) as error:
            self.tree = {}
            raise RuntimeError(f"no room for a step point in memory ({error})") from error
        if self._stream is None:
            with torch.no_grad():
                torch._foreach_copy_([place for place, _ in pairs], [source for _, source in pairs])
            return self.tree
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._stream), torch.no_grad():
            for place, source in pairs:
                place.copy_(source, non_blocking=True)
            self._done = torch.cuda.Event()
            self._done.record()
        self._under_way = pairs  # the sources must not be freed, and their memory used again, before that
        return self.tree

    def before_step(self) -> None:
        """Let the device wait for the copy before it changes what is copied; the host does not wait."""
        if (done := self._done) is not None:  # the writer's thread may take it away meanwhile
            torch.cuda.current_stream(self._device).wait_event(done)

    def wait(self) -> None:
        """Wait on the host until the copy is complete."""
        if (done := self._done) is not None:
            done.synchronize()
        self._done, self._under_way = None, []


def _places(live: Tree, kept: Tree, pairs: Pairs, pinned: bool) -> Tree:
    """Return a tree like `live` with host tensors in the place of its own, those of `kept` where they fit."""
    if isinstance(live, torch.Tensor):
        fits = isinstance(kept, torch.Tensor) and (kept.shape, kept.dtype) == (live.shape, live.dtype)
        place = kept if fits else torch.empty(live.shape, dtype=live.dtype, pin_memory=pinned)
        pairs.append((place, live.detach()))
        return place
    if isinstance(live, dict):
        old = kept if isinstance(kept, dict) else {}
        return {key: _places(value, old.get(key), pairs, pinned) for key, value in live.items()}
    if isinstance(live, (list, tuple)):
        same = isinstance(kept, (list, tuple)) and len(kept) == len(live)
        there = kept if same else [None] * len(live)
        made = [_places(value, one, pairs, pinned) for value, one in zip(live, there, strict=True)]
        return made if isinstance(live, list) else tuple(made)
    return live


def leaves(tree: Tree, name: str = "") -> list[tuple[str, torch.Tensor]]:
    """Return the tensors of a tree with their places in it as names, in a fixed order; of a module its
    weights and statistics, for other buffers may be infinite on purpose.
    """
    if isinstance(tree, torch.Tensor):
        return [(name, tree)]
    if isinstance(tree, nn.Module):
        tree = dict([*tree.named_parameters(), *ultralytics_api.named_statistics(tree)])
    if isinstance(tree, (list, tuple)):
        tree = dict(enumerate(tree))
    parts = tree.items() if isinstance(tree, dict) else ()
    return [leaf for key, part in parts for leaf in leaves(part, f"{name}.{key}".lstrip("."))]


def bytes_of(tree: Tree) -> int:
    """Return how much memory the tensors of a tree take."""
    return sum(tensor.numel() * tensor.element_size() for _, tensor in leaves(tree))


def not_finite(tree: Tree) -> str:
    """Return the name of the first weight or optimizer value that is NaN or infinite, "" for none."""
    return next(iter(ultralytics_api.non_finite(leaves(tree))), "")


def memory_left() -> int:
    """Return how many bytes of memory this process can still get: of the machine, or of its control group."""
    left = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    with contextlib.suppress(OSError, ValueError, StopIteration):  # no limit, another version, another system
        most, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        lines = (group / "memory.stat").read_text().splitlines()
        cached = next(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
        left = min(left, most - used + cached)
    return max(left, 0)


def module_of(module: nn.Module, tensors: dict[str, torch.Tensor]) -> nn.Module:
    """Return `module` with `tensors` (its state, by name) in the place of its own, sharing their memory.

    As in `save_model` (engine/trainer.py) without what only training needs. Nothing is copied on the device.
    """
    memo: dict[int, Any] = {}
    for name, parameter in module.named_parameters():
        memo[id(parameter)] = nn.Parameter(tensors[name], requires_grad=parameter.requires_grad)
    for name, buffer in module.named_buffers():
        if name in tensors:
            memo[id(buffer)] = tensors[name]
    with contextlib.suppress(AttributeError):
        memo[id(module.criterion)] = None
    made: nn.Module = copy.deepcopy(module, memo)
    return made
