"""What one training shows, recorded step by step: everything that an early warning could be made of.

A training under `Recording` is an ordinary one through nantui's worker; the recording listens, and ends it
at its first value that is not finite. What it has seen is one small compressed file a training, on which the
signals are tried afterwards, as often as one likes.
"""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

LAYERS, GROUPS, ITEMS = 4, 4, 4
COLUMNS = (
    "epoch", "step", "loss", "zero", "norm", "scale", "statistics", "rate", "instances",
    *(f"item{number}" for number in range(ITEMS)),
    *(f"ratio{number}" for number in range(GROUPS)),
    *(f"activation{number}" for number in range(LAYERS)),
)  # fmt: skip
"""What is kept of a step, NaN where there is none: `loss` is the sum of the items, `statistics` the largest
magnitude among BatchNorm's, `ratio` the update's norm over the weights' per parameter group, `activation` the
largest magnitude that a layer put out."""
KEPT_BITS = np.uint32(0xFFFFFF00)
"""Sixteen bits of mantissa, so that the files stay small; what is not finite stays so."""

DEAD = 60
"""Batches with a loss of zero in a row, after which nothing will break any more."""


class Ended(Exception):
    """The recording has seen enough of this training."""


@dataclass(frozen=True)
class Recorded:
    """A recorded training: `rows` steps by columns, `gaps` a row per epoch, how EMA's BatchNorm means and
    variances differ from the live ones. `broke` is the kind of its first value that is not finite, which the
    last row shows, or "". `since` is the step (from 0) from which something is wrong, -1 for a healthy one;
    `where` names commit, versions and device.
    """

    name: str
    way: str
    seed: int
    since: int
    where: str
    broke: str
    names: tuple[str, ...]
    rows: Any
    gaps: Any

    @property
    def healthy(self) -> bool:
        """Whether nothing was done to it."""
        return self.since < 0

    def column(self, name: str) -> Any:
        """Return a column as float64."""
        return self.rows[:, COLUMNS.index(name)].astype(np.float64)

    def columns(self, name: str) -> Any:
        """Return the columns of several layers, groups or items as float64."""
        found = [place for place, one in enumerate(COLUMNS) if one.rstrip("0123456789") == name]
        return self.rows[:, found].astype(np.float64)


def path_of(folder: Path, name: str) -> Path:
    """Return the file of a training."""
    return folder / f"{name.replace(' ', '-').replace(',', '')}.npz"


def write(folder: Path, one: Recorded) -> None:
    """Keep a recorded training in one file."""
    told = {
        name: getattr(one, name) for name in Recorded.__dataclass_fields__ if name not in ("rows", "gaps")
    }
    rows = (np.ascontiguousarray(one.rows, np.float32).view(np.uint32) & KEPT_BITS).view(np.float32)
    path = path_of(folder, one.name)
    beside = path.with_suffix(f".{os.getpid()}")
    with beside.open("wb") as file:
        # A column after the other: neighbours are alike, and pack better.
        np.savez_compressed(file, told=json.dumps(told), rows=rows.T.copy(), gaps=np.float32(one.gaps))
    beside.rename(path)


def read(path: Path) -> Recorded:
    """Return a recorded training."""
    with np.load(path) as kept:
        told = json.loads(str(kept["told"]))
        told["names"] = tuple(told["names"])
        return Recorded(**told, rows=kept["rows"].T, gaps=kept["gaps"])


class Recording:
    """Listens to one training; `install` is to be called once its model and optimizer are made."""

    def __init__(self, until: float) -> None:
        """`until`: when to end by `time.monotonic()`, whatever was seen."""
        self.rows: list[list[float]] = []
        self.gaps: list[list[float]] = []
        self.names: tuple[str, ...] = ()
        self.broke = ""
        self._until, self._dead = until, 0
        self._ratios: list[float] = []
        self._peaks: dict[int, Any] = {}

    def install(self, trainer: Any) -> None:
        """Listen to the model's layers, the optimizer's steps and the trainer's batches."""
        from nantui.worker import ultralytics_api

        self._model = ultralytics_api.unwrapped(trainer.model)
        layers = list(self._model.model)
        for place in range(LAYERS - 1):
            layers[place * (len(layers) - 1) // (LAYERS - 1)].register_forward_hook(
                lambda module, inputs, output, place=place: self._peak(place, module, output)
            )
        layers[-1].register_forward_pre_hook(lambda module, inputs: self._peak(LAYERS - 1, module, inputs[0]))
        trainer.optimizer.register_step_pre_hook(self._before_step)
        trainer.optimizer.register_step_post_hook(self._after_step)
        trainer.add_callback("on_train_batch_end", self._batch)
        trainer.add_callback("on_train_epoch_end", self._epoch)

    def recorded(self, name: str, way: str, seed: int, since: int, where: str) -> Recorded:
        """Return what was seen, of at least one step."""
        rows, gaps = np.array(self.rows), np.array(self.gaps).reshape(-1, 2)
        return Recorded(name, way, seed, since, where, self.broke, self.names, rows, gaps)

    def _peak(self, place: int, module: Any, output: Any) -> None:
        import torch

        tensors = output if isinstance(output, (list, tuple)) else [output]
        peaks = [one.detach().abs().amax().float() for one in tensors if torch.is_tensor(one)]
        if module.training and peaks:
            self._peaks[place] = torch.stack(peaks).amax()

    def _before_step(self, optimizer: Any, *_: Any) -> None:
        self._before = [
            [weight.detach().clone() for weight in group["params"]] for group in optimizer.param_groups
        ]

    def _after_step(self, optimizer: Any, *_: Any) -> None:
        self._ratios = []
        for group, before in zip(optimizer.param_groups, self._before, strict=True):
            moved = [a.detach() - b for a, b in zip(group["params"], before, strict=True)]
            self._ratios.append(_size(moved) / max(_size(before), 1e-12) if moved else math.nan)

    def _batch(self, trainer: Any) -> None:
        from nantui.worker import ultralytics_api
        from nantui.worker.guard.incident_policy import incident_kind

        seen = trainer.guard.probe()
        self.names = seen.names
        statistics = [
            float(one.abs().amax())
            for one in ultralytics_api.normalization_buffers(self._model)
            if one.is_floating_point()
        ]
        self.rows.append([
            trainer.epoch, trainer.guard.batch_index, seen.loss, float(seen.zero_loss), _number(seen.norm),
            _number(seen.scale), _largest(statistics), ultralytics_api.rate_of_weights(trainer.optimizer),
            ultralytics_api.instances(trainer._batch), *_padded(seen.losses, ITEMS),
            *_padded(self._ratios, GROUPS),
            *(float(self._peaks.get(place, math.nan)) for place in range(LAYERS)),
        ])  # fmt: skip
        self._ratios, self._peaks = [], {}
        self.broke = incident_kind(seen) or ""
        self._dead = self._dead + 1 if seen.zero_loss else 0
        if self.broke or self._dead > DEAD or time.monotonic() > self._until:
            raise Ended

    def _epoch(self, trainer: Any) -> None:
        """Note how far the averages of BatchNorm's statistics are from the live ones."""
        live = dict(self._model.named_buffers())
        averaged = dict(trainer.ema.ema.named_buffers()) if trainer.ema else live
        row = []
        for kind in ("running_mean", "running_var"):
            names = [name for name in live if name.endswith(kind)]
            apart = _size([averaged[name].float() - live[name].float() for name in names])
            row.append(apart / max(_size([live[name].float() for name in names]), 1e-12))
        self.gaps.append(row)


def _size(tensors: list[Any]) -> float:
    import torch

    return float(torch.stack(torch._foreach_norm(tensors)).norm()) if tensors else 0.0


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _largest(values: list[float]) -> float:
    return math.nan if any(map(math.isnan, values)) else max(values, default=0.0)


def _padded(values: Any, count: int) -> list[float]:
    return [*values, *[math.nan] * count][:count]
