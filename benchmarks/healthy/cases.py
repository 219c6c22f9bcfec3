"""The table of healthy trainings: what is trained on what, how, and with which seed.

The CPU's and the GPU's samples are drawn so that every pair of values of two dimensions comes together as
early as possible; the same seed gives the same table. Beside them stand what was measured as wrong once.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any

CPU, GPU = "cpu", "gpu"
CPU_SAMPLE, GPU_SAMPLE = 218, 52
RATES = {"SGD": 0.01, "MuSGD": 0.01, "Adam": 0.001, "AdamW": 0.001}
"""The rate that default.yaml recommends for each optimizer; `unsaid` is its literal default, 0.01 for all."""
EPOCHS = {"usual": 14, "few": 25, "hundreds": 4, "sparse": 12, "one class": 14, "many classes": 10,
          "tiny objects": 14, "96 px": 16, "64 images": 30, "hundreds, 128 px": 12}  # fmt: skip
BASE: dict[str, Any] = {"imgsz": 64, "batch": 8, "nbs": 8, "workers": 0, "plots": False, "verbose": False}
ON_GPU: dict[str, Any] = {"imgsz": 128, "batch": 16, "nbs": 16, "device": 0, "deterministic": True}

DETECT = ("yolov8 detect", "yolo11 detect", "yolo26 detect")
OTHER_TASKS = tuple(
    f"{family} {task}"
    for family in ("yolov8", "yolo11", "yolo26")
    for task in ("segment", "pose", "obb", "classify")
) + ("yolo26 semantic",)
TWISTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "freeze": {"freeze": 5},
    "multi_scale": {"multi_scale": 0.5},
    "cos_lr": {"cos_lr": True},
    "close_mosaic": {},
    "batch 2": {"batch": 2, "nbs": 2},
    "accumulation": {"nbs": 64},
    "resumed": {},
    "time": {"time": 0.002, "epochs": 100},
    "fine-tuning": {},
}
CPU_DIMENSIONS: dict[str, Sequence[str]] = {
    "what": (*DETECT, *DETECT, *OTHER_TASKS),
    "optimizer": ("auto", "SGD", "AdamW", "Adam", "MuSGD"),
    "rate": ("default", "three times", "unsaid"),
    "warm-up": ("0", "3"),
    "data": ("usual", "few", "hundreds", "sparse", "one class", "many classes", "tiny objects"),
    "twist": tuple(TWISTS),
}
GPU_DIMENSIONS: dict[str, Sequence[str]] = {
    **CPU_DIMENSIONS,
    "what": (*DETECT, *DETECT, *OTHER_TASKS, "rtdetr detect"),
    "data": ("64 images", "hundreds, 128 px", "sparse", "one class", "few"),
    "twist": ("plain", "multi_scale", "close_mosaic", "batch 2", "accumulation", "resumed"),
    "precision": ("fp16", "bf16"),
}


@dataclass(frozen=True)
class Case:
    """One training: Ultralytics' arguments as `train`; `cut` ends it and `resume` interrupts it after so
    many epochs (0: never). `values` are the dimensions it stands for, `warm` asks for learned weights."""

    name: str
    part: str
    family: str
    task: str
    size: str
    data: str
    seed: int
    train: dict[str, Any]
    values: Mapping[str, str]
    cut: int = 0
    resume: int = 0
    warm: bool = False
    ours: dict[str, Any] = field(default_factory=dict)

    @property
    def timed(self) -> bool:
        """Whether the clock decides how long it trains, so that no two such trainings are alike."""
        return "time" in self.train


def every_case() -> list[Case]:
    """Return the whole table, names unique."""
    cases = [*_cpu(), *_gpu()]
    assert len({case.name for case in cases}) == len(cases)
    return cases


def sample() -> list[Case]:
    """Return twelve for the tests: each task, family and optimizer, most twists; seconds each."""
    table = (
        "yolov8 detect/auto/few/plain", "yolo11 detect/AdamW/few/cos_lr",
        "yolo26 detect/MuSGD/few/close_mosaic",
        "yolov8 segment/SGD/few/freeze", "yolo11 pose/Adam/few/resumed", "yolo26 obb/AdamW/few/multi_scale",
        "yolov8 classify/SGD/few/accumulation", "yolo26 semantic/Adam/few/batch 2",
        "rtdetr detect/AdamW/few/plain",
        "yolov8 detect/SGD/sparse/accumulation", "yolo26 segment/MuSGD/one class/plain",
        "yolo11 detect/AdamW/tiny objects/resumed",
    )  # fmt: skip
    cases = []
    for number, words in enumerate(table, 1):
        what, optimizer, data, twist = words.split("/")
        values = {"what": what, "optimizer": optimizer, "rate": ("unsaid", "three times")[number % 2],
                  "warm-up": "03"[number // 2 % 2], "data": data, "twist": twist}  # fmt: skip
        case = _drawn(CPU, number, values)
        epochs = {"epochs": 4, "freeze": 2} if twist == "freeze" else {"epochs": 4}
        halves = {"close_mosaic": 2} if twist == "close_mosaic" else {}
        train = {**case.train, **epochs, **halves}
        cases.append(
            replace(case, name=words, size="tiny", train=train, resume=2 if twist == "resumed" else 0)
        )
    return cases


def _cpu() -> list[Case]:
    drawn = covering(CPU_DIMENSIONS, CPU_SAMPLE, 15)
    cases = [_drawn(CPU, number, values) for number, values in enumerate(drawn, 1)]
    for number in range(8):
        optimizer = ("AdamW", "SGD", "Adam", "MuSGD")[number % 4]
        rate, data = ("default", "three times")[number // 4], ("usual", "sparse")[number % 2]
        values = {"what": "rtdetr detect", "optimizer": optimizer, "rate": rate, "warm-up": "03"[number % 2],
                  "data": data, "twist": "plain"}  # fmt: skip
        cases.append(_drawn(CPU, CPU_SAMPLE + 1 + number, values))
    return [*cases, *_measured_on_cpu()]


def _measured_on_cpu() -> list[Case]:
    """The guard once ended the first kind; a rollback of the others once threw good epochs away."""
    cases = []
    for seed in range(4):
        train = {"imgsz": 96, "epochs": 500, "optimizer": "auto", "nbs": 64, "batch": 16}
        cases.append(_measured(CPU, "young anchors", "96 px", seed, train, cut=25))
    for seed in range(3, 7):
        train = {"epochs": 10, "optimizer": "AdamW", "lr0": 0.01, "nbs": 64}
        cases.append(_measured(CPU, "AdamW 0.01", "usual", seed, train))
        demo = {"epochs": 20, "optimizer": "AdamW", "lr0": 0.01, "close_mosaic": 2, "warmup_epochs": 1,
                "mixup": 0.15, "nbs": 64}  # fmt: skip
        cases.append(_measured(CPU, "like the demo's first", "96 px", seed, demo))
    return cases


def _gpu() -> list[Case]:
    drawn = covering(GPU_DIMENSIONS, GPU_SAMPLE, 16)
    cases = [_drawn(GPU, number, values) for number, values in enumerate(drawn, 1)]
    models = (("yolov8", "n"), ("yolov8", "s"), ("yolo11", "n"), ("yolo26", "n"))
    for family, size in models:
        for precision, seed in (("fp16", 0), ("fp16", 1), ("fp16", 2), ("bf16", 0)):
            train = {"epochs": 300, "optimizer": "AdamW", "lr0": 0.01, "amp": _amp(precision)}
            name = f"young averages {family}{size} {precision}"
            cases.append(_measured(GPU, name, "64 images", seed, train, 27, family, size, precision))
    return cases


def _measured(
    part: str, name: str, data: str, seed: int, train: dict[str, Any], cut: int = 0, family: str = "yolov8",
    size: str = "n", precision: str = "fp32",
) -> Case:  # fmt: skip
    settings = {**BASE, **(ON_GPU if part == GPU else {"device": "cpu"}), **train, "seed": seed}
    values = {"what": f"{family} detect", "optimizer": train["optimizer"], "rate": "unsaid", "warm-up": "3",
              "data": data, "twist": "measured as wrong once", "precision": precision}  # fmt: skip
    return Case(
        f"{part} {name}, seed {seed}", part, family, "detect", size, data, seed, settings, values, cut
    )


def _drawn(part: str, number: int, values: Mapping[str, str]) -> Case:
    """Return the training that stands for one value of each dimension."""
    family, task = values["what"].split()
    optimizer, data, twist = values["optimizer"], values["data"], values["twist"]
    train = {**BASE, **(ON_GPU if part == GPU else {"device": "cpu"}), "optimizer": optimizer, "seed": number}
    train |= {"epochs": EPOCHS[data], "warmup_epochs": float(values["warm-up"])}
    if optimizer != "auto" and values["rate"] != "unsaid":
        train["lr0"] = RATES[optimizer] * (3 if values["rate"] == "three times" else 1)
    train |= {"amp": _amp(values["precision"])} if part == GPU else {}
    train |= TWISTS[twist]
    half = train["epochs"] // 2
    train |= {"close_mosaic": half if twist == "close_mosaic" else 0}
    size = "n" if part == GPU and family != "rtdetr" else "thin"
    return Case(
        f"{part} {number:03d}", part, family, task, size, data, number, train,
        {"precision": "fp32", **values},
        resume=half if twist == "resumed" else 0, warm=twist == "fine-tuning",
    )  # fmt: skip


def _amp(precision: str) -> bool | str:
    return True if precision == "fp16" else precision


def covering(dimensions: Mapping[str, Sequence[str]], count: int, seed: int) -> list[dict[str, str]]:
    """Return `count` combinations; each is the one of forty drawn that brings the rarest pairs together.

    A value that stands twice in its dimension is drawn twice as often.
    """
    dice = random.Random(seed)
    met: dict[tuple[tuple[str, str], ...], int] = {}
    chosen = []
    for _ in range(count):
        drawn = [{name: dice.choice(list(of)) for name, of in dimensions.items()} for _ in range(40)]
        best = max(drawn, key=lambda one: sum(1 / (1 + 4 * met.get(pair, 0)) for pair in pairs(one)))
        for pair in pairs(best):
            met[pair] = met.get(pair, 0) + 1
        chosen.append(best)
    return chosen


def pairs(values: Mapping[str, str]) -> list[tuple[tuple[str, str], ...]]:
    """Return every two values that come together."""
    return list(combinations(sorted(values.items()), 2))
