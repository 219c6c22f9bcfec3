"""Repeat epochs of a run under the guard, in a directory of its own, until the trouble happens again.

`python -m nantui.worker.replay REQUEST.json`: for runs that nantui did not watch. Starts from a clean
checkpoint and trains as the run did, through the worker's own guard, which ends it at the first bad step
with an autopsy. Nothing is written into the run. What happened is in the directory's `nantui/attempts`.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from nantui.run.attempts import FAILED, FINISHED, Attempt, write_attempt
from nantui.run.layout import RunLayout
from nantui.terminal_text import printable
from nantui.worker.incident import TrainingEnded, TrainingStopped
from nantui.worker.session import Session
from nantui.worker.ultralytics_types import Trainer

OURS = {"guard": "protect", "max_consecutive_skips": 0}
"""The first step that would be skipped ends the replay."""
LEFT_OUT = {"plots": False, "val": False, "save_period": -1}
"""What costs time and shows nothing here; all of it may be changed without touching the steps."""


@dataclass(frozen=True)
class Request:
    """Repeat from `checkpoint` up to and with epoch `until` (from 1) in the new directory `place`.

    `train` are arguments that must differ from the run's, such as the device.
    """

    checkpoint: str
    place: str
    until: int
    train: dict[str, object] = field(default_factory=dict)


def replay(request: Request) -> int:
    """Repeat the epochs; returns the worker's exit code: 77 when it happened again, 70 when it did not.

    Raises what the rebase raises for a checkpoint that cannot be resumed (ValueError, OSError).
    """
    from nantui.worker.checkpoints.rebase import Request as Rebase
    from nantui.worker.checkpoints.rebase import rebase

    layout = RunLayout(Path(request.place).resolve())
    layout.weights.mkdir(parents=True)
    changed = {**LEFT_OUT, **request.train}
    rebase(Rebase(request.checkpoint, str(layout.last), str(layout.run), train=changed))
    attempt = Attempt(
        attempt=1, uuid=f"replay-{uuid.uuid4().hex}", created=time.time(), mode="resume",
        checkpoint="weights/last.pt", train=changed, ours=dict(OURS), python=sys.executable,
    )  # fmt: skip
    write_attempt(layout, attempt)
    return _train(Session(layout, attempt), request.until)


def _train(session: Session, until: int) -> int:
    """Train under the guard; whatever ends it is recorded as a worker records it."""
    from nantui.worker import ultralytics_api
    from nantui.worker.trainer import guarded

    session.register()
    try:
        model = ultralytics_api.load_model(str(session.layout.last))
        model.add_callback("on_train_epoch_end", lambda trainer: _end_after(trainer, until))
        model.train(trainer=guarded(ultralytics_api.task_trainer(model), session), resume=True)
    except TrainingEnded as ended:
        return session.end(ended.outcome, ended=ended)
    except Exception as error:
        return session.end(FAILED, f"{type(error).__name__}: {error}".splitlines()[0])
    return session.end(FINISHED)


def _end_after(trainer: Trainer, until: int) -> None:
    """Raise Stopped once the last epoch that is to be repeated has taken its steps."""
    if trainer.epoch + 1 >= until:
        raise TrainingStopped(f"repeated up to epoch {until} without trouble", None, False)


def main(arguments: list[str]) -> int:
    """Read the request and replay; a refusal is one line on stderr and exit status 1."""
    request = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    try:
        return replay(Request(**request))
    except (ValueError, TypeError, OSError) as error:
        print(f"nantui: cannot replay: {printable(str(error).splitlines()[0])}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
