"""One real training with the guide's own trouble, cached for the session; every test works on a copy."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from nantui.recovery import rollback
from nantui.run.binding import bind
from tests.shared import Shared
from tests.worker.runs import draw_data_set, tiny_model

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
    return furnished(tmp_path_factory.mktemp("recovery"))


def furnished(root: Path) -> Path:
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
def poisoned_original(shared: Shared) -> Path:
    return original(shared, "poisoned", poisoned=POISONED, ended=ENDED)


@pytest.fixture(scope="session")
def finished_original(shared: Shared) -> Path:
    return original(shared, "finished", epochs=3, save_period=-1)


def original(shared: Shared, name: str, **how: Any) -> Path:
    """Train once for all processes, each run in a room of its own: nobody else writes there."""
    room = shared.root / "recovery" / name
    shared.made(f"recovery/{name}", lambda: train(furnished(room), name, **how))
    return room / "runs" / name


def own_copy(run: Path, place: Path) -> Path:
    """Copy a run, and agree to what it would run there."""
    shutil.copytree(run, place)
    bind(place)
    return place


@pytest.fixture
def poisoned(poisoned_original: Path, tmp_path: Path) -> Path:
    """A run that went NaN in epoch 5 of 12 and was killed after epoch 7; epoch0…3.pt are clean."""
    return own_copy(poisoned_original, tmp_path / "poisoned")


@pytest.fixture
def healthy(poisoned_original: Path, tmp_path: Path) -> Path:
    """The same run as it was after epoch 4, before anything happened."""
    run = own_copy(poisoned_original, tmp_path / "healthy")
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
    return own_copy(finished_original, tmp_path / "finished")


@pytest.fixture
def rebase_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    """Rebase in this process, where torch is loaded already; one test takes the real way."""
    from nantui.worker.checkpoints.rebase import Request, rebase

    def here(request: Mapping[str, Any], python: str) -> dict[str, Any]:
        return {"ok": True, **rebase(Request(**request))}

    monkeypatch.setattr(rollback, "run_rebase", here)
    yield here
