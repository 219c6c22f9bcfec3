"""How ranks agree: one tiny all-reduce, the same on all.

Every decision to skip, save, stop or end is taken from what comes out of here, because a rank that
decides alone leaves the others waiting in a collective for hours.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

from nantui.worker.torchrun_env import rank, world_size

LARGEST_PARCEL = 2**24  # elements that are sent as one, but for a tensor that has more
TIMEOUT = timedelta(hours=3)  # as Ultralytics: rank 0 may scan a large data set while the others wait
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
        distributed.all_reduce(values, op=distributed.ReduceOp.MAX)
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
