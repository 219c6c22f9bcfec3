"""Stop a training that nantui did not start: keep how it was started, end its tree, see if it returns."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nantui.errors import FAILED, UserError
from nantui.machine.process_tree import environment_of
from nantui.run.binding import bind_run
from nantui.run.commands import Command
from nantui.run.spec import Spec, is_secret, read_args, read_spec, write_spec
from nantui.run.status import STOPPED, STOPPING
from nantui.supervisor.foreign.find import (
    ForeignTraining,
    came_back,
    describe,
    find_foreign,
    link_of,
    stop_tree,
)
from nantui.supervisor.ports import RunPort, StopPort

GRACE_S = 5.0
KEPT_VARIABLES = ("PATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LANG", "TZ", "MASTER_ADDR", "MASTER_PORT")
KEPT_PREFIXES = ("CUDA_", "CONDA_", "NCCL_", "OMP_", "PYTHON", "TORCH_", "ULTRALYTICS_", "YOLO_")


def stop_foreign(port: StopPort, command: Command, *, at_once: bool) -> str:
    """Stop the trainings of this run that nantui did not start. Raises UserError when that is not possible.

    Nothing is signalled unless the command says `foreign`: the person has seen whose process it is.
    """
    found = find_foreign(port.layout.run)
    if not found:
        return "nothing was running"
    if not command.options.get("foreign"):
        raise UserError(
            f"{describe(found[0])} was not started by nantui; confirm with the run's name", FAILED
        )
    texts = [_stop_one(port, command, training, at_once) for training in found]
    port.publish(state=STOPPED, text="; ".join(texts))
    return "; ".join(texts)


def _stop_one(port: StopPort, command: Command, training: ForeignTraining, at_once: bool) -> str:
    keep_for_resume(port, training)
    port.publish(state=STOPPING)
    port.stage(command.id, "end", f"ending process {training.root.pid} and what it started")
    left = stop_tree(training, port.pump, grace_s=port.patience.terminate_s if at_once else GRACE_S)
    port.refuse_leftover(left)
    text = f"stopped process {training.root.pid} and {len(training.pids) - 1} below it"
    back = came_back(port.layout.run, training, port.pump)
    if back:
        raise UserError(f"{text}, but it was started again at once: end {back} first", FAILED)
    return text


def keep_for_resume(port: RunPort, training: ForeignTraining) -> None:
    """Write down command, cwd and variables; a run of the user's own script goes on through that script."""
    program = program_of(training)
    how: dict[str, object] = {
        "argv": [program, *training.argv[1:]],
        "cwd": training.cwd,
        "env": kept_environment(training.root.pid),
    }
    spec = read_spec(port.layout.spec)
    if spec is None:
        spec = Spec(train=read_args(port.layout.args_yaml), created=time.time())
    kind = "exec" if runs_a_script(training.argv) else spec.kind
    python = spec.python or (program if "python" in Path(program).name else "")
    write_spec(port.layout.spec, replace(spec, kind=kind, exec=how, python=python))
    bind_run(port.layout.run)
    port.journal.append("note", text=f"stopping a foreign training: {describe(training)}")


def runs_a_script(argv: Sequence[str]) -> bool:
    """Tell whether a command is Python with a script of somebody's own, no module and no generated file."""
    script = next((word for word in argv[1:] if not word.startswith("-")), "")
    generated = Path(script).name.startswith("_temp_")
    module = "-m" in argv[1:2] or "-c" in argv[1:2]
    return script.endswith(".py") and not (module or generated) and "python" in Path(argv[0]).name


def program_of(training: ForeignTraining) -> str:
    """Return the full path of the program as it was called: a link of a virtual environment stays one."""
    word = training.argv[0]
    if "/" in word:
        return os.path.normpath(os.path.join(training.cwd or "/", word))
    variables = (entry.partition(b"=") for entry in environment_of(training.root.pid))
    path = next((os.fsdecode(value) for name, _, value in variables if name == b"PATH"), None)
    return shutil.which(word, path=path) or link_of(training.root.pid, "exe") or word


def kept_environment(pid: int) -> dict[str, str]:
    """Return the variables of a process that decide how it trains; nothing that smells of a secret."""
    pairs = (entry.decode(errors="replace").partition("=") for entry in environment_of(pid))
    told = {name: value for name, _, value in pairs if not is_secret(name, value)}
    return {k: v for k, v in told.items() if k in KEPT_VARIABLES or k.startswith(KEPT_PREFIXES)}
