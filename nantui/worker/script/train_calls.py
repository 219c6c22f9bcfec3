"""Which of a script's `train()` calls this is: counted over every process of one command, and kept on disk.

A script may train several times, in one process or in several, and with Ultralytics' own DDP spawn a call's
ranks are processes of their own. One call belongs to the run that is supervised; those before it must not be
repeated when the script is run again, those after it are runs in their own directories.
"""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import psutil

from nantui.errors import UserError
from nantui.run.atomic_files import read_json, to_json, write_json
from nantui.run.documents import Document, known_fields
from nantui.run.layout import RunLayout
from nantui.run.spec import Spec, read_spec
from nantui.worker.torchrun_env import rank, world_size

RUN, NUMBER, RESUME, CALL, SPAWN = (f"NANTUI_{name}" for name in ("RUN", "NUMBER", "RESUME", "CALL", "SPAWN"))
BEFORE, HERE, BESIDE = "before", "here", "beside"
"""A call that an earlier attempt has finished, the one that this run is, and one with a run of its own."""
PATIENCE_S = 120.0
LOOK_S = 0.05
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
    """What this process has counted."""

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
