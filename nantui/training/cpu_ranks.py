"""Several ranks without a GPU, for tests and machines that have none: what Ultralytics assumes of CUDA there.

It hands `device_ids` to DDP, which refuses them on the CPU, and asks CUDA for the current device in the final
validation (engine/trainer.py `_setup_train`, engine/validator.py `__call__`); 8.2 broadcasts a boolean.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from nantui.training.touchpoints import replaced


@contextlib.contextmanager
def ranks_on_the_cpu() -> Iterator[None]:
    """While this lasts, a training of several ranks on the CPU works as it does on GPUs."""
    from ultralytics.engine import validator

    parallel, backend = nn.parallel.DistributedDataParallel, validator.AutoBackend

    class OnCpu(parallel):  # type: ignore[misc, valid-type]
        """A type and no function: `de_parallel` (8.2) asks for instances of it."""

        def __init__(self, module: nn.Module, device_ids: Any = None, **options: Any) -> None:
            super().__init__(module, **options)

    def loaded_on_cpu(*args: Any, device: Any = None, **options: Any) -> Any:
        return backend(*args, device=torch.device("cpu"), **options)

    class Accelerator:
        @staticmethod
        def current_device() -> int:
            return 0

    broadcast = torch.distributed.broadcast

    def any_dtype(tensor: torch.Tensor, *args: Any, **options: Any) -> None:
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
