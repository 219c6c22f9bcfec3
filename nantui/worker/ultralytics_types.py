"""What nantui uses of Ultralytics' trainer, validator and data sets, as types.

Read in ultralytics 8.2.103 to 8.4.190; tests/worker/test_ultralytics_api.py pins what they do. What only some
releases have is asked for with `hasattr` or `getattr` and is not listed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import torch
from torch import nn

if TYPE_CHECKING:
    from nantui.worker.session import Session

Batch: TypeAlias = dict[str, Any]
"""What a loader yields (data/dataset.py, `collate_fn`): `img` (N, C, H, W), `cls`, `bboxes`, `keypoints`,
`batch_idx` are tensors, `im_file` is a list of names; a data set of the user's own may add anything.
"""
Losses: TypeAlias = torch.Tensor | dict[str, torch.Tensor]
"""The losses of a batch: since 8.4 0-dim tensors by name, before that one vector."""


class AveragedModel(Protocol):
    """utils/torch_utils.py, `ModelEMA`."""

    ema: nn.Module
    updates: int

    def update(self, model: nn.Module) -> None: ...


class Loader(Protocol):
    """data/build.py, `InfiniteDataLoader`."""

    dataset: Any  # whatever the user trains on
    batch_size: int
    num_workers: int
    collate_fn: Callable[[list[object]], Batch]

    def __len__(self) -> int: ...


class Validator(Protocol):
    """engine/validator.py, `BaseValidator`."""

    args: SimpleNamespace

    def preprocess(self, batch: Batch) -> Batch: ...


class Trainer(Protocol):
    """engine/trainer.py, `BaseTrainer`.

    From `__init__`: args, device, save_dir, wdir, last, best, save_period, batch_size, epochs, start_epoch,
    data, model, callbacks, loss, loss_names. From `_setup_train`: amp, scaler, train_loader, test_loader,
    validator, ema, accumulate, optimizer, lf, resume. From `_do_train`: epoch, loss_items.
    """

    args: SimpleNamespace
    device: torch.device
    save_dir: Path
    wdir: Path
    last: Path
    best: Path
    save_period: int
    batch_size: int
    epochs: int
    epoch: int
    start_epoch: int
    resume: bool
    stop: bool
    world_size: int
    accumulate: int
    amp: bool
    data: dict[str, object]
    callbacks: dict[str, list[Callable[..., object]]]
    model: nn.Module
    ema: AveragedModel
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    lf: Callable[[int], float]
    loss: torch.Tensor
    loss_items: Losses
    loss_names: tuple[str, ...]
    train_loader: Loader
    test_loader: Loader
    validator: Validator


class RunningTrainer(Trainer, Protocol):
    """A guarded one, with its place in the session; warm-up ramps `accumulate` up to `accumulate_nominal`."""

    session: Session
    accumulate_nominal: int
