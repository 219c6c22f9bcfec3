"""A training that was stopped and resumed beside one that never was: the same, to the last bit.

The sample of these cases is in test_step_points.py; `python -m benchmarks.step_points` trains them all.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

EXACT = {"exact": True}
ALL = {"mosaic": 1.0, "mixup": 0.5}


@dataclass(frozen=True)
class Case:
    """One pair of trainings: stopped at `at` (epoch and batch, from 1), with `workers` in each loader."""

    name: str
    at: tuple[int, int]
    train: dict[str, Any] = field(default_factory=dict)
    ours: dict[str, Any] = field(default_factory=lambda: dict(EXACT))
    workers: int = 0
    ranks: int = 1


CASES = tuple(
    Case(f"{optimizer}-workers{workers}-{mixing}-ranks{ranks}", at, {"optimizer": optimizer, **train},
         workers=workers, ranks=ranks)
    for ranks in (1, 2)
    for optimizer, at in (("SGD", (2, 1)), ("AdamW", (1, 2)), ("MuSGD", (2, 2)))
    for workers in (0, 2)
    for mixing, train in (("mixed", ALL), ("plain", {"mosaic": 0.0}))
) + tuple(
    Case(f"{name}-ranks{ranks}", at, train, workers=workers, ranks=ranks)
    for ranks in (1, 2)
    for name, at, workers, train in (
        ("accumulated", (2, 1), 2, {"nbs": 24, "warmup_epochs": 1.5, "optimizer": "MuSGD", **ALL}),
        ("accumulated-over-epochs", (1, 2), 0, {"nbs": 40, "optimizer": "AdamW", "mosaic": 1.0}),
        ("mosaic-closed-later", (2, 1), 2, {"close_mosaic": 1, "mosaic": 1.0}),
        ("mosaic-closed-before", (3, 1), 2, {"close_mosaic": 1, "mosaic": 1.0}),
        ("last-batch-of-an-epoch", (2, 4), 0, {"mosaic": 1.0}),
        ("sizes", (1, 1), 0, {"multi_scale": 0.5, "warmup_epochs": 2.0, "cos_lr": True, **ALL}),
    )
)  # fmt: skip


@contextlib.contextmanager
def spied(end: Path, stop_at: list[int] | None = None, workers: int = 0) -> Iterator[None]:
    """Keep each training's end in `end`, stop it where asked, and give its loaders workers.

    On the CPU Ultralytics leaves loaders without (engine/trainer.py).
    """
    import torch
    from ultralytics.models.yolo.detect import DetectionTrainer

    from nantui.worker import ultralytics_api
    from nantui.worker.trainer import GuardedTrainer

    trainer: Any = DetectionTrainer
    final_eval, loaded, loader = (
        GuardedTrainer.final_eval, GuardedTrainer.preprocess_batch, trainer.get_dataloader
    )  # fmt: skip

    def with_workers(self: Any, *args: Any, **options: Any) -> Any:
        self.args.workers = workers
        return loader(self, *args, **options)

    def stopped(self: Any, batch: Any) -> Any:
        progress = self.session.progress
        if stop_at and [progress.epoch, progress.step] == list(stop_at) and self.session.first:
            self.session.recorder.stop_requested.set()
        return loaded(self, batch)

    def kept(self: Any) -> None:
        model = ultralytics_api.unwrapped(self.model)
        state = {"weights": model.state_dict(), "optimizer": self.optimizer.state_dict()}
        if self.session.first:  # the other ranks' averages are not used for anything
            state |= {"ema": self.ema.ema.state_dict(), "updates": self.ema.updates}
        torch.save(copy.deepcopy(state), end.with_suffix(f".rank{self.session.rank}"))
        final_eval(self)

    with contextlib.ExitStack() as stack:
        for owner, name, value in (
            (GuardedTrainer, "final_eval", kept),
            (GuardedTrainer, "preprocess_batch", stopped),
            (trainer, "get_dataloader", with_workers),
        ):
            stack.enter_context(ultralytics_api.replaced(owner, name, value))
        yield


def requests_of(case: Case, place: Path, common: dict[str, Any]) -> list[dict[str, Any]]:
    """Write what the three trainings of a case are asked for; returns them for `tests.worker.two_ranks`."""
    from tests.worker.runs import write_request

    train = {**common, "close_mosaic": 0, **case.train}
    fields: dict[str, Any] = {"ours": case.ours, "devices": case.ranks}
    resume = {"mode": "resume", "checkpoint": "weights/nantui_stop.pt"}
    write_request(place / "whole", 1, train, **fields)
    write_request(place / "cut", 1, train, **fields)
    write_request(place / "cut", 2, train, **fields, **resume)
    spy = {"workers": case.workers}
    return [
        {"run": str(place / "whole"), "number": 1, "spy": {"end": str(place / "whole.end"), **spy}},
        {"run": str(place / "cut"), "number": 1,
         "spy": {"end": str(place / "stopped.end"), "stop_at": list(case.at), **spy}},
        {"run": str(place / "cut"), "number": 2, "spy": {"end": str(place / "cut.end"), **spy}},
    ]  # fmt: skip


def carry_out(requests: list[dict[str, Any]]) -> None:
    """Run the attempts one after another, in this process."""
    from nantui.worker import __main__ as worker

    for request in requests:
        spy = request["spy"]
        with spied(Path(spy["end"]), spy.get("stop_at"), spy["workers"]):
            worker.main([request["run"], f"{request['number']:03d}"])


def unequal(case: Case, place: Path) -> list[str]:
    """Return in which respects the resumed training is not the one that was never stopped."""
    import torch

    found: list[str] = []
    for rank in range(case.ranks):
        ends = [place / f"{name}.rank{rank}" for name in ("whole", "cut")]
        if missing := [end.name for end in ends if not end.exists()]:
            return [f"did not get to its end: {', '.join(missing)}"]
        one, other = (torch.load(end, weights_only=False) for end in ends)
        found += [f"rank {rank}: {difference}" for difference in differences(one, other)]
    rows = [_rows(place / name / "results.csv") for name in ("whole", "cut")]
    found += [f"results.csv: {one} and {other}" for one, other in zip(*rows, strict=True) if one != other]
    return found


def _rows(path: Path) -> list[list[str]]:
    """Return the cells without `time`, which is that of the clock."""
    return [[*line.split(",")[:1], *line.split(",")[2:]] for line in path.read_text().splitlines()]


def differences(one: Any, other: Any, name: str = "") -> list[str]:
    """Return in which places two trees of tensors differ."""
    import torch

    if isinstance(one, torch.Tensor):
        return [] if torch.equal(one, other) else [name]
    if isinstance(one, dict):
        names = {*one, *other} - {"fused"}  # None or not there: Ultralytics writes it when it resumes
        pairs = [(one.get(key), other.get(key), f"{name}.{key}") for key in sorted(names, key=str)]
    elif isinstance(one, list):
        pairs = [(a, b, f"{name}[{at}]") for at, (a, b) in enumerate(zip(one, other, strict=True))]
    else:
        return [] if one == other else [f"{name}: {one} and {other}"]
    return [difference for pair in pairs for difference in differences(*pair)]
