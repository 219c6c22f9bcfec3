"""The settings that are really in effect, read from the live objects and not from the arguments.

Ultralytics ignores some arguments on resume, rewrites others (`optimizer=auto`), and takes momentum and
weight decay from a saved optimizer; only the live optimizer, scaler, loader and criterion tell.
"""

from __future__ import annotations

from typing import Any

from nantui.run.quarantine import quarantined
from nantui.words import count
from nantui.worker import ultralytics_api
from nantui.worker.torchrun_env import world_size
from nantui.worker.ultralytics_types import RunningTrainer

_GAINS = ("box", "cls", "dfl", "pose", "kobj", "rle", "angle")
_OFF_AFTER_MOSAIC = ("mosaic", "mixup", "cutmix", "copy_paste")
_FROM_ARGUMENTS = ("warmup_epochs", "warmup_momentum", "warmup_bias_lr", "cos_lr", "multi_scale", "freeze")
_OUR_OPTIONS = ("guard", "on_suspicion", "grad_clip", "rewarmup")


def values_in_effect(trainer: RunningTrainer) -> dict[str, object]:
    """Return the fields of the `in_effect` event after the first batch."""
    values = {**_optimizer(trainer), **_loop(trainer), **_gains(trainer), **_augmentation(trainer)}
    arguments = vars(trainer.args)
    values.update({name: arguments[name] for name in _FROM_ARGUMENTS if name in arguments})
    options = trainer.session.options
    values.update({name: getattr(options, name) for name in _OUR_OPTIONS})
    own = parts_of_the_script(trainer)
    return {"values": values, "guarded": options.watches, "notes": _notes(trainer), "own": own}


def parts_of_the_script(trainer: RunningTrainer) -> list[str]:
    """Return what a script of the user's own brings along: classes and callbacks that are not Ultralytics'
    (whose loggers are callbacks of `ultralytics.utils.callbacks`) nor ours.
    """
    found = []
    kinds = (one for one in type(trainer).__mro__ if not one.__module__.startswith("nantui."))
    if _is_the_scripts(kind := next(kinds)):
        found.append(f"trainer class {_name_of(kind)}")
    for event, functions in trainer.callbacks.items():
        found += [f"callback {event}: {_name_of(one)}" for one in functions if _is_the_scripts(one)]
    if _is_the_scripts(kind := type(trainer.train_loader.dataset)):
        found.append(f"data set class {_name_of(kind)}")
    return found


def _is_the_scripts(thing: object) -> bool:
    module = str(getattr(thing, "__module__", ""))
    return module.partition(".")[0] not in ("ultralytics", "nantui", "torch", "torchvision", "builtins")


def _name_of(thing: object) -> str:
    return f"{getattr(thing, '__module__', '?')}.{getattr(thing, '__qualname__', type(thing).__qualname__)}"


def _optimizer(trainer: RunningTrainer) -> dict[str, object]:
    """Base rates come from `initial_lr`: `lr` itself moves through warm-up and schedule."""
    groups = trainer.optimizer.param_groups
    decayed = max(groups, key=lambda group: group.get("weight_decay", 0.0))
    scale = trainer.batch_size * trainer.accumulate_nominal / trainer.args.nbs
    values = {
        "optimizer": type(trainer.optimizer).__name__, "momentum": _momentum(trainer),
        "lr0": min(group.get("initial_lr", group["lr"]) for group in groups),
        "lrf": round(float(trainer.lf(trainer.epochs)), 12),
        "weight_decay": decayed.get("weight_decay", 0.0) / scale,
    }  # fmt: skip
    return {name: _short(value) for name, value in values.items()}


def _momentum(trainer: RunningTrainer) -> float:
    """Return the momentum the run settles on: in warm-up the live one of SGD is still on its way."""
    group = trainer.optimizer.param_groups[0]
    if "betas" in group:
        return float(group["betas"][0])
    batches = len(trainer.train_loader)
    warming = trainer.start_epoch * batches <= ultralytics_api.warmup_iterations(trainer, batches)
    return float(trainer.args.momentum if warming else group.get("momentum", 0.0))


def _loop(trainer: RunningTrainer) -> dict[str, object]:
    stopper = getattr(trainer, "stopper", None)
    stride = getattr(ultralytics_api.unwrapped(trainer.model), "stride", None)  # image sides are a multiple
    return {
        "epochs": trainer.epochs, "batch": trainer.train_loader.batch_size * max(world_size(), 1),
        "imgsz": trainer.args.imgsz, "workers": trainer.train_loader.num_workers, "amp": _precision(trainer),
        "nbs": trainer.args.nbs, "accumulate": trainer.accumulate_nominal,
        "close_mosaic": trainer.args.close_mosaic, "save_period": trainer.save_period,
        "patience": getattr(stopper, "patience", trainer.args.patience), "device": str(trainer.device),
        "world_size": max(world_size(), 1), "images": len(trainer.train_loader.dataset),
        "stride": 32 if stride is None else max(int(stride.max()), 32),
    }  # fmt: skip


def _precision(trainer: RunningTrainer) -> bool | str:
    if trainer.args.amp == "bf16":
        return "bf16" if trainer.amp else False
    return bool(trainer.scaler.is_enabled())


def _gains(trainer: RunningTrainer) -> dict[str, object]:
    criterion = getattr(ultralytics_api.unwrapped(trainer.model), "criterion", None)
    held = getattr(criterion, "hyp", None) or trainer.args
    return {name: getattr(held, name) for name in _GAINS if hasattr(held, name)}


def _augmentation(trainer: RunningTrainer) -> dict[str, object]:
    """Return the strengths that the live transforms hold, by Ultralytics' argument names.

    What the closing of mosaic has switched off (`YOLODataset.close_mosaic`, data/dataset.py) says nothing
    about its setting and is left out; a note tells.
    """
    found: dict[str, object] = {}
    for transform in ultralytics_api.transforms(trainer.train_loader.dataset):
        for name, attribute in ultralytics_api.TRANSFORM_SETTINGS.get(type(transform).__name__, {}).items():
            found[name] = getattr(transform, attribute, None)
    switched_off = _OFF_AFTER_MOSAIC if _mosaic_closed(trainer) else ()
    numbers = {name: value for name, value in found.items() if isinstance(value, (int, float))}
    return {name: value for name, value in numbers.items() if name not in switched_off}


def _mosaic_closed(trainer: RunningTrainer) -> bool:
    last_epochs = trainer.args.close_mosaic
    return bool(last_epochs) and trainer.epoch >= trainer.epochs - last_epochs


def _notes(trainer: RunningTrainer) -> list[str]:
    rows: dict[float, list[str]] = {}
    for group in trainer.optimizer.param_groups:
        rate = _short(group.get("initial_lr", group["lr"]))
        rows.setdefault(rate, []).append(group.get("param_group", "?"))
    notes = [f"lr {rate:g} for {', '.join(names)}" for rate, names in rows.items()] if len(rows) > 1 else []
    if _mosaic_closed(trainer):
        last = trainer.args.close_mosaic
        notes.append(f"mosaic is closed: these are the last {last} epochs (close_mosaic)")
    if images := quarantined(trainer.session.layout):
        notes.append(f"{count(len(images), 'image')} in quarantine, left out")
    return notes


def _short(value: Any) -> Any:
    return float(f"{value:.6g}") if isinstance(value, float) else value
