"""Hosts take turns where Ultralytics sends the first rank of each machine ahead of the others.

`torch_distributed_zero_first(LOCAL_RANK)` (ultralytics 8.4.190, utils/torch_utils.py) guards the
label cache, which is not written atomically, and the stripping of last.pt and best.pt, which all ranks then
read. With several hosts every host has a rank that goes first, and they would do both at once.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from nantui.training import environment, ranks
from nantui.training.touchpoints import replaced

STOCK = "torch_distributed_zero_first"


@contextlib.contextmanager
def hosts_in_turn() -> Iterator[None]:
    """Let the very first rank go first, then the other hosts' first ranks, then everybody else."""
    loaded = [module for name, module in list(sys.modules.items()) if name.startswith("ultralytics.")]
    with contextlib.ExitStack() as stack:
        for module in loaded:
            if STOCK in vars(module):
                stack.enter_context(replaced(module, STOCK, _in_turn))
        yield


@contextlib.contextmanager
def _in_turn(local_rank: int) -> Iterator[None]:
    """Meet everybody at two barriers; how many of them come before the work says whose turn it is."""
    before = 0 if environment.rank() == 0 else 1 if local_rank == 0 else 2
    for _ in range(before):
        ranks.barrier()
    yield
    for _ in range(2 - before):
        ranks.barrier()
