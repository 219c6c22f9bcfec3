"""Which of a script's `train()` calls this is: counted over every process of one command, and kept on disk.

An exec run's worker becomes the user's own command here, with the hook in its environment.

A script may train several times, in one process or in several, and with Ultralytics' own DDP spawn a call's
ranks are processes of their own. One call belongs to the run that is supervised; those before it must not be
repeated when the script is run again, those after it are runs in their own directories.
"""

from __future__ import annotations

import json
import os
import signal
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import NoReturn, TypeVar

import psutil

from nantui.checkpoint.scan import refuse_unsound
from nantui.errors import UserError
from nantui.run.atomic_files import read_json, to_json, write_json
from nantui.run.documents import Document, known_fields
from nantui.run.events import AttemptEnded, RollbackDone, newest
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from nantui.run.spec import Spec, read_spec
from nantui.worker.session import Session
from nantui.worker.torchrun_env import rank, world_size

RUN, NUMBER, RESUME, CALL, SPAWN = (f"NANTUI_{name}" for name in ("RUN", "NUMBER", "RESUME", "CALL", "SPAWN"))
HOOK, HOOK_FOLDER = "NANTUI_HOOK", Path(__file__).parent / "hook"
BEFORE, HERE, BESIDE = "before", "here", "beside"
"""A call that an earlier attempt has finished, the one that this run is, and one with a run of its own."""
PATIENCE_S, LOOK_S = 120.0, 0.05
Word = TypeVar("Word")


@dataclass(frozen=True)
class Call:
    """One `train()`; `index` counts from 1. `run` and `attempt` are known once it has begun to train."""

    index: int
    role: str
    token: str
    run: str = ""
    attempt: int = 0
    finished: bool = False

    @property
    def checkpoint(self) -> str | None:
        """What this call resumes instead of beginning, None for a fresh start."""
        return os.environ.get(RESUME) if self.role == HERE else None


@dataclass
class _Process:
    begun: int = 0
    waiting: Call | None = None
    runs: dict[int, str] = field(default_factory=dict)


_process = _Process()


def supervised() -> RunLayout | None:
    """Return the run that a supervisor watches this command for, None for a script that only attaches."""
    run = os.environ.get(RUN)
    return RunLayout(Path(run)) if run else None


def spec_of_run() -> Spec | None:
    layout = supervised()
    return read_spec(layout.spec, agreed=True) if layout else None


def number_of_own() -> int:
    """Return which of the command's calls the supervised run is, from 1."""
    return int(os.environ.get(CALL, "1"))


def upcoming() -> Call:
    """Return the call that begins now; the same one until a trainer takes it."""
    if _process.waiting is None:
        spawned = os.environ.get(SPAWN)  # by Ultralytics, as a rank of this call
        _process.waiting = Call(**json.loads(spawned)) if spawned else _counted()
    return _process.waiting


def take() -> Call:
    """Return the call that begins now, as the one that a trainer carries out."""
    call, _process.waiting = upcoming(), None
    return call


def note(call: Call) -> None:
    """Keep how far a call is, where a supervised command keeps its calls; by its first rank only."""
    _process.runs[call.index] = call.run
    layout = supervised()
    if layout is not None and rank() == 0:
        write_json(_path(layout, _number(), call.index), _document(call))


def calls_of(layout: RunLayout, number: int) -> list[Call]:
    """Return the calls that attempt `number` has made, in order."""
    found = (read_json(path) for path in sorted(layout.attempts.glob(f"{number:03d}.call*.json")))
    calls = (known_fields(Call, one) for one in found)
    return sorted((call for call in calls if call is not None), key=lambda call: call.index)


def directory_of(index: int) -> str:
    """Return the run directory of an earlier call of this command, empty where none is known."""
    if index in _process.runs:
        return _process.runs[index]
    layout, spec = supervised(), spec_of_run()
    earlier = list((spec.exec or {}).get("earlier") or []) if spec else []
    if index <= len(earlier):
        return str(earlier[index - 1])
    made = calls_of(layout, _number()) if layout else []
    return next((call.run for call in made if call.index == index), "")


def launch_token() -> str:
    """Return what is the same in all ranks of one launch by torchrun, and different in any other launch."""
    if world_size() < 2:
        return f"{os.getpid()}-{psutil.Process().create_time()}"
    launch = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    if launch == "none":
        launch = str(psutil.Process(os.getppid()).create_time())
    return f"{launch}-{os.environ.get('MASTER_PORT', '')}"


def _counted() -> Call:
    _process.begun += 1
    token = uuid.uuid5(uuid.NAMESPACE_OID, f"{launch_token()}-{_process.begun}").hex
    layout = supervised()
    if layout is None:
        return Call(_process.begun, BESIDE, token)
    call = _claimed(layout, token) if rank() == 0 else None
    call = call or from_first_rank(
        lambda: next((call for call in calls_of(layout, _number()) if call.token == token), None),
        "has not begun this train()",
    )
    own = number_of_own()
    role = HERE if call.index == own else BEFORE if call.index < own else BESIDE
    return replace(call, role=role)


def _claimed(layout: RunLayout, token: str) -> Call:
    """Take the next number, which no other process of the command has."""
    index = len(calls_of(layout, _number())) + 1
    while True:
        call = Call(index, BESIDE, token)
        try:
            with _path(layout, _number(), index).open("x", encoding="utf-8") as file:
                file.write(to_json(_document(call)))
            return call
        except FileExistsError:
            index += 1


def from_first_rank(look: Callable[[], Word | None], failing: str) -> Word:
    """Return what the first rank of this launch writes down, once `look` finds it.

    Raises UserError when it does not come, saying what the first rank then was `failing` to do.
    """
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if (word := look()) is not None:
            return word
        time.sleep(LOOK_S)
    raise UserError(f"rank {rank()}: the first rank {failing} within {PATIENCE_S:.0f} s")


def _document(call: Call) -> Document:
    return {**asdict(call), "pid": os.getpid(), "t": time.time()}


def _number() -> int:
    return int(os.environ[NUMBER])


def _path(layout: RunLayout, number: int, index: int) -> Path:
    return layout.attempts / f"{number:03d}.call{index}.json"


def become(session: Session, spec: Spec) -> NoReturn:
    """Replace this process by the recorded command. Raises UserError when that cannot be."""
    command = spec.exec or {}
    argv = [str(word) for word in command.get("argv") or []]
    if not argv:
        raise UserError(f"{session.layout.spec}: no command recorded; start it with nantui exec -- python …")
    kept = {str(name): str(value) for name, value in (command.get("env") or {}).items()}
    environment = {**os.environ, **kept, **_hook(session, spec, kept.get("PYTHONPATH", ""))}
    if session.attempt.mode == "resume":
        refuse_later_calls(session.layout, session.attempt.attempt, int(command.get("call") or 1))
        checkpoint = session.layout.run / (session.attempt.checkpoint or "weights/last.pt")
        refuse_unsound(session.layout, checkpoint)
        environment[RESUME] = str(checkpoint)
    session.recorder.close()
    try:
        os.chdir(command.get("cwd") or session.layout.run)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})  # until its train() takes it
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        os.execvpe(argv[0], argv, environment)
    except OSError as error:
        why = f"{error.strerror}; check the command and its directory"
        raise UserError(f"cannot run {argv[0]}: {why}") from None


def _hook(session: Session, spec: Spec, python_path: str) -> dict[str, str]:
    """Return what brings the guard into every process of the command, whatever its own environment says."""
    ours = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = filter(None, dict.fromkeys([str(HOOK_FOLDER), *ours, *python_path.split(os.pathsep)]))
    mine = {name: value for name, value in os.environ.items() if name.startswith("NANTUI_")}
    return {
        **mine, HOOK: "1", RUN: str(session.layout.run), NUMBER: str(session.attempt.attempt),
        CALL: str((spec.exec or {}).get("call") or 1), "PYTHONPATH": os.pathsep.join(path),
    }  # fmt: skip


def refuse_later_calls(layout: RunLayout, number: int, own: int) -> None:
    """A run whose own `train()` has finished is not where its script was interrupted.

    A rollback since then means that it is to go on from an earlier point. Raises UserError that names the
    run of the later call, which is the one to be resumed.
    """
    if isinstance(newest(RunRecord(layout).journal, AttemptEnded, RollbackDone), RollbackDone):
        return
    for earlier in range(number - 1, 0, -1):
        made = calls_of(layout, earlier)
        if not any(call.index == own and call.finished for call in made):
            if made:
                return
            continue
        later = next((call.run for call in made if call.index > own and not call.finished and call.run), "")
        then = f"its script was interrupted in a later one: resume {later}" if later else "all is done"
        raise UserError(f"the train() of this run has finished; {then}")
