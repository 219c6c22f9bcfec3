"""The optimizer that a resume will build, as a state dict, with as much of the old state as still fits.

Weight decay is per group and scaled by the batch, MuSGD has eight groups at two rates, and a resume takes
whole groups from the file. So the groups come from Ultralytics' own `build_optimizer`, never from one value
written over all of them; the saved state (momenta) is kept where the optimizer stays the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import torch
from torch import nn

from nantui.run.documents import JsonObject
from nantui.settings.lint import schedule

State: TypeAlias = Mapping[str, Any]
"""An optimizer's state dict, one of its groups, a parameter's entry in it, or a training's arguments."""

GUESSED_UPDATES = 20000


def build(
    model: nn.Module, args: SimpleNamespace, saved: State | None, before: State, epoch: int
) -> tuple[JsonObject, JsonObject]:
    """Return the optimizer state with which training resumes at `epoch` (from 0) under `args`, and what there
    is to say: `groups` for people, and `notes`.

    `saved` is the checkpoint's optimizer, `before` its old arguments. As `_build_train_pipeline` does,
    `args.optimizer` and `args.lr0` become what `auto` chose. Raises NotImplementedError for an optimizer that
    Ultralytics does not know.
    """
    optimizer = fresh_optimizer(model, args)
    groups = optimizer.state_dict()["param_groups"]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for group in groups:
        group["initial_lr"] = group["lr"]  # the scheduler would add it, but a resume replaces whole groups
        group["lr"] = group["initial_lr"] * schedule(vars(args), epoch)
    fitting, notes = _kept_state(args, saved, before, groups, parameters)
    finite = {index: entry for index, entry in fitting.items() if _is_finite(entry)}
    if bad := len(fitting) - len(finite):
        notes.append(f"{bad} parameters had non-finite optimizer state; theirs begins anew")
    said = {"groups": [*map(_describe, groups)], "notes": notes}
    return {"state": finite, "param_groups": groups}, said


def fresh_optimizer(model: nn.Module, args: SimpleNamespace) -> torch.optim.Optimizer:
    """Return the optimizer that `BaseTrainer._build_train_pipeline` would build for `model` under `args`."""
    from ultralytics.engine.trainer import BaseTrainer

    trainer: Any = BaseTrainer.__new__(BaseTrainer)
    trainer.args = args
    trainer.data = {"nc": int(getattr(model, "nc", 0) or (model.yaml or {}).get("nc") or 80)}
    batch = int(args.batch)
    accumulate = max(round(args.nbs / batch), 1)
    auto = str(args.optimizer).lower() == "auto"  # decides by the number of steps; else nothing is counted
    steps = math.ceil(_train_images(args) / max(batch, args.nbs)) * args.epochs if auto else 1e5
    return trainer.build_optimizer(
        model=model, name=args.optimizer, lr=args.lr0, momentum=args.momentum,
        decay=args.weight_decay * batch * accumulate / args.nbs, iterations=steps,
    )  # fmt: skip


def updates_until(args: SimpleNamespace, epoch: int) -> tuple[int, str]:
    """Return the EMA's updates, one an optimizer step, of a training of `epoch` epochs, and how it is known.

    Where the images cannot be counted it is far beyond the start, so that the average does not begin anew
    (`ModelEMA` decays by 1 - exp(-updates/2000)).
    """
    try:
        batches = math.ceil(_train_images(args) * args.fraction / args.batch)
    except Exception as error:  # a data set that is gone, in whatever words of Ultralytics'
        first = (str(error).splitlines() or [type(error).__name__])[0]
        return GUESSED_UPDATES, f"the EMA's counter is a guess, {GUESSED_UPDATES}: {first}"
    updates = math.ceil(batches * epoch / max(round(args.nbs / args.batch), 1))
    return updates, f"the EMA's counter is {updates}, by the images of the data set"


def _train_images(args: SimpleNamespace) -> int:
    from ultralytics.data.utils import IMG_FORMATS, check_cls_dataset, check_det_dataset

    classify = args.task == "classify"
    data = check_cls_dataset(args.data) if classify else check_det_dataset(args.data, autodownload=False)
    source, count = data["train"], 0
    for path in map(Path, source if isinstance(source, (list, tuple)) else [source]):
        if path.is_dir():
            count += sum(1 for found in path.rglob("*") if found.suffix[1:].lower() in IMG_FORMATS)
        else:
            count += sum(1 for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return count


def _kept_state(
    args: SimpleNamespace, saved: State | None, before: State, groups: Sequence[State],
    parameters: Sequence[torch.Tensor],
) -> tuple[dict[int, Any], list[str]]:  # fmt: skip
    """Return the saved state under the fresh indices; empty where the optimizer or its groups changed."""
    if not saved or not saved.get("state"):
        return {}, []
    old, new = kind_of(saved, before), str(args.optimizer)
    if old.lower() != new.lower():
        return {}, [f"optimizer {old} became {new}: its state begins anew"]
    indices = _fresh_indices(saved["param_groups"], groups)
    if indices is None:
        return {}, [f"the saved groups of {old} do not fit this model: its state begins anew"]
    state = {indices[was]: entry for was, entry in saved["state"].items() if was in indices}
    wrong = sum(not _fits(entry, parameters[index]) for index, entry in state.items())
    if wrong:
        return {}, [f"{wrong} saved momenta have another shape: the state begins anew"]
    return state, []


def momentum_held(saved: State | None, before: State) -> float | None:
    """Return the momentum that a saved optimizer settles on, None where the arguments `before` say it.

    `auto` writes back its optimizer and lr0 but not its momentum of 0.9 (`BaseTrainer.build_optimizer`).
    A warm-up leads SGD's on to the arguments' and may have been cut short in the file; Adam's betas stay.
    """
    group = (saved or {}).get("param_groups", [{}])[0]
    if "betas" in group:
        return float(group["betas"][0])
    return float(group["momentum"]) if "momentum" in group and not before.get("warmup_epochs") else None


def kind_of(saved: State, before: State) -> str:
    """Return the optimizer that a saved state belongs to.

    The arguments say it since `auto` writes back its choice; before that, the group's own options tell.
    """
    asked = str(before.get("optimizer", "auto"))
    if asked.lower() != "auto":
        return asked
    group = saved["param_groups"][0]
    if any("use_muon" in other for other in saved["param_groups"]):
        return "MuSGD"
    return "SGD" if "nesterov" in group else "AdamW" if "betas" in group else "RMSprop"


def _fresh_indices(saved: Sequence[State], fresh: Sequence[State]) -> dict[int, int] | None:
    """Return the fresh index of every saved one, None when the groups do not correspond.

    Ultralytics has put the three groups in another order before (bias, weight, norm); within a group the
    order is the model's.
    """
    for groups in (saved, [*saved[-1:], *saved[:-1]]):
        old, new = [group["params"] for group in groups], [group["params"] for group in fresh]
        if [*map(len, old)] == [*map(len, new)]:
            return dict(zip(chain(*old), chain(*new), strict=True))
    return None


def _fits(entry: State, parameter: torch.Tensor) -> bool:
    tensors = (value for value in entry.values() if isinstance(value, torch.Tensor) and value.ndim > 0)
    return all(value.shape == parameter.shape for value in tensors)


def _is_finite(entry: State) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in entry.values() if torch.is_tensor(value))


def _describe(group: State) -> dict[str, Any]:
    names = ("param_group", "lr", "initial_lr", "momentum", "betas", "weight_decay")
    return {name: group[name] for name in names if name in group} | {"parameters": len(group["params"])}
