"""Ultralytics' own word on arguments, and the name of the new run, before anything is created.

`python -m nantui.training.prepare REQUEST.json` with {"train": {…}}; answers one JSON line
{"ok", "error", "save_dir", "args", "task"}. Nothing is downloaded, trained or written.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from nantui.training.environment import OFFLINE

TASK_SUFFIXES = {
    "-seg": "segment",
    "-cls": "classify",
    "-pose": "pose",
    "-obb": "obb",
    "-sem": "semantic",
    "-depth": "depth",
}


def prepare(train: dict[str, Any]) -> dict[str, Any]:
    """Return {"save_dir", "args", "task"} for a new training with the arguments `train`.

    `args` are those asked for, with files by their full path and `save_dir`, `project`, `name` fixed.
    Raises UserError for what Ultralytics or the disk refuses.
    """
    from ultralytics.cfg import get_cfg
    from ultralytics.utils import DEFAULT_CFG_DICT

    from nantui.errors import UserError
    from nantui.settings.schema import Schema

    refuse_other_purposes(train)
    Schema.load().check(train)
    refuse_missing_device(train.get("device"))
    model, data = find_model(train.get("model")), find_data(train.get("data"))
    task = str(train.get("task") or task_of(model))
    asked = {**train, "model": model, "data": data, "task": task, "mode": "train"}
    save_dir = directory_for(get_cfg(DEFAULT_CFG_DICT, dict(asked)))
    if save_dir.exists():
        raise UserError(f"{save_dir} exists already and is never overwritten; choose another name=")
    place = {"save_dir": str(save_dir), "project": str(save_dir.parent), "name": save_dir.name}
    return {"save_dir": str(save_dir), "args": {**asked, **place}, "task": task}


def directory_for(args: Any) -> Path:
    """Return the run directory that Ultralytics would choose; unlike 8.3, do not make it."""
    from ultralytics.cfg import get_save_dir
    from ultralytics.utils import files

    from nantui.training.touchpoints import replaced

    choose = files.increment_path

    def only_chosen(*args: Any, mkdir: bool = False, **options: Any) -> Path:
        return Path(choose(*args, **options))

    with replaced(files, "increment_path", only_chosen):
        return Path(get_save_dir(args))


def refuse_other_purposes(train: dict[str, Any]) -> None:
    """Raise UserError for arguments that mean something else than a new training."""
    from nantui.errors import UserError

    if train.get("resume"):
        raise UserError("resume=… continues a run: use `nantui resume RUN`")
    if train.get("mode", "train") != "train":
        raise UserError(f"mode={train['mode']}: nantui only trains; use the yolo command")


def refuse_missing_device(device: Any) -> None:
    """Raise UserError for CUDA devices that PyTorch does not see here; other words are Ultralytics' affair.

    Counting them starts no CUDA context (`torch.cuda.device_count`), as `select_device` would.
    """
    import torch

    from nantui.errors import UserError

    words = [word.strip() for word in str(device).strip("[]() ").replace("cuda:", "").split(",")]
    there = torch.cuda.device_count()
    missing = [word for word in words if word.isdigit() and int(word) >= there]
    if missing:
        seen = f"devices 0 to {there - 1}" if there else "no CUDA device"
        raise UserError(f"device={device}: PyTorch sees {seen} here; choose another, or device=cpu")


def find_model(name: Any) -> str:
    """Return the model by its full path where it is a file here, else by the name Ultralytics knows.

    Raises UserError when it is a path to nothing.
    """
    from ultralytics.utils.downloads import GITHUB_ASSETS_STEMS

    from nantui.errors import UserError

    if not name:
        raise UserError("model= is missing, e.g. model=yolo11n.pt, or model=yolo11n.yaml from scratch")
    path = Path(str(name))
    if path.is_file():
        return str(path.resolve())
    if path.suffix in (".yaml", ".yml") and _shipped_model(path):
        return str(name)
    if len(path.parts) == 1 and path.suffix in (".pt", "") and path.stem in GITHUB_ASSETS_STEMS:
        return str(name)
    raise UserError(f"model={name}: no such file, and no model that Ultralytics ships or offers")


def _shipped_model(path: Path) -> bool:
    """Tell whether Ultralytics has this YAML; yolov8n.yaml is yolov8.yaml at scale n (`yaml_model_load`)."""
    import re

    from ultralytics.utils import ROOT

    unscaled = re.sub(r"(\d+)([nslmx])(.+)?$", r"\1\3", path.stem)
    names = {f"{stem}.yaml" for stem in (path.stem, unscaled)}
    return len(path.parts) == 1 and any(
        found.name in names for found in (ROOT / "cfg" / "models").rglob("*.yaml")
    )


def find_data(name: Any) -> str:
    """Return the data set by its full path where it is a file or folder here, else by its shipped name.

    Raises UserError when nothing of that name is there.
    """
    from ultralytics.utils import ROOT, SETTINGS

    from nantui.errors import UserError

    if not name:
        raise UserError("data= is missing: the data set's YAML, e.g. data=/data/shapes/data.yaml")
    text = str(name)
    if "://" in text:
        return text
    path = Path(text)
    if path.exists():
        return str(path.resolve())
    known = (ROOT / "cfg" / "datasets" / path.name, Path(SETTINGS["datasets_dir"]) / text)
    if len(path.parts) == 1 and any(place.exists() for place in known):
        return text
    raise UserError(f"data={name}: no such file here ({Path.cwd()}); give the path of the data set's YAML")


def task_of(model: str) -> str:
    """Return the task Ultralytics would find in the model: from its YAML, its suffix or its arguments."""
    path = Path(model)
    for suffix, task in TASK_SUFFIXES.items():
        if suffix in path.stem:
            return task
    if path.suffix in (".yaml", ".yml"):
        from ultralytics.nn.tasks import guess_model_task, yaml_model_load

        return str(guess_model_task(yaml_model_load(model)))
    return _task_inside(path) if path.is_file() else "detect"


def _task_inside(path: Path) -> str:
    """Return the task recorded in a checkpoint, read without running it."""
    from nantui.checkpoint.catalog import Catalog

    return str(Catalog(path.parent).verdict(path).train_args.get("task") or "detect")


def main(arguments: list[str]) -> int:
    """Answer with one JSON line; the exit status is 0 when the arguments are good, else 2."""
    os.environ.update(OFFLINE)
    from nantui.run.files import to_json

    request = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    try:
        answer: dict[str, Any] = {"ok": True, "error": "", **prepare(dict(request["train"]))}
    except (
        Exception
    ) as error:  # UserError, and whatever Ultralytics raises: TypeError, ValueError, SyntaxError …
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        answer = {"ok": False, "error": first, "save_dir": None, "args": {}}
    print(to_json(answer))
    return 0 if answer["ok"] else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
