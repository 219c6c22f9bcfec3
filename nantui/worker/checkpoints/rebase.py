"""Write changed settings into a checkpoint, so that a resume really uses them.

`python -m nantui.worker.checkpoints.rebase REQUEST.json`, a short process with torch; one JSON answer on
stdout. Ultralytics rebuilds all arguments of a resume from the checkpoint's `train_args` and takes momentum
and weight decay from the saved optimizer's groups (`BaseTrainer.check_resume`, `_load_checkpoint_state`). So
both are written here: the arguments after Ultralytics' own check, the groups by its own `build_optimizer`.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

from nantui.machine.gpus import device_count
from nantui.run.points import PART, differences
from nantui.worker.torchrun_env import OFFLINE


@dataclass(frozen=True)
class Request:
    """What to write: `source` becomes `target`, to be resumed in the run directory `run`.

    `train` are the changed arguments. `best` is {"fitness", "epoch"} of the best.pt that stays (epoch from
    1), or None to let the record start again. `revive` is {"epoch", "updates"} for a checkpoint that was
    stripped when its training ended; where the EMA's updates are None they are reckoned here.
    """

    source: str
    target: str
    run: str
    train: Mapping[str, object] = field(default_factory=dict)
    best: Mapping[str, Any] | None = None
    revive: Mapping[str, Any] | None = None
    note: Mapping[str, object] = field(default_factory=dict)


def rebase(request: Request) -> dict[str, object]:
    """Write the rebased checkpoint; returns {"args", "groups", "notes"}.

    Raises what Ultralytics raises for arguments it refuses (TypeError, ValueError), ValueError for a file
    that cannot be resumed from, OSError when the target cannot be written.
    """
    import torch
    from ultralytics.cfg import get_cfg
    from ultralytics.nn.tasks import torch_safe_load
    from ultralytics.utils import DEFAULT_CFG_DICT

    from nantui.worker import ultralytics_api
    from nantui.worker.checkpoints import optimizer_state
    from nantui.worker.checkpoints.save import settle

    ultralytics_api.take_paths_as_they_are()
    checkpoint, _ = torch_safe_load(request.source)
    model = _model_of(checkpoint, request)
    run = Path(request.run)
    before = {**DEFAULT_CFG_DICT, **(checkpoint.get("train_args") or {})}
    place = {"save_dir": str(run), "project": str(run.parent), "name": run.name}
    saved = None if request.revive else checkpoint.get("optimizer")
    held = optimizer_state.momentum_held(saved, before)
    kept = {"momentum": before["momentum"] if held is None else held}
    args = get_cfg({**before, **kept, **request.train, **place})
    epoch = int(checkpoint["epoch"]) + 1
    state, said = optimizer_state.build(model, args, saved, before, epoch)
    said["notes"] += _without_misfit(checkpoint, request.train, args, epoch)
    if request.revive and request.revive.get("updates") is None:
        checkpoint["updates"], note = optimizer_state.updates_until(args, epoch)
        said["notes"].append(note)
    checkpoint.update(
        model=None, ema=model, optimizer=state,
        scaler=_scaler(checkpoint.get("scaler"), before.get("amp"), args.amp), train_args=vars(args),
        **_record(request, epoch),
        nantui={**request.note, "rebased": time.time(), "changed": dict(request.train)},
    )  # fmt: skip
    torch.save(checkpoint, request.target)
    settle(Path(request.target))
    if args.momentum == kept["momentum"] != before["momentum"]:
        said["notes"].append(f"momentum {args.momentum:g} is kept, as the optimizer had it")
    return {"args": vars(args), **said}


def _model_of(checkpoint: object, request: Request) -> nn.Module:
    """Return the weights of a training checkpoint, reviving a stripped one when asked to."""
    import torch

    if not isinstance(checkpoint, dict):
        raise ValueError("not an Ultralytics training checkpoint")
    model = checkpoint.get("ema") or checkpoint.get("model")
    if not isinstance(model, torch.nn.Module):
        raise ValueError("holds no model")
    if request.revive:
        checkpoint["epoch"], checkpoint["updates"] = int(request.revive["epoch"]), request.revive["updates"]
        for parameter in model.parameters():
            parameter.requires_grad = parameter.dtype.is_floating_point
    elif int(checkpoint.get("epoch", -1)) < 0 and PART not in checkpoint:
        raise ValueError("it was stripped when its training ended, or stopped in its first epoch")
    return model


def _without_misfit(checkpoint: Any, changed: Mapping[str, object], args: Any, epoch: int) -> list[str]:
    """Take a step point out that the worker would refuse for what is `changed`; returns what is to be said.

    Raises ValueError where no epoch is done, which could be begun again.
    """
    now: dict[str, object] = {"world_size": device_count(args.device)} if "device" in changed else {}
    now |= {"data": str(args.data)} if "data" in changed else {}
    differ = "; ".join(differences((checkpoint.get(PART) or {}).get("training") or {}, now))
    if differ and not epoch:
        raise ValueError(f"it was stopped in its first epoch, and that cannot go on with this ({differ})")
    if differ:
        del checkpoint[PART]
        return [f"the epoch begins again ({differ})"]
    return []


def _record(request: Request, epoch: int) -> dict[str, object]:
    """Return `best_fitness` and `stopper` that agree with the best.pt that stays.

    The stopper counts epochs from 1 (`EarlyStopping.__call__(epoch + 1, fitness)`); without a best it
    begins at the restored epoch, so that patience is not used up already.
    """
    if request.best is None or request.best.get("fitness") is None:
        return {"best_fitness": None, "stopper": {"best_fitness": 0.0, "best_epoch": epoch}}
    fitness, best_epoch = float(request.best["fitness"]), int(request.best.get("epoch") or epoch)
    return {"best_fitness": fitness, "stopper": {"best_fitness": fitness, "best_epoch": best_epoch}}


def _scaler(saved: Mapping[str, Any] | None, before: object, after: object) -> dict[str, object]:
    """Return the loss scaler's state, empty (a fresh start) where it is unusable or the precision changed."""
    if not saved or _precision(before) != _precision(after) or _precision(after) != "fp16":
        return {}
    scale = float(saved.get("scale", 0.0))
    return dict(saved) if 1.0 <= scale < float("inf") else {}


def _precision(amp: object) -> str:
    named: dict[object, str] = {True: "fp16", False: "fp32"}
    return named.get(amp, str(amp))


def main(arguments: list[str]) -> int:
    """Read the request, answer with one JSON line; the exit status is 0 only when the file was written."""
    os.environ.update(OFFLINE)
    from nantui.run.atomic_files import to_json

    request = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    try:
        from torch.optim import Optimizer

        for name in ("add_param_group", "state_dict"):
            # As they are, a first optimizer imports all of torch._dynamo (torch/_compile.py): 1.5 s.
            setattr(Optimizer, name, inspect.unwrap(getattr(Optimizer, name)))
        answer = {"ok": True, **rebase(Request(**request))}
    except Exception as error:  # whatever Ultralytics, torch or the disk object to becomes one line
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        Path(request["target"]).unlink(missing_ok=True)
        print(to_json({"ok": False, "error": first}))
        return 1
    print(to_json(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
