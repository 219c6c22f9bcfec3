"""The guard in users' hands: under their own script, with their own trainer, callbacks and data set.

`patch` changes three methods of Ultralytics' `BaseTrainer`, so that a trainer becomes a guarded one at
the moment it begins to train, whatever class it is. `nantui.attach(model)` is the same for one line in
a script; `nantui exec` reaches an unchanged script through the environment (training/hook).
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nantui.run.attempts import FAILED, FINISHED, Attempt, write_attempt
from nantui.run.files import write_json
from nantui.run.layout import RunLayout
from nantui.training.ends import Ended
from nantui.training.session import Session

HOOK, RUN, NUMBER, RESUME, OURS = (
    f"NANTUI_{name}" for name in ("HOOK", "RUN", "NUMBER", "RESUME", "ATTACHED")
)
HOOK_FOLDER = Path(__file__).parent / "hook"
_patched: set[type] = set()
_calls: list[dict[str, Any]] = []


def attach(model: Any, **ours: Any) -> Any:
    """Guard the trainings of an Ultralytics model from now on; `ours` are nantui's settings. Returns it.

    The run directory stays where the script puts it; `nantui RUN` shows it from its first epoch on. Raises
    UserError for a wrong setting.
    """
    from nantui.training import touchpoints
    from nantui.training.options import read_options

    read_options(ours)
    os.environ.update({HOOK: "1", OURS: json.dumps(ours)})
    python_path = [str(HOOK_FOLDER), str(HOOK_FOLDER.parents[2]), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, dict.fromkeys(python_path)))
    patch(touchpoints.base_trainer())
    return model


def patch(base: type) -> None:
    """Let every trainer of class `base` or below begin its training guarded. Done once."""
    if base in _patched:
        return
    _patched.add(base)
    target: Any = base
    check_resume, train, do_train = target.check_resume, target.train, target._do_train

    def pinned(trainer: Any, overrides: Any) -> None:
        check_resume(trainer, overrides)
        _pin(trainer)

    def sparing(trainer: Any, *args: Any, **options: Any) -> Any:
        with _sparing_our_folder():
            return train(trainer, *args, **options)

    def guarded_training(trainer: Any, *stock: int) -> None:
        if getattr(trainer, "session", None) is None:
            _train_guarded(trainer, *stock)
        else:
            do_train(trainer, *stock)

    target.check_resume, target.train, target._do_train = pinned, sparing, guarded_training
    if os.environ.get(RESUME):
        _redirect_to_resume()


def _pin(trainer: Any) -> None:
    """The first training of an exec run belongs into the run directory; later ones where the script says."""
    run = os.environ.get(RUN)
    if run and not _calls:
        trainer.args.save_dir = run
    _calls.append({"index": len(_calls) + 1, "pinned": bool(run) and not _calls, "finished": False})
    trainer.nantui_call = _calls[-1]


def _train_guarded(trainer: Any, *stock: int) -> None:
    """Make the trainer a guarded one, train, and record how it ended. Raises what the training raises."""
    from nantui.training.trainer import guarded

    session = _session(trainer)
    session.register()
    faults = None
    if session.attempt.faults:
        from nantui.training.faults import Faults

        faults = Faults(session.attempt.faults, session.attempt.attempt, session.rank)
    trainer.__class__ = guarded(type(trainer), session, faults)
    _note_calls(session)
    try:
        trainer._do_train(*stock)
    except Ended as ended:
        session.end(ended.outcome, ended=ended)
        _leave(trainer)
        raise
    except BaseException as error:
        session.end(FAILED, f"{type(error).__name__}: {error}".splitlines()[0])
        raise
    trainer.nantui_call["finished"] = True
    _note_calls(session)
    session.end(FINISHED)


def _leave(trainer: Any) -> None:
    from nantui.training import ranks

    ranks.wait_for_all(trainer.device)


def _session(trainer: Any) -> Session:
    """Return the exec run's session, or a new one in the directory that the script chose."""
    call = getattr(trainer, "nantui_call", {"pinned": False})
    if call["pinned"]:
        return Session.open(Path(os.environ[RUN]), int(os.environ[NUMBER]))
    layout = RunLayout(Path(trainer.save_dir).resolve())
    ours = json.loads(os.environ.get(OURS, "{}"))
    number = (layout.attempt_numbers() or [0])[-1] + 1
    mode = "resume" if trainer.resume else "start"
    attempt = Attempt(
        number, uuid.uuid4().hex, time.time(), mode, None, _plain(vars(trainer.args)), ours, sys.executable
    )
    if int(os.environ.get("RANK", "0")) == 0:
        write_attempt(layout, attempt)
    return Session(layout, attempt)


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if isinstance(v, (str, int, float, bool, list, type(None)))}


def _note_calls(session: Session) -> None:
    """Keep which `train()` of the script this is, so that a resume knows where it was interrupted."""
    if session.first:
        write_json(session.attempt_file("calls.json"), {"calls": _calls})


@contextlib.contextmanager
def _sparing_our_folder() -> Iterator[None]:
    """Ultralytics' DDP spawn removes the run directory on a fresh start (utils/dist.py): keep `nantui/`."""
    import shutil

    from ultralytics.utils import dist

    from nantui.training.touchpoints import replaced

    def rmtree(directory: Any, *args: Any, **options: Any) -> None:
        for entry in Path(directory).iterdir():
            if entry.name == "nantui":
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, *args, **options)
            else:
                entry.unlink()

    stand_in = SimpleNamespace(**{**vars(shutil), "rmtree": rmtree})
    with replaced(dist, "shutil", stand_in):
        yield


def _redirect_to_resume() -> None:
    """Let the script's first `train()` resume the run's checkpoint; its own settings lose.

    Trainer class, callbacks, data set class and augmentations stay the script's: the first two are
    arguments that a resume keeps, the others come with them.
    """
    from ultralytics.engine.model import Model

    train = Model.train
    waiting = [os.environ[RESUME]]

    def resumed(model: Any, trainer: Any = None, **options: Any) -> Any:
        if not waiting:
            return train(model, trainer=trainer, **options)
        checkpoint = waiting.pop()
        model._load(checkpoint)
        kept = {name: options[name] for name in ("device", "augmentations") if name in options}
        return train(model, trainer=trainer, resume=True, **kept)

    Model.train = resumed
