"""How ranks agree: one tiny all-reduce, the same on all; what Ultralytics assumes of them, put right.

Every decision to skip, save, stop or end is taken from what comes out of here, because a rank that
decides alone leaves the others waiting in a collective for hours.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed, nn

from nantui.worker.torchrun_env import rank, world_size
from nantui.worker.ultralytics_api import replaced

LARGEST_PARCEL = 2**24  # elements that are sent as one, but for a tensor that has more
TIMEOUT = timedelta(hours=3)  # as Ultralytics: rank 0 may scan a large data set while the others wait
STOCK = "torch_distributed_zero_first"
BLOCKING = torch.__version__ < (2, 8)
"""Whether a collective over NCCL holds the host: Ultralytics sets TORCH_NCCL_BLOCKING_WAIT (`_setup_ddp`)."""
Report = TypeVar("Report")


def together() -> bool:
    """Tell whether collectives are possible and needed."""
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def set_up_cpu() -> None:
    """Join the other ranks over gloo, for training on the CPU. Raises RuntimeError when they do not come."""
    if distributed.is_initialized():
        return
    distributed.init_process_group("gloo", rank=rank(), world_size=world_size(), timeout=TIMEOUT)


def largest(values: torch.Tensor) -> torch.Tensor:
    """Return the elementwise largest of `values` over all ranks; NaN must have been taken out before."""
    if together():
        work = distributed.all_reduce(values, op=distributed.ReduceOp.MAX, async_op=BLOCKING)
        if work is not None:
            work.get_future().wait()
    return values


def agree(device: torch.device, *values: float) -> list[float]:
    """Return the largest of each value over all ranks. To be called at the same point by every rank."""
    if not together():
        return list(values)
    agreed: list[float] = largest(torch.tensor(values, dtype=torch.float32, device=device)).tolist()
    return agreed


def any_of_us(mine: bool, device: torch.device) -> bool:
    """Tell whether any rank says yes. To be called at the same point by every rank."""
    return agree(device, float(mine))[0] > 0


def gather(mine: Report) -> list[Report]:
    """Return every rank's `mine`, in rank order. To be called at the same point by every rank."""
    if not together():
        return [mine]
    reports: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(reports, mine)
    return reports


def spread(tensors: Iterable[torch.Tensor]) -> None:
    """Fill every rank's `tensors`, on one device, with those of the first; many small ones travel as one.

    To be called at the same point by every rank.
    """
    waiting: dict[torch.dtype, list[torch.Tensor]] = {}
    for tensor in tensors if together() else ():
        joined = waiting.setdefault(tensor.dtype, [])
        joined.append(tensor)
        if sum(one.numel() for one in joined) > LARGEST_PARCEL:
            _spread_as_one(waiting.pop(tensor.dtype))
    for joined in waiting.values():
        _spread_as_one(joined)


def _spread_as_one(tensors: list[torch.Tensor]) -> None:
    parcel = torch.cat([tensor.reshape(-1) for tensor in tensors])
    distributed.broadcast(parcel, 0)
    for tensor, piece in zip(tensors, parcel.split([one.numel() for one in tensors]), strict=True):
        tensor.copy_(piece.view(tensor.shape))


def barrier() -> None:
    """Wait for every rank, once there are others; as in Ultralytics' `torch_distributed_zero_first`."""
    if not together():
        return
    if distributed.get_backend() == "nccl":
        distributed.barrier(device_ids=[torch.cuda.current_device()])
    else:
        distributed.barrier()


def wait_for_all(device: torch.device) -> None:
    """Return once every rank is here, so that none is killed while another still writes its last words."""
    agree(device, 0.0)


@contextlib.contextmanager
def ranks_on_the_cpu() -> Iterator[None]:
    """While this lasts, a training of several ranks on the CPU works as it does on GPUs: Ultralytics hands
    `device_ids` to DDP (engine/trainer.py) and asks CUDA for the current device (engine/validator.py).
    """
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

    broadcast = distributed.broadcast

    def any_dtype(tensor: torch.Tensor, *args: object, **options: object) -> None:
        """8.2 broadcasts a boolean, which gloo refuses."""
        passed = tensor.int() if tensor.dtype is torch.bool else tensor
        broadcast(passed, *args, **options)
        tensor.copy_(passed)

    with contextlib.ExitStack() as stack:
        stack.enter_context(replaced(nn.parallel, "DistributedDataParallel", OnCpu))
        stack.enter_context(replaced(validator, "AutoBackend", loaded_on_cpu))
        stack.enter_context(replaced(distributed, "broadcast", any_dtype))
        if hasattr(validator, "get_torch_device_backend"):  # not in 8.3
            stack.enter_context(replaced(validator, "get_torch_device_backend", lambda kind: Accelerator))
        yield


@contextlib.contextmanager
def hosts_in_turn() -> Iterator[None]:
    """Let the very first rank go first, then the other hosts' first ranks, then everybody else: a label cache
    is not written atomically, and each host has a rank that `torch_distributed_zero_first` lets go first.
    """
    loaded = [module for name, module in list(sys.modules.items()) if name.startswith("ultralytics.")]
    with contextlib.ExitStack() as stack:
        for module in loaded:
            if STOCK in vars(module):
                stack.enter_context(replaced(module, STOCK, _in_turn))
        yield


@contextlib.contextmanager
def _in_turn(local_rank: int) -> Iterator[None]:
    """Meet everybody at two barriers; how many of them come before the work says whose turn it is."""
    before = 0 if rank() == 0 else 1 if local_rank == 0 else 2
    for _ in range(before):
        barrier()
    yield
    for _ in range(2 - before):
        barrier()
