"""Before its first epoch a resume is held against the run's own files: it must be the same training.

Ultralytics does not always resume what it was asked to: from a checkpoint without an optimizer state it
begins a new training with default settings on the default data set, in the directory of the run (seen with
8.4.190 and a stripped checkpoint). Nothing of that may reach the weights.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from nantui.errors import UserError
from nantui.run.spec import read_args
from nantui.worker import ultralytics_api
from nantui.worker.session import Session
from nantui.worker.ultralytics_types import Trainer

RESUME = "resume"
SAME = ("task", "data")
"""What no resume changes unless a person asked for it."""


def refuse_another_training(trainer: Trainer, session: Session) -> None:
    """Raise UserError where the trainer is about to begin anew, or with another task or data set.

    Called once the trainer has its arguments and before it writes them: args.yaml still holds those of the
    attempt before.
    """
    if not trainer.resume:
        name = session.attempt.checkpoint or "the checkpoint"
        text = "Ultralytics would begin a new training from it; recover the run instead"
        raise UserError(f"{name} cannot be resumed as it is: {text}")
    before, asked = read_args(session.layout.args_yaml), session.attempt.asked
    for name in SAME:
        was, now = before.get(name), getattr(trainer.args, name, None)
        same = str(was) == str(now) or os.path.realpath(str(was)) == os.path.realpath(str(now))
        if was and name not in asked and not same:
            text = f"ask for it with --set {name}={now} if that is meant"
            raise UserError(f"{name} would become {now} where it was {was}; {text}")


def refuse_other_classes(trainer: Trainer, session: Session, checkpoint: Mapping[str, object]) -> None:
    """Raise UserError where the data set has another number of classes than the checkpoint."""
    ours = ultralytics_api.classes_of_checkpoint(checkpoint)
    theirs = (trainer.data or {}).get("nc")
    if ours is not None and theirs is not None and ours != theirs:
        path = session.layout.run / (session.attempt.checkpoint or "weights/last.pt")
        raise UserError(
            f"the data set has {theirs} classes, the checkpoint {ours}: a resume cannot change that; "
            f"begin a new run from its weights: nantui train model={path} data={trainer.args.data}"
        )
