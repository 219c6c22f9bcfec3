"""Stop a training that nantui did not start: keep how it was started, end its tree, see if it returns."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from nantui.errors import FAILED, UserError
from nantui.run.spec import Spec, read_args, read_spec, write_spec
from nantui.run.spool import Command
from nantui.run.status import STOPPED, STOPPING
from nantui.supervise.foreign import ForeignTraining, came_back, find_foreign, stop_tree
from nantui.supervise.keeper import Keeper

GRACE_S = 5.0
KEPT_VARIABLES = ("PATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LANG", "TZ", "MASTER_ADDR", "MASTER_PORT")
KEPT_PREFIXES = ("CUDA_", "CONDA_", "NCCL_", "OMP_", "PYTHON", "TORCH_", "ULTRALYTICS_", "YOLO_")
SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSW")


def stop_foreign(keeper: Keeper, command: Command, *, at_once: bool) -> str:
    """Stop the trainings of this run that nantui did not start. Raises UserError when that is not possible.

    Nothing is signalled unless the command says `foreign`: the person has seen whose process it is.
    """
    found = find_foreign(keeper.layout.run)
    if not found:
        return "nothing was running"
    if not command.options.get("foreign"):
        raise UserError(
            f"{describe(found[0])} was not started by nantui; confirm with the run's name", FAILED
        )
    texts = [_stop_one(keeper, command, training, at_once) for training in found]
    keeper.publish(state=STOPPED, text="; ".join(texts))
    return "; ".join(texts)


def describe(training: ForeignTraining) -> str:
    """Return one line about a foreign training."""
    hours = training.age_s / 3600
    place = f", from {training.origin}" if training.origin else ""
    return f"process {training.root.pid} of {training.user}{place}, {hours:.1f} h old: {training.command}"


def _stop_one(keeper: Keeper, command: Command, training: ForeignTraining, at_once: bool) -> str:
    keep_for_resume(keeper, training)
    keeper.publish(state=STOPPING)
    keeper.stage(command.id, "end", f"ending process {training.root.pid} and what it started")
    left = stop_tree(training, keeper.pump, grace_s=keeper.patience.terminate_s if at_once else GRACE_S)
    keeper.refuse_leftover(left)
    text = f"stopped process {training.root.pid} and {len(training.pids) - 1} below it"
    back = came_back(keeper.layout.run, training, keeper.pump)
    if back:
        raise UserError(f"{text}, but it was started again at once: end {back} first", FAILED)
    return text


def keep_for_resume(keeper: Keeper, training: ForeignTraining) -> None:
    """Write down command, cwd and variables, so that the run can go on through its own script."""
    environment = kept_environment(training.root.pid)
    how: dict[str, Any] = {"argv": list(training.argv), "cwd": training.cwd, "env": environment}
    spec = read_spec(keeper.layout.spec)
    if spec is None:
        spec = Spec(train=read_args(keeper.layout.args_yaml), created=time.time())
    write_spec(keeper.layout.spec, replace(spec, exec=how, python=spec.python or interpreter_of(training)))
    keeper.journal.append("note", text=f"stopping a foreign training: {describe(training)}")


def interpreter_of(training: ForeignTraining) -> str:
    """Return the interpreter that ran the training, empty when it is gone or no Python."""
    try:
        path = str(Path(f"/proc/{training.root.pid}/exe").readlink())
    except OSError:
        return ""
    word = training.argv[0]
    return word if word.startswith("/") and "python" in Path(word).name else path if "python" in path else ""


def kept_environment(pid: int) -> dict[str, str]:
    """Return the variables of a process that decide how it trains; nothing that smells of a secret."""
    try:
        text = Path(f"/proc/{pid}/environ").read_text(errors="replace")
    except OSError:
        return {}
    pairs = (entry.partition("=") for entry in text.split("\0") if "=" in entry)
    return {name: value for name, _, value in pairs if _is_kept(name)}


def _is_kept(name: str) -> bool:
    secret = any(word in name.upper() for word in SECRET_WORDS)
    return not secret and (name in KEPT_VARIABLES or name.startswith(KEPT_PREFIXES))
