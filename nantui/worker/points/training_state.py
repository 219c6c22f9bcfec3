"""Everything that a training is between two batches: taken from a trainer, put back into one."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from typing import Any

import numpy as np
import torch

from nantui.run.documents import JsonObject
from nantui.run.points import PART
from nantui.worker import distributed, ultralytics_api
from nantui.worker.points.host_copy import leaves
from nantui.worker.torchrun_env import rank, world_size
from nantui.worker.ultralytics_types import Losses, Trainer

State = JsonObject


def same_training(trainer: Trainer) -> State:
    """Return what must not change between a step point and the training that goes on from it."""
    model = ultralytics_api.unwrapped(trainer.model)
    layers = sorted(f"{name} {tuple(t.shape)} {t.dtype}" for name, t in model.state_dict().items())
    files = ultralytics_api.image_files(trainer.train_loader.dataset)
    return {
        "world_size": max(world_size(), 1), "model": _digest(layers), "data": str(trainer.args.data),
        "images": f"{len(files)} ({_digest(files)})", "classes": (trainer.data or {}).get("nc"),
        "batch": int(trainer.batch_size), "batches": len(trainer.train_loader),
    }  # fmt: skip


def _digest(lines: list[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def tensors_of(trainer: Trainer, with_gradients: bool) -> State:
    """Return the live tensors by name, to be copied before the next optimizer step.

    The next forward pass changes the buffers already: on a device that queues they are copied there at once.
    """
    model = ultralytics_api.unwrapped(trainer.model)
    found = live_tensors(trainer)
    for name, buffer in model.named_buffers():
        if name in found["weights"] and buffer.is_cuda:
            found["weights"][name] = buffer.detach().clone()
    if with_gradients:
        found["grads"] = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return found


def live_tensors(trainer: Trainer) -> State:
    """Return what a step point holds copies of: the tensors themselves, by name."""
    model = ultralytics_api.unwrapped(trainer.model)
    return {
        "weights": {name: tensor.detach() for name, tensor in model.state_dict().items()},
        "ema": dict(trainer.ema.ema.state_dict()) if trainer.ema else {},
        "optimizer": trainer.optimizer.state_dict(),
    }


def put_back(trainer: Trainer, kept: Mapping[str, torch.Tensor], known: Collection[str]) -> None:
    """Fill the live tensors from copies in host memory, those of the first rank; `known` every rank has.

    To be called by every rank. Each tensor keeps its address, and a GPU is only asked to. In Ultralytics
    8.3.200 the first rank alone has an EMA.
    """
    live = leaves(live_tensors(trainer))
    alone = distributed.any_of_us(trainer.ema is None, trainer.device)
    with torch.no_grad():
        for name, tensor in live:
            if name in kept:
                tensor.copy_(kept[name], non_blocking=True)
        to_all = (one for one in live if not (alone and one[0].startswith("ema.")))
        distributed.spread(tensor for name, tensor in to_all if name not in known)


def put_statistics_back(model: torch.nn.Module, kept: Mapping[str, torch.Tensor]) -> None:
    """Fill a rank's own BatchNorm statistics: with DDP each rank has its own."""
    with torch.no_grad():
        for name, buffer in ultralytics_api.named_statistics(model):
            buffer.copy_(kept[name])


def part_of_rank(trainer: Trainer, order: State) -> State:
    """Return what only this rank has, on the host."""
    model = ultralytics_api.unwrapped(trainer.model)
    statistics = ultralytics_api.named_statistics(model)
    return {
        "statistics": {name: buffer.detach().cpu().clone() for name, buffer in statistics},
        "random": random_states(trainer.device),
        "order": order,
    }


def random_states(device: torch.device) -> State:
    """Return the states of Python's, NumPy's and PyTorch's generators, as plain values and tensors."""
    kind, keys, *rest = np.random.get_state()
    states = {
        "python": random.getstate(),
        "numpy": (kind, np.asarray(keys).tolist(), *rest),
        "torch": torch.get_rng_state(),
    }
    return {**states, "cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else states


def restore_random(states: State, device: torch.device) -> None:
    """Put the generators back."""
    random.setstate(states["python"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(states["torch"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)


@contextlib.contextmanager
def dice_kept(of_gpu: bool = True) -> Iterator[None]:
    """Put the generators back afterwards: loading images draws from Python's own, and without workers the
    next epoch's augmentation draws from the same.
    """
    device = torch.device("cuda" if of_gpu and torch.cuda.is_available() else "cpu")
    states = random_states(device)
    try:
        yield
    finally:
        restore_random(states, device)


def checkpoint_of(trainer: Any, ema: torch.nn.Module, copied: State, part: State) -> State:
    """Return the document of a step point, in the form of `BaseTrainer.save_model` (engine/trainer.py).

    `copied` are `tensors_of` on the host and `ema` a module of them; nothing in it changes any more.
    """
    from ultralytics import __version__

    stopper = trainer.stopper
    return {
        "epoch": trainer.epoch - 1, "best_fitness": trainer.best_fitness,
        "stopper": {"best_fitness": stopper.best_fitness, "best_epoch": stopper.best_epoch},
        "model": None, "ema": ema, "updates": trainer.ema.updates, "optimizer": copied["optimizer"],
        "scaler": trainer.scaler.state_dict(), "train_args": dict(vars(trainer.args)),
        "train_metrics": {**(trainer.metrics or {}), "fitness": trainer.fitness},
        "date": datetime.now().astimezone().isoformat(), "version": __version__,
        PART: {**part, "weights": copied["weights"], "grads": copied.get("grads")},
    }  # fmt: skip


def restore(trainer: Any, checkpoint: Mapping[str, Any]) -> None:
    """Put a training back as a step point has it, but for what the loop itself sets later.

    All tensors keep their addresses, which `ModelEMA`, compiled models and CUDA graphs hold.
    """
    part = checkpoint[PART]
    model = ultralytics_api.unwrapped(trainer.model)
    model.load_state_dict(part["weights"])
    put_statistics_back(model, part["ranks"][rank()]["statistics"])
    optimizer = checkpoint["optimizer"]
    for saved, group in zip(optimizer["param_groups"], trainer.optimizer.param_groups, strict=True):
        if "fused" in group:
            saved["fused"] = group["fused"]  # the device, not the file, says which kernel
    trainer.optimizer.load_state_dict(optimizer)
    if checkpoint.get("scaler"):
        trainer.scaler.load_state_dict(checkpoint["scaler"])
    if trainer.ema:
        trainer.ema.ema.load_state_dict(checkpoint["ema"].float().state_dict())
        trainer.ema.updates = checkpoint["updates"]
    trainer.best_fitness = checkpoint.get("best_fitness")
    trainer.stopper.__dict__.update(checkpoint.get("stopper") or {})


def restore_gradients(model: torch.nn.Module, gradients: Mapping[str, torch.Tensor] | None) -> None:
    """Give the gradients of a begun accumulation back, each lying in memory as its parameter does."""
    for name, parameter in model.named_parameters():
        if gradients and name in gradients:
            parameter.grad = torch.empty_like(parameter).copy_(gradients[name])


def plain_losses(losses: Losses | None) -> object:
    """Return losses on the host, in the shape in which they are."""
    if isinstance(losses, dict):
        return {name: value.detach().cpu().clone() for name, value in losses.items()}
    return None if losses is None else losses.detach().cpu().clone()


def on_device(losses: Any, device: torch.device) -> Any:
    """Return losses of `plain_losses` on a device."""
    if isinstance(losses, dict):
        return {name: value.to(device) for name, value in losses.items()}
    return losses if losses is None else losses.to(device)
