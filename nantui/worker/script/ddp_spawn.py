"""Ultralytics' own DDP spawn, when a script asks for several devices: ranks that know which call they are.

It removes the run directory of a fresh start (`utils/dist.py`, `generate_ddp_command`) and turns every ending
of a rank into a CalledProcessError. Here nantui's folder is spared, the ranks are told of the call, and an
agreed ending ends the script as it would in one process.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from nantui.run.atomic_files import to_json
from nantui.run.attempts import DIVERGED, EXIT_CODES, FINISHED, STOPPED, read_exits
from nantui.run.layout import RunLayout
from nantui.worker import ultralytics_api
from nantui.worker.script import train_calls
from nantui.worker.script.script_run import ScriptTrainer, new_attempt
from nantui.worker.script.train_calls import HERE, NUMBER, RUN, SPAWN, Call


@contextlib.contextmanager
def spawning(trainer: ScriptTrainer) -> Iterator[None]:
    """While this lasts, `train()` may spawn ranks. Raises SystemExit with the ranks' agreed ending."""
    if not ultralytics_api.spawns_ranks(trainer):
        yield
        return
    call = _begun(trainer)
    os.environ[SPAWN] = to_json(asdict(call))
    try:
        with _sparing_our_folder():
            yield
    except subprocess.CalledProcessError as error:
        _end_as_the_ranks(call, ultralytics_api.devices_asked(trainer), error)
    finally:
        del os.environ[SPAWN]
    train_calls.note(replace(call, finished=True))


def _begun(trainer: ScriptTrainer) -> Call:
    """Return the call with its run and attempt, recorded before the ranks are there to disagree."""
    call = trainer.nantui_call
    if call.role == HERE:
        return replace(call, run=os.environ[RUN], attempt=int(os.environ[NUMBER]))
    layout = RunLayout(Path(trainer.save_dir).resolve())
    return replace(call, run=str(layout.run), attempt=new_attempt(trainer, layout).attempt)


def _end_as_the_ranks(call: Call, ranks: int, error: subprocess.CalledProcessError) -> None:
    """Raise what the ranks ended with; a crash after all have finished spoils nothing (process_end.py)."""
    outcomes = [ending.outcome for ending in read_exits(RunLayout(Path(call.run)), call.attempt)]
    for outcome in (DIVERGED, STOPPED):
        if outcome in outcomes:
            raise SystemExit(EXIT_CODES[outcome]) from None
    if outcomes != [FINISHED] * ranks:
        raise error
    text = f"nantui: all {ranks} ranks finished, then one crashed on its way out; nothing is lost"
    print(text, file=sys.stderr)


@contextlib.contextmanager
def _sparing_our_folder() -> Iterator[None]:
    """Let `shutil.rmtree`, as `utils/dist.py` calls it, keep `nantui/` inside what it removes."""
    import shutil

    from ultralytics.utils import dist

    def rmtree(directory: str | Path, *args: Any, **options: Any) -> None:
        for entry in Path(directory).iterdir():
            if entry.name == "nantui":
                continue
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, *args, **options)
            else:
                entry.unlink()

    stand_in = SimpleNamespace(**{**vars(shutil), "rmtree": rmtree})
    with ultralytics_api.replaced(dist, "shutil", stand_in):
        yield
