"""Ultralytics' own word on arguments, and the name of the new run, before anything is created.

`python -m nantui.worker.check_arguments REQUEST.json` with {"train": {…}} answers one JSON line
{"ok", "error", "save_dir", "args", "task"}; with {"config": {…}}, the settings of a file such as another
run's args.yaml, {"ok", "error", "settings", "notes"}; with {"data": {"name", "task"}} whether it is there;
with {"images": {"paths"}} which of them its reader cannot decode, {"ok", "error", "undecodable"}.
Nothing is downloaded, trained or written; only {"runs": {"trains": [{…}, …]}} makes the directories of new
runs, all or none, {"ok", "error", "made": [an answer each]}.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nantui.checkpoint.scan import describe
from nantui.errors import UserError
from nantui.machine.gpus import words_of
from nantui.paths import go_to_work
from nantui.run.atomic_files import to_json
from nantui.run.spec import divided
from nantui.settings.schema import Schema
from nantui.worker.torchrun_env import OFFLINE


def prepare(train: dict[str, object]) -> dict[str, object]:
    """Return {"save_dir", "args", "task"} for a new training with the arguments `train`.

    `args` are those asked for, with files by their full path and `save_dir`, `project`, `name` fixed.
    Raises UserError for what Ultralytics or the disk refuses.
    """
    from ultralytics.cfg import get_cfg
    from ultralytics.utils import DEFAULT_CFG_DICT

    from nantui.worker.ultralytics_api import chosen_directory

    if train.get("resume"):
        raise UserError("resume=… continues a run: use `nantui resume RUN`")
    if train.get("mode", "train") != "train":
        raise UserError(f"mode={train['mode']}: nantui only trains; use the yolo command")
    Schema.load().check(train)
    refuse_missing_device(train.get("device"))
    model = find_model(train.get("model"))
    task = str(train.get("task") or task_of(model))
    data = find_data(train.get("data"), task)
    asked = {**train, "model": model, "data": data, "task": task, "mode": "train"}
    checked = get_cfg(DEFAULT_CFG_DICT, dict(asked))
    save_dir = chosen_directory(checked, exist_ok=bool(checked.exist_ok)).resolve()
    if save_dir.exists():
        raise UserError(f"{save_dir} exists already and is never overwritten; choose another name=")
    place = {"save_dir": str(save_dir), "project": str(save_dir.parent), "name": save_dir.name}
    return {"save_dir": str(save_dir), "args": {**asked, **place}, "task": task}


def make_all(request: dict[str, Any]) -> dict[str, object]:
    """Return {"made"}: for each of {"trains"} what `prepare` says, its directory made, so that the next one
    takes another name. Raises UserError for the first that is refused; none is left then.
    """
    made: list[dict[str, object]] = []
    try:
        for train in request["trains"]:
            answer = prepare(train)
            Path(str(answer["save_dir"])).mkdir(parents=True)
            made.append(answer)
    except BaseException:
        for answer in made:
            Path(str(answer["save_dir"])).rmdir()
        raise
    return {"made": made}


def as_now(config: dict[str, object]) -> dict[str, object]:
    """Return {"settings", "notes"}: a file of settings in the words of this release.

    Older names become today's, what was dropped is left out (`cfg.check_dict_alignment`), and so is what is
    None where a value is needed, as in an args.yaml of a run that was not resumed; notes name those.
    Raises UserError for a setting that Ultralytics does not know.
    """
    from ultralytics.cfg import check_dict_alignment
    from ultralytics.utils import DEFAULT_CFG_DICT

    aligned, ours = divided(config)
    try:
        check_dict_alignment(DEFAULT_CFG_DICT, aligned)
    except SyntaxError as error:
        raise UserError(str(error).splitlines()[0]) from None
    settings = {
        name: value
        for name, value in aligned.items()
        if value is not None or DEFAULT_CFG_DICT.get(name) is None
    }
    dropped = [name for name in config if name not in {**settings, **ours} and config[name] is not None]
    notes = [f"{name}: not a setting of this Ultralytics any more, left out" for name in dropped]
    return {"settings": {**settings, **ours}, "notes": notes}


def refuse_missing_device(device: object) -> None:
    """Raise UserError for CUDA devices that PyTorch does not see here; "cuda" is the first.

    Counting them starts no CUDA context (`torch.cuda.device_count`), as `select_device` would.
    """
    import torch

    there = torch.cuda.device_count()
    words = [word.lower().removeprefix("cuda:").replace("cuda", "0") for word in words_of(device)]
    own = words[:1] and words[0].startswith(("npu", "xpu"))
    if not own and any(word.isdigit() and int(word) >= there for word in words):
        seen = f"devices 0 to {there - 1}" if there else "no CUDA device"
        raise UserError(f"device={device}: PyTorch sees {seen} here; choose another, or device=cpu")


def find_model(name: object) -> str:
    """Return the model by its full path where it is a file, else by Ultralytics' name. Raises UserError."""
    from ultralytics.utils import SETTINGS
    from ultralytics.utils.checks import check_model_file_from_stem, check_yolov5u_filename
    from ultralytics.utils.downloads import GITHUB_ASSETS_STEMS

    if not name:
        raise UserError("model= is missing, e.g. model=yolo11n.pt, or model=yolo11n.yaml from scratch")
    path = Path(str(name))
    if path.is_file():
        return str(path.resolve())
    if "://" in str(name):
        return str(name)
    if path.suffix in (".yaml", ".yml"):
        return _model_yaml(path)
    asset = Path(check_yolov5u_filename(str(check_model_file_from_stem(str(name))), verbose=False))
    offered = asset.suffix == ".pt" and asset.stem in GITHUB_ASSETS_STEMS
    if len(path.parts) == 1 and (offered or (Path(SETTINGS["weights_dir"]) / asset).is_file()):
        return str(name)
    raise UserError(f"model={name}: no such file, and no model that Ultralytics ships or offers")


def _model_yaml(path: Path) -> str:
    """Return a model's YAML by its full path where it lies here, else by its shipped name.

    Its name may ask for a scale that the file's own name lacks: yolov8s-mine.yaml is yolov8-mine.yaml at
    scale s (`nn.tasks.yaml_model_load`, which is asked, as it also knows older names). Raises UserError.
    """
    from ultralytics.nn.tasks import yaml_model_load

    def found_as(place: Path) -> Path | None:
        try:
            return Path(yaml_model_load(place)["yaml_file"])
        except FileNotFoundError:
            return None

    found = found_as(Path.cwd() / path) or found_as(path)
    if found is None:
        raise UserError(f"model={path}: no such file, and no model that Ultralytics ships or offers")
    return str(found)


def find_data(name: object, task: str = "") -> str:
    """Return the data set by its full path where it is a file or folder here, else by the name Ultralytics
    knows: a YAML that it ships, a folder among its data sets, for classification any word, which it then
    fetches (`data.utils.check_cls_dataset`). Raises UserError when nothing of that name is there.
    """
    from ultralytics.utils import SETTINGS
    from ultralytics.utils.checks import check_file

    if not name:
        raise UserError("data= is missing: the data set's YAML, e.g. data=/data/shapes/data.yaml")
    text = str(name)
    if "://" in text:
        return text
    path = Path(text)
    if path.exists():
        return str(path.resolve())
    word = len(path.parts) == 1 and not path.suffix
    if check_file(text, download=False, hard=False) or (Path(SETTINGS["datasets_dir"]) / text).exists():
        return text
    if word and task == "classify":
        return text
    raise UserError(f"data={name}: no such file here ({Path.cwd()}); give the path of the data set's YAML")


def decode(request: dict[str, Any]) -> dict[str, object]:
    """Return {"undecodable"}: the images among {"paths"} that Ultralytics' reader gives nothing for."""
    from ultralytics.utils.patches import imread

    return {"undecodable": [path for path in request["paths"] if imread(path) is None]}


def task_of(model: str) -> str:
    """Return the task of a model: what its YAML ends in, what its checkpoint records, or what its name says.

    RT-DETR's YAMLs end in a decoder that `nn.tasks.guess_model_task` cannot place; `models.rtdetr.RTDETR`
    detects. Raises UserError where Ultralytics itself cannot tell.
    """
    from ultralytics.nn.tasks import guess_model_task, yaml_model_load

    from nantui.worker.ultralytics_api import is_rtdetr

    path = Path(model)
    if is_rtdetr(model):
        return "detect"
    if path.suffix in (".yaml", ".yml"):
        task = guess_model_task(yaml_model_load(model))
    else:
        task = describe(path).train_args.get("task") or guess_model_task(path.name)
    if task is None:
        raise UserError(f"model={path.name}: Ultralytics cannot tell its task; give task=detect or another")
    return str(task)


def main(arguments: list[str]) -> int:
    """Answer with one JSON line; the exit status is 0 when the arguments are good, else 2."""
    os.environ.update(OFFLINE)
    go_to_work()
    request = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    asked: dict[str, Callable[[dict[str, Any]], dict[str, object]]] = {
        "train": prepare, "config": as_now, "images": decode, "runs": make_all,
        "data": lambda data: {"data": find_data(data.get("name"), str(data.get("task") or ""))},
    }  # fmt: skip
    try:
        said = next(answer(dict(request[kind])) for kind, answer in asked.items() if kind in request)
        answer: dict[str, object] = {"ok": True, "error": "", **said}
    except Exception as error:  # UserError, and whatever Ultralytics raises
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        answer = {"ok": False, "error": first, "save_dir": None, "args": {}}
    print(to_json(answer))
    return 0 if answer["ok"] else 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
