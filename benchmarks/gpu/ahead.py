"""A step queued ahead of its verdict leaves no trace when it is taken back; a good one is stock's."""

from __future__ import annotations

import copy
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.gpu.bench import Bench, asked, new_run

BAD = (2, 3)  # epoch, batch


@dataclass(frozen=True)
class Case:
    """One training: precision, optimizer, model, and `nbs` over the batch size as accumulated batches."""

    precision: str
    optimizer: str = "SGD"
    model: str = "yolov8n.yaml"
    accumulated: int = 1

    @property
    def name(self) -> str:
        more = f", {self.accumulated} batches a step" if self.accumulated > 1 else ""
        return f"{self.model.removesuffix('.yaml')} {self.precision} {self.optimizer}{more}"


AMP: dict[str, Any] = {"fp32": False, "bf16": "bf16", "fp16": True}
CASES = (
    *(Case(precision, optimizer) for precision in AMP for optimizer in ("SGD", "AdamW", "MuSGD")),
    *(Case(precision, accumulated=2) for precision in AMP),
    *(Case("fp16", model=model) for model in ("yolo11n.yaml", "yolo26n.yaml", "rtdetr-l.yaml")),
)
NOT_DETERMINISTIC = "rtdetr"  # its grid_sample has no deterministic kernel on CUDA: a figure, no verdict
TOGETHER = 5


def ahead(bench: Bench) -> None:
    """Precisions, optimizers, accumulation and models on one GPU, each in a process of its own."""
    data, cases = str(bench.data()), [case for case in CASES if bench.only in case.name]
    with ThreadPoolExecutor(TOGETHER) as pool:
        for case, found in zip(cases, pool.map(lambda case: _asked(data, case), cases), strict=True):
            _report(bench, case, found)


def _asked(data: str, case: Case) -> dict[str, Any] | str:
    """Return what a case found, or the end of what it printed instead."""
    return asked(["benchmarks.gpu.ahead", data, json.dumps(asdict(case))], "ahead")


def _report(bench: Bench, case: Case, found: dict[str, Any] | str) -> None:
    if isinstance(found, str):
        bench.found("ahead", case.name, found, False)
        return
    fp16 = case.precision == "fp16"
    fine = bool(found["ahead"]) != fp16 and not found["unlike_stock"]
    if case.accumulated == 1:
        fine = fine and found["skipped"] and not found["touched"] and bool(found["moved"])
    if fp16:  # GradScaler must have refused a step, or nothing is shown about it
        fine = fine and found["refused"] > 0
    held = None if NOT_DETERMINISTIC in case.model else fine
    bench.found("ahead", f"{case.name}: steps ahead, refused, left by the bad one, unlike stock",
                f"{found['ahead']} {found['refused']} {found['touched'][:3]} {len(found['unlike_stock'])}",
                held)  # fmt: skip


def check(data: str, case: Case) -> dict[str, Any]:
    """Train here: guarded with one NaN batch, and guarded against stock without one."""
    import torch

    bad = _train(data, case, True, BAD)
    before, after, later = (bad.states[BAD[0], BAD[1] + batches] for batches in range(3))
    torch.use_deterministic_algorithms(True, warn_only=True)
    ours, stock = _train(data, case, True, None), _train(data, case, False, None)
    last = max(stock.states)
    return {
        "ahead": sum(bad.ahead),
        "skipped": BAD in bad.skipped,
        "touched": _differing(before, after),
        "moved": _differing(after, later)[:3],
        "refused": ours.refused,
        "unlike_stock": _differing(ours.states[last], stock.states[last]),
    }


@dataclass
class Seen:
    """What a training showed: the state before each (epoch, batch), which steps were queued ahead of their
    verdict, which were skipped, and how many GradScaler refused."""

    states: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    ahead: list[bool] = field(default_factory=list)
    skipped: list[tuple[int, int]] = field(default_factory=list)
    refused: int = 0


def _train(data: str, case: Case, protect: bool, bad: tuple[int, int] | None) -> Seen:
    """Train two epochs, with one bad batch where that is asked for; returns what it showed."""
    from nantui.worker import ultralytics_api
    from nantui.worker.guard import step_guard
    from nantui.worker.guard.step_guard import StepGuard
    from nantui.worker.session import Session

    step_guard.PROMPT_S = 0.0  # at this size each verdict is there before a copy would be queued
    run = new_run({"guard": "protect" if protect else "off"})
    seen = Seen()
    take_ahead = StepGuard._take_ahead

    def counted(guard: StepGuard) -> bool:
        seen.ahead.append(take_ahead(guard))
        return seen.ahead[-1]

    model = ultralytics_api.load_model(case.model)
    trainer = _recording(ultralytics_api.task_trainer(model), Session.open(run, 1), seen, bad)
    with ultralytics_api.replaced(StepGuard, "_take_ahead", counted):
        model.train(trainer=trainer, data=data, save_dir=str(run), **_settings(case))
    return seen


def _settings(case: Case) -> dict[str, Any]:
    return {"imgsz": 128, "amp": AMP[case.precision], "batch": 16, "nbs": 16 * case.accumulated, "epochs": 2,
            "workers": 4, "device": 0, "optimizer": case.optimizer, "plots": False, "val": False,
            "save": False, "seed": 0}  # fmt: skip


def _recording(base: type, session: Any, seen: Seen, bad: tuple[int, int] | None) -> type:
    """Return a guarded trainer that notes what `seen` holds, and spoils one batch."""
    from nantui.worker.trainer import guarded

    class Recording(guarded(base, session)):
        def run_callbacks(self, event: str) -> None:
            super().run_callbacks(event)
            if event == "on_train_batch_start":
                seen.states[self._place()] = _state(self)
            elif event == "on_train_batch_end" and self.guard.skipped:
                seen.skipped.append(self._place())

        def optimizer_step(self) -> None:
            before = self.scaler.get_scale()
            super().optimizer_step()
            seen.refused += self.scaler.get_scale() < before

        def _place(self) -> tuple[int, int]:
            return self.session.progress.epoch, self.session.progress.step

        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            batch = super().preprocess_batch(batch)
            if bad == self._place():
                batch["img"][0, 0, 0, 0] = float("nan")
            return batch

    return Recording


def _state(trainer: Any) -> dict[str, Any]:
    every = {
        "model": trainer.model.state_dict(),
        "ema": trainer.ema.ema.state_dict(),
        "updates": {"": trainer.ema.updates},
        **{f"optimizer{i}": s for i, s in trainer.optimizer.state_dict()["state"].items()},
    }
    return {f"{part}/{name}": copy.deepcopy(v) for part, kept in every.items() for name, v in kept.items()}


def _differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    import torch

    missing = sorted(one.keys() ^ other.keys())
    unlike = [
        name
        for name in one.keys() & other.keys()
        if not (
            torch.equal(one[name], other[name]) if torch.is_tensor(one[name]) else one[name] == other[name]
        )
    ]
    return missing + unlike


if __name__ == "__main__":
    print(json.dumps(check(sys.argv[1], Case(**json.loads(sys.argv[2])))))
