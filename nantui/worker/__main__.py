"""The worker: one rank of one attempt. `python -m nantui.worker RUN NNN`.

Started by the supervisor, directly or under torchrun. It trains through Ultralytics' own front door with
a guarded trainer, and says in attempts/NNN.rankR.exit.json how it ended: torchrun's exit status does not.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from nantui.errors import UserError
from nantui.machine.patient_output import print_patiently
from nantui.paths import go_to_work
from nantui.run.attempts import FAILED, FINISHED
from nantui.run.spec import read_spec
from nantui.terminal_text import printable
from nantui.worker.incident import TrainingEnded
from nantui.worker.process_end import die_with_parent, last_words, leave
from nantui.worker.session import Session
from nantui.worker.signals import listening
from nantui.worker.torchrun_env import device_here

if TYPE_CHECKING:
    from nantui.worker.faults import Faults


def main(arguments: list[str]) -> int:
    """Run one rank; returns its exit code. Raises UserError for wrong arguments."""
    if len(arguments) != 2 or not arguments[1].isdigit():
        raise UserError("usage: python -m nantui.worker RUN NNN")
    die_with_parent()
    go_to_work()
    session = Session.open(Path(arguments[0]), int(arguments[1]))
    session.register()
    with listening(session, user_signal=signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN):
        return trained(session, train)


def trained(session: Session, train: Callable[[Session], None]) -> int:
    """Train, record how it ended, and return the exit code."""
    try:
        train(session)
    except TrainingEnded as ended:
        code = session.end(ended.outcome, ended=ended)
        if ended.alone:
            return code
    except UserError as error:
        print(f"nantui: {printable(error)}", file=sys.stderr)
        return session.end(FAILED, str(error))
    except KeyboardInterrupt:
        return session.end(FAILED, "interrupted")
    except BaseException as error:
        traceback.print_exc()
        return session.end(FAILED, last_words(error))
    else:
        code = session.end(FINISHED)
    _leave_together()
    return code


def train(session: Session) -> None:
    """Train as the attempt asks. Raises Ended when stopped or diverged, else whatever the training raises."""
    session.phase("importing")
    # Whose it is was looked at by the supervisor that started this process.
    path = session.layout.spec
    owner = path.stat().st_uid if path.exists() else os.getuid()
    spec = read_spec(path, trusted={owner}, agreed=True)
    if spec is not None and spec.kind == "exec":
        from nantui.worker.script.train_calls import become

        become(session, spec)
    from nantui.worker import ultralytics_api
    from nantui.worker.points.going_on import resume_word
    from nantui.worker.trainer import guarded

    attempt = session.attempt
    asked = device_here(attempt.train)
    faults = faults_of(session)
    if attempt.mode == "resume":
        model = ultralytics_api.load_model(str(_checkpoint(session)))
        # The rest is decided by the checkpoint's `train_args`, which the rebase wrote.
        arguments = {"resume": resume_word(model), **{k: v for k, v in asked.items() if k == "device"}}
    else:
        for path in (session.layout.last, session.layout.best, session.layout.results_csv):
            if path.exists():  # Ultralytics would delete it
                text = "a fresh start here would overwrite a run; resume it instead"
                raise UserError(f"{path} exists: {text}")
        arguments = dict(asked)
        model = ultralytics_api.load_model(str(arguments.pop("model", "")), arguments.pop("task", None))
    model.train(trainer=guarded(ultralytics_api.task_trainer(model), session, faults), **arguments)


def faults_of(session: Session) -> Faults | None:
    """Return the faults that a test or the demo asked for; production never imports them."""
    if not session.attempt.faults:
        return None
    from nantui.worker.faults import Faults

    return Faults(session.attempt.faults, session.attempt.attempt, session.rank)


def _checkpoint(session: Session) -> Path:
    from nantui.checkpoint.scan import refuse_unsound

    name = session.attempt.checkpoint or "weights/last.pt"
    path = session.layout.run / name
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint to resume from; choose another restore point")
    refuse_unsound(session.layout, path)
    return path


def _leave_together() -> None:
    """Wait for the other ranks: torchrun kills those that remain once one has left with an exit code."""
    import torch

    from nantui.worker import distributed

    if distributed.together():
        device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else None
        distributed.wait_for_all(device or torch.device("cpu"))


if __name__ == "__main__":
    print_patiently()
    try:
        status = main(sys.argv[1:])
    except UserError as error:
        print(f"nantui: {printable(error)}", file=sys.stderr)
        status = error.status
    leave(status)
