"""Tensors that are put back on every rank, and a copy that is waited for by two threads."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nantui.worker.points import training_state
from nantui.worker.points.host_copy import HostCopy, leaves
from tests.worker.forked_ranks import on_forked_ranks


def goes_back(averaged: tuple[int, ...], rank: int) -> dict[str, Any]:
    model = torch.nn.Linear(2, 1)
    with torch.no_grad():
        for weight in model.parameters():
            weight.fill_(1.0)
    average = SimpleNamespace(ema=copy.deepcopy(model)) if rank in averaged else None
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.9)
    trainer: Any = SimpleNamespace(model=model, ema=average, optimizer=optimizer, device=torch.device("cpu"))
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    kept = {name: tensor.clone() for name, tensor in leaves(training_state.live_tensors(trainer))}
    with torch.no_grad():
        for _, tensor in leaves(training_state.live_tensors(trainer)):
            tensor.add_(rank + 1)
    training_state.put_back(trainer, kept if rank == 0 else {}, set())
    return {name: tensor.tolist() for name, tensor in leaves(training_state.live_tensors(trainer))}


@pytest.mark.parametrize("averaged", [(0,), (0, 1)])
def test_both_ranks_go_back_also_where_the_first_alone_has_averaged_weights(
    tmp_path: Path, averaged: tuple[int, ...]
) -> None:
    """As in Ultralytics 8.2; since then every rank has them."""
    found = on_forked_ranks(partial(goes_back, averaged), tmp_path / "store")
    assert found[0]["weights.weight"] == [[0.0, 0.0]] and found[0]["ema.weight"] == [[1.0, 1.0]]
    known = found[0] if len(averaged) == 2 else {k: v for k, v in found[0].items() if k[:4] != "ema."}
    assert found[1] == known and "optimizer.state.0.momentum_buffer" in known


def test_a_copy_that_another_thread_has_seen_complete_is_no_longer_waited_for() -> None:
    """The event is taken away between two looks at it."""
    waited: list[str] = []

    class TakenAway(HostCopy):
        looks = 0

        @property
        def _done(self) -> Any:
            self.looks += 1
            return SimpleNamespace(synchronize=lambda: waited.append("here")) if self.looks == 1 else None

        @_done.setter
        def _done(self, value: Any) -> None: ...

    copying = TakenAway(torch.device("cpu"))
    copying.looks = 0
    copying.wait()
    assert waited == ["here"]
