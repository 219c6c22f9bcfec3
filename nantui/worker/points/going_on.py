"""Into the middle of an epoch: a training goes on at the batch after a step point.

Ultralytics' loop counts its batches by `enumerate` over the train loader, and forgets at an epoch's beginning
when the last optimizer step was and what the means are (engine/trainer.py, `_do_train`). So while the resumed
epoch lasts, `enumerate` in that module counts from the batch after the point, of which the loader yields only
the rest; the means are put back in the first batch; and `accumulate` is out of reach until the step is due.
"""

from __future__ import annotations

import builtins
import contextlib
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from nantui.errors import UserError
from nantui.run.atomic_files import write_atomic
from nantui.run.documents import JsonObject
from nantui.run.points import PART, differences
from nantui.run.results import trimmed
from nantui.terminal_text import printable
from nantui.worker import ultralytics_api
from nantui.worker.points import training_state
from nantui.worker.points.loader_order import Begin, RecordedOrder
from nantui.worker.session import Session
from nantui.worker.torchrun_env import rank

MUST_BE_THE_SAME = ("world_size", "model", "data", "classes")
"""Else a point is refused. With other batches the epoch begins again, from the point's weights."""
NEVER = 2**62


class GoingOn:
    """A trainer that was built for a resume, and the step point in its checkpoint."""

    def __init__(self, trainer: Any, checkpoint: JsonObject) -> None:
        """Raises UserError where the point is of another training."""
        part = checkpoint[PART]
        here = training_state.same_training(trainer)
        differ = differences(part["training"], {name: here[name] for name in MUST_BE_THE_SAME})
        if differ:
            text = f"this step point is of another training ({'; '.join(differ)})"
            raise UserError(f"{text}; choose another restore point")
        self.trainer, self.part = trainer, part
        self.mine = part["ranks"][rank()]
        self.other_batches = differences(part["training"], here)
        self.epoch, self.batch = part["epoch"] - 1, 0 if self.other_batches else part["batch"]
        self._since_step: int | None = None if self.other_batches else part["since_step"]
        self._accumulate: int | None = None
        self._loader: object = None
        self._begun = bool(self.other_batches)

    @property
    def begin(self) -> Begin | None:
        """Where the recorded order is taken up."""
        return None if self.other_batches else Begin(self.epoch, self.batch, self.mine["order"])

    @property
    def here(self) -> bool:
        """Whether the resumed epoch is the present one, and its loader the one that began it."""
        trainer = self.trainer
        return self._loader is trainer.train_loader and trainer.epoch == self.epoch

    def epoch_begins(self) -> int:
        """Return after how many of its batches the epoch begins."""
        if self._loader is None and not self.other_batches:
            self._loader = self.trainer.train_loader
            self._need_criterion()
        elif not self.here or self._begun:
            again = self.trainer.epoch == self.epoch  # with smaller batches, as memory ran out
            self._loader = self
            self._accumulate = None
            self._since_step = None if again else self._since_step
        return self.batch if self.here else 0

    def _need_criterion(self) -> None:
        """The loop asks the model for its criterion at the epoch's end; a first batch would make it."""
        model: Any = ultralytics_api.unwrapped(self.trainer.model)
        if self.batch == self.part["training"]["batches"] and getattr(model, "criterion", None) is None:
            model.criterion = model.init_criterion()

    def batch_begins(self) -> None:
        """Put back in the first batch what the loop has cleared before it."""
        if self._begun:
            return
        self._begun = True
        trainer, part = self.trainer, self.part
        trainer.set_means(part["means"])
        training_state.restore_gradients(ultralytics_api.unwrapped(trainer.model), part["grads"])
        trainer.guard.void = part["void"]

    def epoch_ends(self) -> None:
        """Where the point was the epoch's last batch, put here what the batches would have left."""
        if self._begun or not self.here:
            return
        trainer, part = self.trainer, self.part
        trainer.loss_names = tuple(part["loss_names"])
        trainer.metrics = dict(part["metrics"])
        trainer.loss = torch.tensor(part["loss"], device=trainer.device)
        trainer.loss_items = training_state.on_device(part["means"]["tloss"], trainer.device)
        self.batch_begins()

    def batch_loaded(self) -> None:
        """Keep the loop from stepping before a step is due: it takes the last one to be before the epoch.

        To be called once the warm-up has set `accumulate`.
        """
        if self._since_step is None:
            return
        self._since_step += 1
        if self._since_step < self.trainer.accumulate:
            self._accumulate, self.trainer.accumulate = self.trainer.accumulate, NEVER

    def batch_ended(self) -> None:
        """Undo `batch_loaded`; once there was a step the loop knows by itself."""
        if self._accumulate is None:
            self._since_step = None
        else:
            self.trainer.accumulate, self._accumulate = self._accumulate, None

    def batches(self, loader: Any) -> Iterator[tuple[int, object]]:
        """Yield the rest of the epoch, numbered as in the whole."""
        if isinstance(order := getattr(loader, "batch_sampler", None), RecordedOrder):
            order.take_up(loader)
        training_state.restore_random(self.mine["random"], self.trainer.device)
        yield from zip(range(self.batch, len(loader)), loader, strict=False)

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """While this lasts, the loop counts the resumed epoch's batches from the one after the point."""
        module: Any = sys.modules[ultralytics_api.base_trainer().__module__]
        bar = module.TQDM

        def from_there(items: Iterable[object], start: int = 0) -> Iterator[tuple[int, object]]:
            mine = items is self.trainer.train_loader and self.here
            return self.batches(items) if mine else builtins.enumerate(items, start)

        def shown_from_there(*args: Any, **options: Any) -> Any:
            return bar(*args, **({"initial": self.batch} if self.here else {}), **options)

        module.enumerate = from_there
        try:
            with ultralytics_api.replaced(module, "TQDM", shown_from_there):
                yield
        finally:
            del module.enumerate


def point_in(checkpoint: object) -> bool:
    """Tell whether a loaded checkpoint holds a step point."""
    return isinstance(checkpoint, dict) and isinstance(checkpoint.get(PART), dict)


def resume_word(model: Any) -> bool | str:
    """Return what `model.train(resume=…)` takes to resume the checkpoint that `model` was loaded from.

    `True` begins a new training where no epoch is done (engine/model.py, `train`); a path does not.
    """
    inside_the_first = point_in(model.ckpt) and model.ckpt["epoch"] < 0
    return str(model.ckpt_path) if inside_the_first else True


def drop_rows(session: Session, done: int, kept_as: str) -> bool:
    """Take the rows of epochs after `done` out of results.csv, and a torn last line.

    Returns whether there were any; the file as it was is kept in backups/. Raises OSError.
    """
    path = session.layout.results_csv
    if not path.is_file():
        return False
    before = path.read_text(encoding="utf-8", errors="surrogateescape")
    after = trimmed(before, done)
    if after != before:
        kept = session.layout.backups / f"attempt-{session.attempt.attempt:03d}-{kept_as}"
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(kept, before.encode("utf-8", "surrogateescape"))
        write_atomic(path, after.encode("utf-8", "surrogateescape"))
    return after != before


def go_on(trainer: Any, checkpoint: JsonObject, stock_resume: Any) -> GoingOn:
    """Resume a trainer from a step point. Raises UserError where it is of another training.

    Ultralytics' own resume has its part where an epoch is done; it refuses the first one.
    """
    going_on = GoingOn(trainer, checkpoint)
    if going_on.epoch > 0:
        stock_resume(checkpoint)
    training_state.restore(trainer, checkpoint)
    trainer.start_epoch = going_on.epoch
    session, place = trainer.session, {"epoch": going_on.epoch + 1, "step": going_on.batch}
    text = f"going on after batch {going_on.batch} of epoch {going_on.epoch + 1}"
    if going_on.other_batches:
        text = f"going on from the point's weights at the beginning of epoch {going_on.epoch + 1}: "
        text += "; ".join(going_on.other_batches)
    if session.first:
        print(f"nantui: {printable(text)}", flush=True)
        session.recorder.event("continued", **place, path=session.attempt.checkpoint or "", text=text)
    return going_on
