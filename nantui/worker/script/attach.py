"""The guard in users' hands: under their own script, with their own trainer, callbacks and data set.

`patch` changes three methods of Ultralytics' `BaseTrainer`, so that a trainer becomes a guarded one at
the moment it begins to train, whatever class it is. `nantui.attach(model)` is the same for one line in
a script; `nantui exec` reaches an unchanged script through the environment (worker/script/hook).

A `model.train()` of a supervised script begins, resumes the run's checkpoint, or answers from a finished run.
For a script that is run again comes past the calls that it has finished already. They are not trained again:
they answer as Ultralytics itself answers when ranks of its own have trained, from the checkpoint they left.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from nantui.run.attempts import FAILED, FINISHED
from nantui.run.layout import RunLayout
from nantui.terminal_text import printable
from nantui.worker.__main__ import faults_of
from nantui.worker.incident import TrainingEnded
from nantui.worker.process_end import last_words
from nantui.worker.script import train_calls
from nantui.worker.script.script_run import OURS, ScriptTrainer, lead_to, refuse, session_of, spawning
from nantui.worker.script.train_calls import BEFORE, HERE, HOOK, HOOK_FOLDER, Call
from nantui.worker.signals import listening

OF_THE_SCRIPT = ("device", "augmentations")
"""What a resumed call still takes from the script, unless a recovery has decided it."""
NEVER_DECIDED = frozenset(("model", "data", "task", "mode", "resume", "project", "name", "save_dir"))
_patched: set[type] = set()
Guarded = TypeVar("Guarded")


def attach(model: Guarded, **ours: object) -> Guarded:
    """Guard the trainings of an Ultralytics model from now on; `ours` are nantui's settings. Returns it.

    The run directory stays where the script puts it; `nantui RUN` shows it from its first epoch on. Raises
    UserError for a wrong setting.
    """
    from nantui.worker import ultralytics_api
    from nantui.worker.options import read_options

    read_options(ours)
    os.environ.update({HOOK: "1", OURS: json.dumps(ours)})
    python_path = [str(HOOK_FOLDER), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, dict.fromkeys(python_path)))
    patch(ultralytics_api.base_trainer())
    return model


def patch(base: type) -> None:
    """Let every trainer of class `base` or below begin its training guarded. Done once."""
    if base in _patched:
        return
    _patched.add(base)
    target: Any = base
    check_resume, train, do_train = target.check_resume, target.train, target._do_train

    def placed(trainer: ScriptTrainer, overrides: dict[str, object]) -> None:
        trainer.nantui_call = train_calls.take()
        check_resume(trainer, _before_resume(trainer, overrides))
        _settle(trainer)

    def started(trainer: ScriptTrainer, *args: Any, **options: Any) -> Any:
        with spawning(trainer):
            return train(trainer, *args, **options)

    def guarded_training(trainer: ScriptTrainer, *stock: int) -> None:
        if getattr(trainer, "session", None) is None:
            _train_guarded(trainer, *stock)
        else:
            do_train(trainer, *stock)

    target.check_resume, target.train, target._do_train = placed, started, guarded_training
    if train_calls.supervised() is not None:
        redirect()


def decided() -> dict[str, object]:
    """Return the settings that a person or a recovery has chosen for this run: they win over the script's."""
    spec = train_calls.spec_of_run()
    chosen = spec.train if spec else {}
    return {name: value for name, value in chosen.items() if name not in NEVER_DECIDED}


def of_the_script(options: dict[str, object]) -> dict[str, object]:
    """Return those of a script's own settings that a resumed call keeps."""
    chosen = decided()
    return {k: options[k] for k in OF_THE_SCRIPT if k in options and k not in chosen}


def _before_resume(trainer: ScriptTrainer, overrides: dict[str, object]) -> dict[str, object]:
    """Point this run's call at its checkpoint; returns the overrides that a resume may still apply."""
    call = trainer.nantui_call
    if call.role == BEFORE:
        where = train_calls.directory_of(call.index)
        refuse(f"train() number {call.index} of the script has finished ({where}) and cannot be skipped here")
    if call.checkpoint is None:
        return overrides
    from nantui.worker import ultralytics_api

    ultralytics_api.take_paths_as_they_are()
    trainer.args.resume, trainer.args.data = call.checkpoint, None
    return of_the_script(overrides)


def _settle(trainer: ScriptTrainer) -> None:
    """Give this run's call its directory and the settings that were decided; others stay the script's."""
    call = trainer.nantui_call
    if call.role != HERE:
        return
    run = os.environ[train_calls.RUN]
    if call.checkpoint is None:
        lead_to(Path(run), trainer.args)
        for name, value in decided().items():
            setattr(trainer.args, name, value)
    trainer.args.save_dir = run


def _train_guarded(trainer: ScriptTrainer, *stock: int) -> None:
    """Make the trainer a guarded one, train, and record how it ended. Raises what the training raises."""
    from nantui.worker import distributed
    from nantui.worker.trainer import guarded

    if trainer.nantui_call.checkpoint is not None:
        if not trainer.resume:
            refuse("this train() was to resume a checkpoint but the script's trainer would begin anew")
        trainer.model = trainer.args.model  # whatever model the script has put in place
    session = session_of(trainer)
    session.register()
    trainer.__class__ = guarded(type(trainer), session, faults_of(session))
    call = replace(trainer.nantui_call, run=str(session.layout.run), attempt=session.attempt.attempt)
    train_calls.note(call)
    try:
        with listening(session):
            trainer._do_train(*stock)
    except TrainingEnded as ended:
        session.end(ended.outcome, ended=ended)
        if not ended.alone:
            distributed.wait_for_all(trainer.device)
        raise
    except BaseException as error:
        session.end(FAILED, last_words(error))
        raise
    train_calls.note(replace(call, finished=True))
    session.end(FINISHED)


def redirect() -> None:
    from ultralytics.engine.model import Model

    from nantui.worker.points.going_on import resume_word

    train = Model.train

    def redirected(model: Any, /, trainer: Any = None, **options: Any) -> Any:
        if isinstance(options.get("data"), (list, tuple)):
            # Each of several data sets is a call of its own, begun in a new directory (MultiTrainer in
            # Ultralytics' engine/trainer.py): the first can be resumed there, a later one would miss others.
            if train_calls.number_of_own() > 1:
                sweep = "train() was called with several data sets"
                refuse(f"{sweep}: such a sweep cannot be resumed in the middle")
            return train(model, trainer=trainer, **options)
        call = train_calls.upcoming()
        if call.role == BEFORE:
            return _answer(model, train_calls.take())
        if call.checkpoint is None:
            return train(model, trainer=trainer, **options)
        model._load(call.checkpoint)
        return train(model, trainer=trainer, resume=resume_word(model), **of_the_script(options))

    Model.train = redirected


def _answer(model: Any, call: Call) -> Any:
    """Leave the model as `Model.train` does after its ranks have trained, and return the kept metrics."""
    layout = RunLayout(Path(train_calls.directory_of(call.index) or "."))
    checkpoint = layout.best if layout.best.is_file() else layout.last
    if not checkpoint.is_file():
        refuse(f"train() number {call.index} had finished in {layout.run}, but its weights are gone")
    done = f"nantui: train() number {call.index} has finished before"
    print(f"{done}; going on with {printable(checkpoint)}", flush=True)
    model._load(str(checkpoint))
    model.metrics = (model.ckpt or {}).get("train_metrics")
    model.trainer = SimpleNamespace(
        save_dir=layout.run, wdir=layout.weights, best=layout.best, last=layout.last, metrics=model.metrics
    )
    return model.metrics
