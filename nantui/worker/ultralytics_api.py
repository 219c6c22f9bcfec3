"""Where the worker leans on the insides of Ultralytics' trainer, data sets and loaders.

A new Ultralytics release is checked here, in `validation_precision` (the validators) and in
tests/worker/test_ultralytics_api.py, which pins each fact against the installed version. Facts were read in
ultralytics 8.4.190; what was otherwise in 8.2.103 and 8.3.253 says so, and `make matrix` tries those.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from nantui.machine.gpus import device_count
from nantui.settings import guard_requirements
from nantui.worker import torchrun_env
from nantui.worker.ultralytics_types import Batch, Losses, Trainer

# data/augment.py: which attribute of which transform holds an argument
TRANSFORM_SETTINGS = {
    "Mosaic": {"mosaic": "p"}, "MixUp": {"mixup": "p"}, "CutMix": {"cutmix": "p"},
    "CopyPaste": {"copy_paste": "p"},
    "RandomPerspective": {name: name for name in ("degrees", "translate", "scale", "shear", "perspective")},
    "RandomHSV": {"hsv_h": "hgain", "hsv_s": "sgain", "hsv_v": "vgain"},
}  # fmt: skip


def load_model(name: str, task: str | None = None) -> Any:
    """Return the model that Ultralytics' own rules make of a name: YOLO, RT-DETR, World or YOLOE.

    Like `cfg.entrypoint`, RT-DETR by the file's stem; the rest `YOLO.__init__` finds out itself, also
    RT-DETR in a checkpoint. Raises what Ultralytics raises: FileNotFoundError for a missing file.
    """
    from ultralytics import RTDETR, YOLO

    take_paths_as_they_are()
    return RTDETR(name) if is_rtdetr(name) else YOLO(name, task=task)


def take_paths_as_they_are() -> None:
    """Have a checkpoint loaded from a path with an apostrophe: `attempt_download_asset` (utils/downloads.py)
    takes them out, and looks for another file. All who load one import it at that moment.
    """
    from ultralytics.utils import downloads

    stock = downloads.attempt_download_asset

    def existing(file: str | Path, *words: Any, **options: Any) -> Any:
        there = "'" in str(file) and Path(file).is_file()
        return str(file) if there else stock(file, *words, **options)

    if not getattr(stock, "takes_as_they_are", False):
        existing.takes_as_they_are = True  # type: ignore[attr-defined]
        downloads.attempt_download_asset = existing


def is_rtdetr(name: str) -> bool:
    """Tell whether Ultralytics makes an RT-DETR of a model of this name (`cfg.entrypoint`)."""
    return "rtdetr" in Path(name).stem.lower()


def task_trainer(model: Any) -> type:
    """Return the trainer class that `model.train()` would use (`Model.task_map`)."""
    trainer: type = model._smart_load("trainer")
    return trainer


def base_trainer() -> type:
    """Return the class that all trainers share."""
    from ultralytics.engine.trainer import BaseTrainer

    base: type = BaseTrainer
    return base


def missing_hooks(trainer_class: type) -> list[str]:
    """Return the places that a guard needs and this trainer does not have; a loop of its own counts.

    Classes without readable source (typed into an interpreter) count as lacking the loop they bring.
    """
    theirs = [cls for cls in trainer_class.__mro__[:-1] if not cls.__module__.startswith("nantui.")]
    nodes = {cls: guard_requirements.source_of(cls) for cls in theirs}
    hidden = [
        f"{name} of {cls.__name__} (its source cannot be read)"
        for cls, node in nodes.items()
        for name in (guard_requirements.LOOP, guard_requirements.SETUP)
        if node is None and name in vars(cls)
    ]
    readable = (node for node in nodes.values() if node is not None)
    hooks = guard_requirements.hooks_of(guard_requirements.methods_of(readable))
    return hidden + guard_requirements.missing(hooks)


def classes_of_checkpoint(checkpoint: Mapping[str, object]) -> int | None:
    """Return the number of classes of the network in a loaded checkpoint, None where it does not say.

    By its names: `yaml["nc"]` is overwritten once a model was built from it (nn/tasks.py, `DetectionModel`).
    """
    model = checkpoint.get("ema") or checkpoint.get("model")
    names = getattr(model, "names", None)
    return len(names) if names else None


def spawns_ranks(trainer: Trainer) -> bool:
    """Tell whether `train()` will start ranks of its own, as several devices do outside torchrun.

    `trainer.ddp` (engine/trainer.py, `__init__`); before 8.4 `train` itself counted the devices.
    """
    several = device_count(trainer.args.device) > 1 and "LOCAL_RANK" not in os.environ
    return bool(getattr(trainer, "ddp", several))


def chosen_directory(args: object, exist_ok: bool) -> Path:
    """Return the run directory that a trainer with these arguments would take (cfg, `get_save_dir`).

    Unlike there, the last link on the way is not followed, and unlike 8.3 nothing is made.
    """
    from ultralytics.cfg import get_save_dir
    from ultralytics.utils import files

    choose, chosen = files.increment_path, list[Path]()

    def only_chosen(*args: object, mkdir: bool = False, **options: object) -> Path:
        chosen.append(Path(choose(*args, **options)))
        return chosen[-1]

    with replaced(files, "increment_path", only_chosen):
        resolved = Path(get_save_dir(SimpleNamespace(**{**vars(args), "exist_ok": exist_ok})))
    return chosen[-1].parent.resolve() / chosen[-1].name if chosen else resolved


def lay_out_optimizer_state(optimizer: torch.optim.Optimizer) -> None:
    """Let each state lie in memory as its parameter does, as if the optimizer had made it itself.

    On a GPU Ultralytics 8.4 trains channels-last (engine/trainer.py, `setup_model`). PyTorch's fused AdamW
    refuses a state that lies otherwise, and MuSGD's products come out other in their last bits.
    """
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            same_shape = isinstance(value, torch.Tensor) and value.shape == parameter.shape
            if same_shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def has_own_step(trainer_class: type) -> bool:
    """Tell whether somebody's trainer brings its own `optimizer_step`, which then must be called."""
    return trainer_class.optimizer_step is not base_trainer().optimizer_step  # type: ignore[attr-defined]


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the model inside DDP or torch.compile (`unwrap_model`, in 8.2 `de_parallel`)."""
    from ultralytics.utils import torch_utils

    unwrap = getattr(torch_utils, "unwrap_model", None) or torch_utils.de_parallel
    inner: nn.Module = unwrap(model)
    return inner


def loss_items(trainer: Trainer) -> tuple[tuple[str, ...], list[torch.Tensor]]:
    """Return the names and values of this batch's losses, the values as 0-dim tensors on the device, which
    may know how they came about.

    `trainer.loss_items` is a dict of 0-dim tensors; before 8.4 it was one vector named by `loss_names`.
    """
    items = trainer.loss_items
    if isinstance(items, dict):
        return tuple(items), [value.sum() if value.dim() else value for value in items.values()]
    values = list(items.detach().reshape(-1).unbind())
    names = tuple(trainer.loss_names)
    if len(names) != len(values):  # 8.2 named them on the first rank only
        names = tuple(f"loss_{index}" for index in range(len(values)))
    return names, values


def like_loss_items(trainer: Trainer, values: torch.Tensor) -> Losses:
    """Return `values`, on the host, in the shape in which the trainer keeps its losses.

    A dict may stay on the host: its 0-dim values mix with those of any device. A vector may not.
    """
    items = trainer.loss_items
    if isinstance(items, dict):
        return dict(zip(items, values.unbind(), strict=True))
    return values.reshape(items.shape).to(items.device, non_blocking=True)


def loss_scale(trainer: Trainer) -> torch.Tensor | None:
    """Return the GradScaler's scale as a tensor on the device, None without fp16. Not a host read.

    `GradScaler._scale` is private to PyTorch (torch/amp/grad_scaler.py); `get_scale()` waits for the GPU.
    """
    scaler = trainer.scaler
    return scaler._scale if scaler.is_enabled() else None


def refuse_step(trainer: Trainer) -> None:
    """Have GradScaler refuse the step whose gradients it has unscaled, as if it had found an Inf in them.

    What it found is private to PyTorch (torch/amp/grad_scaler.py, `found_inf_per_device`).
    """
    for found in trainer.scaler._per_optimizer_states[id(trainer.optimizer)]["found_inf_per_device"].values():
        found.fill_(1.0)


def normalization_buffers(model: nn.Module) -> list[torch.Tensor]:
    """Return the running statistics of every normalization layer, in a fixed order."""
    layers = (layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._NormBase))
    return [buffer for layer in layers for buffer in layer.buffers(recurse=False)]


def non_finite(named: Iterable[tuple[str, torch.Tensor]]) -> list[str]:
    """Return the names of tensors with a NaN or Inf in them; reads every value, with one host read."""
    floats = [(name, tensor) for name, tensor in named if tensor.is_floating_point()]
    if not floats:
        return []
    finite = torch.stack([torch.isfinite(tensor.detach()).all() for _, tensor in floats]).tolist()
    return [name for (name, _), good in zip(floats, finite, strict=True) if not good]


def gradient_norm(parameters: Iterable[nn.Parameter]) -> torch.Tensor:
    """Return the Euclidean norm of all gradients, exactly as `clip_grad_norm_` computes it."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if hasattr(torch.nn.utils, "get_total_norm"):  # torch 2.6
        return torch.nn.utils.get_total_norm(gradients)
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients, 2.0)))


def clip_by(parameters: Iterable[nn.Parameter], limit: float, norm: torch.Tensor) -> None:
    """Clip the gradients to `limit`, given their norm, exactly as `clip_grad_norm_` does."""
    if hasattr(torch.nn.utils, "clip_grads_with_norm_"):  # torch 2.6
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    else:
        share = torch.clamp(limit / (norm + 1e-6), max=1.0)
        torch._foreach_mul_([p.grad for p in parameters if p.grad is not None], share)


def rate_of_weights(optimizer: torch.optim.Optimizer) -> float:
    """Return the largest rate of the groups without that of biases, which warm up from `warmup_bias_lr`.

    8.4 marks that group (`BaseTrainer.build_optimizer`, "param_group"); before, it was the first of three.
    """
    groups = optimizer.param_groups
    old = len(groups) == 3 and "param_group" not in groups[0]
    rates = [group["lr"] for group in groups[int(old) :] if group.get("param_group") != "bias"]
    return float(max(rates or [group["lr"] for group in groups]))


def step_can_be_taken_back(trainer: Trainer) -> bool:
    """Tell whether everything that the optimizer's step changes is known, on a device that queues.

    True for PyTorch's and Ultralytics' optimizers, which keep what they know in `optimizer.state`, with
    Ultralytics' EMA, where nobody's hook follows the steps. The host waits anyway with a GradScaler at work
    (`GradScaler.step`), and where ranks agree on `time=` between step and batch end (engine/trainer.py).
    """
    changing = [trainer.optimizer, trainer.ema or trainer.optimizer]
    known = all(type(one).__module__.startswith(("torch.optim.", "ultralytics.")) for one in changing)
    hooks = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
    alone = not any(getattr(trainer.optimizer, name, None) for name in hooks)
    waits = trainer.scaler.is_enabled() or (trainer.args.time and torchrun_env.world_size() > 1)
    return known and alone and trainer.device.type == "cuda" and not waits


def non_finite_state(model: nn.Module) -> list[str]:
    """Return the names of parameters and normalization statistics with a NaN or Inf in them.

    Other buffers do not count: the anchors of RT-DETR hold Inf on purpose.
    """
    return non_finite([*model.named_parameters(), *named_statistics(model)])


def named_statistics(model: nn.Module) -> list[tuple[str, torch.Tensor]]:
    """Return the running statistics of every normalization layer with their names."""
    statistics = {id(buffer) for buffer in normalization_buffers(model)}
    return [(name, buffer) for name, buffer in model.named_buffers() if id(buffer) in statistics]


def weight_size(model: nn.Module) -> tuple[float, float]:
    """Return the Euclidean norm of all trainable weights and the largest magnitude among the finite ones."""
    weights = [p.detach().float() for p in model.parameters() if p.requires_grad]
    size = torch.stack([torch.linalg.vector_norm(weight) for weight in weights]).norm()
    largest = torch.stack([weight.nan_to_num(0.0, 0.0, 0.0).abs().amax() for weight in weights]).amax()
    return float(size), float(largest)


def update_size(optimizer: torch.optim.Optimizer) -> float:
    """Return the Euclidean norm of the last step, as far as the optimizer's state tells."""
    total = 0.0
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            moved = _direction_size(optimizer.state.get(parameter, {}), bool(group.get("use_muon")))
            total += (group["lr"] * moved) ** 2
    return total**0.5


def _direction_size(state: Mapping[str, torch.Tensor], orthogonal: bool) -> float:
    """SGD steps by its momentum buffer, Adam by mean / root of mean square, Muon by an orthogonal matrix."""
    if "exp_avg_sq" in state:
        direction = state["exp_avg"].float() / (state["exp_avg_sq"].float().sqrt() + 1e-8)
        return float(torch.linalg.vector_norm(direction))
    buffer = state.get("momentum_buffer")
    if buffer is None:
        return 0.0
    return float(min(buffer.shape[:2]) ** 0.5 if orthogonal else torch.linalg.vector_norm(buffer.float()))


def instances(batch: Batch) -> int:
    """Return the number of objects in a batch, as the progress line counts them."""
    return int((batch["cls"] if "cls" in batch else batch["img"]).shape[0])


@contextlib.contextmanager
def redirected_saves(trainer: Trainer, directory: Path) -> Iterator[None]:
    """Let `save_model` write into `directory`: it uses `wdir`, `last` and `best` and nothing else."""
    kept = trainer.wdir, trainer.last, trainer.best
    trainer.wdir, trainer.last, trainer.best = directory, directory / "last.pt", directory / "best.pt"
    try:
        yield
    finally:
        trainer.wdir, trainer.last, trainer.best = kept


@contextlib.contextmanager
def replaced_strip(strip: Callable[..., object]) -> Iterator[None]:
    """Let `final_eval` strip its checkpoints by `strip(stock, file, s, updates)` (engine/trainer.py)."""
    from ultralytics.engine import trainer

    with replaced(trainer, "strip_optimizer", functools.partial(strip, trainer.strip_optimizer)):
        yield


@contextlib.contextmanager
def replaced(owner: object, name: str, value: object) -> Iterator[None]:
    """Put `value` in the place of an attribute for a while."""
    kept = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, kept)


def world_size(trainer: Trainer, *stock: int) -> int:
    """Return how many ranks train: all machines' from the environment, else the trainer's own count.

    8.4 and late 8.3 keep it in `trainer.world_size`; 8.2 hands it to `_do_train` (`stock`).
    """
    launched = torchrun_env.world_size()
    return launched if launched > 1 else int(stock[0] if stock else trainer.world_size)


def warmup_iterations(trainer: Trainer, batches: int) -> int:
    """Return in how many batches the rates warm up (`_get_warmup_iterations`; before 8.4 inside the loop)."""
    if hasattr(trainer, "_get_warmup_iterations"):
        return int(trainer._get_warmup_iterations(batches))
    epochs = trainer.args.warmup_epochs
    return max(round(epochs * batches), 100) if epochs > 0 else -1


def transforms(dataset: object) -> Iterator[object]:
    """Yield every transform of a data set, with those inside a `Compose`."""
    waiting = [getattr(dataset, "transforms", None)]
    while waiting:
        transform = waiting.pop(0)
        if transform is None:
            continue
        inner = getattr(transform, "transforms", None)
        if isinstance(inner, list):
            waiting = [*inner, *waiting]
            continue
        yield transform


def image_files(dataset: Any) -> list[str]:
    """Return the names of a data set's images, in the order of their index; none where it does not say."""
    samples = getattr(dataset, "samples", None)
    if isinstance(samples, list):
        return [str(sample[0]) for sample in samples]
    return [str(file) for file in getattr(dataset, "im_files", None) or ()]


def built_without(images: Collection[str], build: Callable[[], Any]) -> tuple[Any, list[str], int]:
    """Return the data set that `build` makes, without `images`, which are absolute paths: its label cache,
    length and sampler are those of a data set without them. And what it then leaves out by itself, of how
    many: images with a label or pixels that cannot be used (`verify_image_label`, data/utils.py).

    `BaseDataset.__init__` asks `get_img_files` for its files (data/base.py); classification reads a folder
    by torchvision's rules instead (`ClassificationDataset`, data/dataset.py).
    """
    from ultralytics.data.base import BaseDataset

    stock, found = BaseDataset.get_img_files, list[str]()

    def kept(dataset: object, img_path: object) -> list[str]:
        files = [file for file in stock(dataset, img_path) if os.path.abspath(file) not in images]
        found.extend(files)
        return files

    with replaced(BaseDataset, "get_img_files", kept):
        dataset = build()
    samples = getattr(dataset, "samples", None)
    if isinstance(samples, list):
        dataset.samples = [sample for sample in samples if os.path.abspath(sample[0]) not in images]
    taken = set(image_files(dataset))
    return dataset, [file for file in found if taken and file not in taken], len(found)
