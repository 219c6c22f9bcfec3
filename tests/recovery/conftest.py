"""One real training with the guide's own trouble, cached for the session; every test works on a copy."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from nantui.recovery import stage
from tests.training.runs import draw_data_set, tiny_model
from tests.warm import WarmPython

EPOCHS, POISONED, ENDED = 12, 5, 7
"""Epochs asked for; the one, from 1, with NaN in the BatchNorm statistics; the last that was saved."""

SETTINGS: dict[str, Any] = {
    "imgsz": 64, "batch": 8, "nbs": 8, "epochs": EPOCHS, "save_period": 1, "optimizer": "AdamW", "lr0": 0.01,
    "warmup_epochs": 0, "mixup": 0.15, "close_mosaic": 2, "workers": 0, "device": "cpu", "plots": False,
    "seed": 0, "patience": 50, "verbose": False,
}  # fmt: skip


class Killed(Exception):
    """Ends a training as a kill would: nothing is stripped or finished."""


@pytest.fixture(scope="session")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a data set, a tiny model and nothing else."""
    root = tmp_path_factory.mktemp("recovery")
    draw_data_set(root / "data")
    tiny_model(root)
    return root


def train(room: Path, name: str, poisoned: int = 0, ended: int = 0, **settings: Any) -> Path:
    """Train with stock Ultralytics here; poison BatchNorm in one epoch, be killed after another."""
    import torch
    from ultralytics import YOLO

    torch.set_num_threads(1)
    model = YOLO(str(room / "tiny.yaml"))

    def poison(trainer: Any) -> None:
        if trainer.epoch + 1 == poisoned:
            for module in trainer.model.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.running_mean.fill_(float("nan"))

    def kill(trainer: Any) -> None:
        if trainer.epoch + 1 == ended:
            raise Killed

    model.add_callback("on_train_epoch_start", poison)
    model.add_callback("on_model_save", kill)
    place = {"data": str(room / "data/data.yaml"), "project": str(room / "runs"), "name": name}
    with contextlib.suppress(Killed):
        model.train(**{**SETTINGS, **settings, **place})
    return room / "runs" / name


@pytest.fixture(scope="session")
def warm_python() -> Iterator[str]:
    """An interpreter whose processes have torch imported from the start."""
    place = Path(tempfile.mkdtemp(prefix="nantui-"))  # a socket's path must be short
    warm = WarmPython(place)
    yield str(warm.path)
    warm.close()
    shutil.rmtree(place)


@pytest.fixture(scope="session")
def poisoned_original(room: Path) -> Path:
    return train(room, "poisoned", POISONED, ENDED)


@pytest.fixture(scope="session")
def finished_original(room: Path) -> Path:
    return train(room, "finished", epochs=3, save_period=-1)


@pytest.fixture
def poisoned(poisoned_original: Path, tmp_path: Path) -> Path:
    """A run that went NaN in epoch 5 of 12 and was killed after epoch 7; epoch0…3.pt are clean."""
    return Path(shutil.copytree(poisoned_original, tmp_path / "poisoned"))


@pytest.fixture
def healthy(poisoned_original: Path, tmp_path: Path) -> Path:
    """The same run as it was after epoch 4, before anything happened."""
    run = Path(shutil.copytree(poisoned_original, tmp_path / "healthy"))
    for epoch in range(4, ENDED):
        (run / f"weights/epoch{epoch}.pt").unlink()
    shutil.copy2(run / "weights/epoch3.pt", run / "weights/last.pt")
    rows = (run / "results.csv").read_text().splitlines(keepends=True)
    (run / "results.csv").write_text("".join(rows[:5]))
    (run / "weights/best.pt").unlink()
    return run


@pytest.fixture
def finished(finished_original: Path, tmp_path: Path) -> Path:
    """A run of 3 epochs that ended as it should: last.pt and best.pt are stripped, there is no epochN.pt."""
    return Path(shutil.copytree(finished_original, tmp_path / "finished"))


@pytest.fixture
def rebase_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Rebase in this process, where torch is loaded already; one test takes the real way."""
    from nantui.training.rebase import Request, rebase

    def here(request: Mapping[str, Any], python: str) -> dict[str, Any]:
        return {"ok": True, **rebase(Request(**request))}

    monkeypatch.setattr(stage, "run_rebase", here)
    yield here
