"""What Ultralytics assumes of its ranks, put right: a GPU each, and a single machine.

Without GPUs, in tests and on machines that have none, it hands `device_ids` to DDP, which refuses them on the
CPU, and asks CUDA for the current device in the final validation (engine/trainer.py `_setup_train`,
engine/validator.py `__call__`); 8.2 broadcasts a boolean.

With several hosts each has a rank that goes first, and hosts take turns here: otherwise all would do at
once what `torch_distributed_zero_first(LOCAL_RANK)` (ultralytics 8.4.190, utils/torch_utils.py) guards, the
label cache, which is not written atomically, and the stripping of last.pt and best.pt, which all ranks then
read.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

import torch
from torch import nn

from nantui.worker import distributed, torchrun_env
from nantui.worker.ultralytics_api import replaced

STOCK = "torch_distributed_zero_first"


@contextlib.contextmanager
def ranks_on_the_cpu() -> Iterator[None]:
    """While this lasts, a training of several ranks on the CPU works as it does on GPUs."""
    from ultralytics.engine import validator

    parallel, backend = nn.parallel.DistributedDataParallel, validator.AutoBackend

    class OnCpu(parallel):  # type: ignore[misc, valid-type]
        """A type and no function: `de_parallel` (8.2) asks for instances of it."""

        def __init__(self, module: nn.Module, device_ids: object = None, **options: object) -> None:
            super().__init__(module, **options)

    def loaded_on_cpu(*args: object, device: object = None, **options: object) -> object:
        return backend(*args, device=torch.device("cpu"), **options)

    class Accelerator:
        @staticmethod
        def current_device() -> int:
            return 0

    broadcast = torch.distributed.broadcast

    def any_dtype(tensor: torch.Tensor, *args: object, **options: object) -> None:
        """8.2 broadcasts a boolean, which gloo refuses."""
        passed = tensor.int() if tensor.dtype is torch.bool else tensor
        broadcast(passed, *args, **options)
        tensor.copy_(passed)

    with contextlib.ExitStack() as stack:
        stack.enter_context(replaced(nn.parallel, "DistributedDataParallel", OnCpu))
        stack.enter_context(replaced(validator, "AutoBackend", loaded_on_cpu))
        stack.enter_context(replaced(torch.distributed, "broadcast", any_dtype))
        if hasattr(validator, "get_torch_device_backend"):  # not in 8.3
            stack.enter_context(replaced(validator, "get_torch_device_backend", lambda kind: Accelerator))
        yield


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
    before = 0 if torchrun_env.rank() == 0 else 1 if local_rank == 0 else 2
    for _ in range(before):
        distributed.barrier()
    yield
    for _ in range(2 - before):
        distributed.barrier()
