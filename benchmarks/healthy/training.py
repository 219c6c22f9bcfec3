"""One training in this process: under the guard, with guard=off, or by plain Ultralytics.

A training is cut as a person would: a request to stop, agreed on at a step. The request is left in a callback
that waits until it was seen, so that it takes effect at the same step in every training.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.healthy.cases import Case
from benchmarks.healthy.data import data_set
from benchmarks.healthy.models import model_yaml

GUARDED, OFF, PLAIN = "guarded", "off", "plain"
SEEN_WITHIN_S = 30.0
WARM_EPOCHS = 15

Install = Callable[[Any], None]


class Cut(Exception):
    """A plain training was ended on purpose."""


@dataclass(frozen=True)
class Place:
    """Where data sets, models and learned weights are kept for all trainings, and this one's run."""

    shared: Path
    run: Path


def arguments_of(case: Case, shared: Path) -> dict[str, Any]:
    """Return Ultralytics' arguments for a case, its data and model made where they are not there yet."""
    data = data_set(shared / "data", case.data, case.task)
    model = model_yaml(shared / "models", case.family, case.size, case.task)
    warm = {"pretrained": str(learned(case, shared))} if case.warm else {}
    return {**case.train, "model": model, "data": str(data), **warm}


def learned(case: Case, shared: Path) -> Path:
    """Return weights of the case's model that have learned something, for fine-tuning."""
    path = shared / "learned" / f"{case.family}-{case.size}-{case.task}-{case.part}.pt"
    if not path.exists():
        run = shared / "learned" / f"{path.stem}-{os.getpid()}"
        train = {
            **case.train,
            "epochs": WARM_EPOCHS,
            "optimizer": "SGD",
            "lr0": 0.01,
            "seed": 0,
            "val": False,
        }
        for name in ("time", "freeze"):
            train.pop(name, None)
        data = data_set(shared / "data", "usual", case.task, seed=1)
        model = model_yaml(shared / "models", case.family, case.size, case.task)
        _plain({**train, "data": str(data)}, model, run)
        os.replace(run / "weights" / "last.pt", path)
    return path


def train(case: Case, place: Place, mode: str, install: Install | None = None) -> None:
    """Train a case in `place.run`; its output goes to a file beside it. Raises what plain Ultralytics raises.

    `install` is called with the trainer once it is set up (a way to break it).
    """
    arguments = arguments_of(case, place.shared)
    if mode == PLAIN:
        assert not case.resume, "only nantui stops and resumes inside an epoch"
        _plain(arguments, arguments.pop("model"), place.run, case.cut)
        return
    ours = {**case.ours, **({"guard": "off"} if mode == OFF else {})}
    stop = case.resume or case.cut
    _attempt(place.run, 1, arguments, ours, stop, install)
    if case.resume and (checkpoint := _left(place.run)):
        _attempt(place.run, 2, arguments, ours, 0, install, mode="resume", checkpoint=checkpoint)


def _plain(arguments: dict[str, Any], model: str, run: Path, cut: int = 0) -> None:
    from nantui.worker.ultralytics_api import load_model

    loaded = load_model(model)

    def end(trainer: Any) -> None:
        if cut and trainer.epoch == cut:
            raise Cut

    loaded.add_callback("on_train_epoch_start", end)
    with contextlib.suppress(Cut):
        loaded.train(**arguments, save_dir=str(run), exist_ok=True)


def _attempt(
    run: Path, number: int, arguments: dict[str, Any], ours: dict[str, Any], stop: int,
    install: Install | None, mode: str = "start", checkpoint: str | None = None,
) -> None:  # fmt: skip
    from nantui.run.attempts import Attempt, write_attempt
    from nantui.run.layout import RunLayout
    from nantui.worker import __main__ as worker
    from nantui.worker import ultralytics_api

    layout = RunLayout(run)
    identity = f"healthy-{number}"
    write_attempt(
        layout,
        Attempt(number, identity, time.time(), mode, checkpoint, arguments, ours, sys.executable),
    )
    load = ultralytics_api.load_model

    def loaded(*words: Any) -> Any:
        model = load(*words)
        if install:
            model.add_callback("on_pretrain_routine_end", install)
        if stop:
            model.add_callback("on_train_epoch_start", lambda trainer: _stop(trainer, layout, number, stop))
        return model

    with ultralytics_api.replaced(ultralytics_api, "load_model", loaded):
        worker.main([str(run), f"{number:03d}"])


def _stop(trainer: Any, layout: Any, number: int, after: int) -> None:
    from nantui.run.atomic_files import write_json

    if trainer.epoch == after:
        write_json(layout.stop_request(number), {"id": "healthy", "t": time.time(), "by": "healthy"})
        if not trainer.session.recorder.stop_requested.wait(SEEN_WITHIN_S):
            raise RuntimeError("the request to stop was not seen")


def _left(run: Path) -> str | None:
    """Return the checkpoint that the stopped first attempt named."""
    from nantui.run.attempts import read_exits
    from nantui.run.layout import RunLayout

    return next((one.checkpoint for one in read_exits(RunLayout(run), 1) if one.resumable), None)
