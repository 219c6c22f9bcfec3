"""Repeat epochs of a run under the guard, in a directory of its own, until the trouble happens again.

`python -m nantui.worker.replay REQUEST.json`: for runs that nantui did not watch. Starts from a clean
checkpoint; the worker's own guard ends it at the first bad step. Nothing is written into the run.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from pathlib import Path

from nantui.run.attempts import Attempt, write_attempt
from nantui.run.layout import RunLayout
from nantui.terminal_text import printable
from nantui.worker.__main__ import trained
from nantui.worker.incident import TrainingStopped
from nantui.worker.session import Session
from nantui.worker.ultralytics_types import Trainer

OURS = {"guard": "protect", "max_consecutive_skips": 0}
"""The first step that would be skipped ends the replay."""
LEFT_OUT = {"plots": False, "val": False, "save_period": -1}
"""What costs time and shows nothing here; all of it may be changed without touching the steps."""


def replay(checkpoint: str, place: str, until: int, train: dict[str, object]) -> int:
    """Repeat from `checkpoint` up to and with epoch `until` (from 1) in the new directory `place`.

    `train` are arguments that must differ from the run's, such as the device. Returns the worker's exit code:
    77 when it happened again, 70 when it did not. Raises ValueError or OSError where it cannot be resumed.
    """
    from nantui.worker.checkpoints.rebase import Request, rebase

    layout = RunLayout(Path(place).resolve())
    layout.weights.mkdir(parents=True)
    changed = {**LEFT_OUT, **train}
    rebase(Request(checkpoint, str(layout.last), str(layout.run), train=changed))
    attempt = Attempt(
        attempt=1, uuid=f"replay-{uuid.uuid4().hex}", created=time.time(), mode="resume",
        checkpoint="weights/last.pt", train=changed, ours=dict(OURS), python=sys.executable,
    )  # fmt: skip
    write_attempt(layout, attempt)
    session = Session(layout, attempt)
    session.register()
    return trained(session, lambda session: _repeat(session, until))


def _repeat(session: Session, until: int) -> None:
    from nantui.worker import ultralytics_api
    from nantui.worker.trainer import guarded

    def end(trainer: Trainer) -> None:
        if trainer.epoch + 1 >= until:
            raise TrainingStopped(f"repeated up to epoch {until} without trouble", None, False)

    model = ultralytics_api.load_model(str(session.layout.last))
    model.add_callback("on_train_epoch_end", end)
    model.train(trainer=guarded(ultralytics_api.task_trainer(model), session), resume=True)


def main(arguments: list[str]) -> int:
    """Read the request and replay; a refusal is one line on stderr and exit status 1."""
    request = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
    try:
        return replay(**{"train": {}, **request})
    except (ValueError, TypeError, OSError) as error:
        print(f"nantui: cannot replay: {printable(str(error).splitlines()[0])}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
