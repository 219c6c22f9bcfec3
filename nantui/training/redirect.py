"""`model.train()` of a supervised script: begin, resume the run's checkpoint, or answer from a finished run.

A script that is run again comes past the calls that it has finished already. They are not trained again: they
answer as Ultralytics itself answers when ranks of its own have trained, from the checkpoint they left.
"""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nantui.run.layout import RunLayout
from nantui.training import calls
from nantui.training.attach import of_the_script
from nantui.training.calls import BEFORE, Call
from nantui.training.own_run import refuse


def redirect() -> None:
    """Change `Model.train` for this process."""
    from ultralytics.engine.model import Model

    train = Model.train

    def redirected(model: Any, /, trainer: Any = None, **options: Any) -> Any:
        if isinstance(options.get("data"), (list, tuple)):
            _refuse_half_a_sweep()
            return train(model, trainer=trainer, **options)
        call = calls.upcoming()
        if call.role == BEFORE:
            return _answer(model, calls.take())
        if call.checkpoint is None:
            return train(model, trainer=trainer, **options)
        model._load(call.checkpoint)
        return train(model, trainer=trainer, resume=True, **of_the_script(options))

    Model.train = redirected


def _refuse_half_a_sweep() -> None:
    """Each of several data sets is a call of its own, begun in a new directory (Ultralytics' MultiTrainer in
    engine/trainer.py): the first can be resumed there, a later one would miss those before it.
    """
    if calls.number_of_own() > 1:
        refuse("train() was called with several data sets: such a sweep cannot be resumed in the middle")


def _answer(model: Any, call: Call) -> Any:
    """Leave the model as `Model.train` does after its ranks have trained, and return the kept metrics."""
    layout = RunLayout(Path(calls.directory_of(call.index) or "."))
    checkpoint = layout.best if layout.best.is_file() else layout.last
    if not checkpoint.is_file():
        refuse(f"train() number {call.index} had finished in {layout.run}, but its weights are gone")
    print(f"nantui: train() number {call.index} has finished before; going on with {checkpoint}", flush=True)
    model._load(str(checkpoint))
    model.metrics = (model.ckpt or {}).get("train_metrics")
    model.trainer = SimpleNamespace(
        save_dir=layout.run, wdir=layout.weights, best=layout.best, last=layout.last, metrics=model.metrics
    )
    return model.metrics
