"""The run that a script's `train()` makes: its attempt and session, how to run the script again, its ranks.

The call that is supervised reports into the run its supervisor watches. Any other reports into the directory
that the script chose, where it also leaves the command, so that this very call can be recovered and resumed.

Ultralytics' own DDP spawn, when a script asks for several devices, removes the run directory of a fresh start
(`utils/dist.py`, `generate_ddp_command`) and turns every ending of a rank into a CalledProcessError. Here
nantui's folder is spared, the ranks are told of the call, and an agreed ending ends the script as it would in
one process.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn, Protocol

import psutil

from nantui.errors import UserError
from nantui.machine.gpus import device_count
from nantui.run import attempts
from nantui.run.atomic_files import to_json
from nantui.run.binding import bind
from nantui.run.documents import Document
from nantui.run.layout import RunLayout
from nantui.run.spec import Spec, kept_environment, write_spec
from nantui.terminal_text import printable
from nantui.worker import ultralytics_api
from nantui.worker.script import train_calls
from nantui.worker.script.train_calls import HERE, NUMBER, RUN, SPAWN, Call
from nantui.worker.session import Session
from nantui.worker.telemetry import Recorder
from nantui.worker.torchrun_env import rank, world_size
from nantui.worker.ultralytics_types import Trainer

OURS = "NANTUI_ATTACHED"
ELSEWHERE = "elsewhere"


class ScriptTrainer(Trainer, Protocol):
    """A trainer that a script has made, and which of its `train()` calls that is for."""

    nantui_call: Call

    def _do_train(self, *stock: int) -> None: ...


def session_of(trainer: ScriptTrainer) -> Session:
    """Return the session of the trainer's call: the supervised run's, or one in the script's directory."""
    call = trainer.nantui_call
    if call.role == HERE:
        return Session.open(Path(os.environ[RUN]), int(os.environ[NUMBER]))
    layout = RunLayout(Path(trainer.save_dir).resolve())
    attempt = attempts.read_attempt(layout, call.attempt) if call.attempt else None
    if attempt is None:
        attempt = new_attempt(trainer, layout) if rank() == 0 else _awaited(layout, call)
    # Whoever stops the command means the call that trains just now, wherever its run lies.
    supervised = train_calls.supervised()
    request = supervised.stop_request(int(os.environ[NUMBER])) if supervised else None
    return Session(layout, attempt, also_stopped_by=request)


def new_attempt(trainer: ScriptTrainer, layout: RunLayout) -> attempts.Attempt:
    """Record the attempt that a call makes in a run of its own, and the command that made it."""
    call = trainer.nantui_call
    supervised = train_calls.spec_of_run()
    ours = {**(supervised.ours if supervised else {}), **json.loads(os.environ.get(OURS, "{}"))}
    number = layout.newest_attempt() + 1
    mode = "resume" if trainer.resume else "start"
    plain = (str, int, float, bool, list, type(None))
    train: Document = {k: v for k, v in vars(trainer.args).items() if isinstance(v, plain)}
    attempt = attempts.Attempt(number, call.token, time.time(), mode, None, train, ours, sys.executable)
    devices = max(world_size(), getattr(trainer, "world_size", 1), 1)
    attempts.write_attempt(layout, replace(attempt, devices=devices))
    if not layout.spec.exists() and (command := command_of(call)):
        spec = Spec({}, ours, sys.executable, kind="exec", created=time.time(), exec=command)
        write_spec(layout.spec, spec)
        with contextlib.suppress(UserError):  # a training is not ended for that: going on with it asks once
            bind(layout.run)
    _tell_the_supervised_run(call, layout)
    return attempt


def command_of(call: Call) -> Document | None:
    """Return the command that carries this call out when it is run again, None where there is no such."""
    earlier = [train_calls.directory_of(index) for index in range(1, call.index)]
    spec = train_calls.spec_of_run()
    command = spec.exec if spec is not None and spec.exec else _own_command()
    return {**command, "call": call.index, "earlier": earlier} if command else None


def _own_command() -> Document | None:
    """Return the command of this process, torchrun's where that has started it; None where this program is no
    file: a notebook, `python -c` and a script from standard input cannot be run again.
    """
    script = str(getattr(sys.modules.get("__main__"), "__file__", None) or "")
    typed_in = script.startswith(("/dev/", "/proc/")) or "ipykernel" in sys.modules
    if typed_in or not os.path.isfile(script):
        return None
    own = [sys.executable, *sys.orig_argv[1:]]
    argv = psutil.Process(os.getppid()).cmdline() if world_size() > 1 else own
    return {"argv": argv, "cwd": os.getcwd(), "env": kept_environment()}


def lead_to(run: Path, args: SimpleNamespace) -> None:
    """Let the path that the script would have trained into lead to the run: scripts often name it again."""
    if rank() != 0 or SPAWN in os.environ:
        return
    if ultralytics_api.chosen_directory(args, exist_ok=True).resolve() == run.resolve():
        return
    place = ultralytics_api.chosen_directory(args, exist_ok=bool(args.exist_ok))
    with contextlib.suppress(OSError):
        place.rmdir()  # Ultralytics' MultiTrainer makes the directory before its trainer does
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_symlink() and RunLayout(place).is_ours():  # an earlier run of the same script has left it
            beside = place.with_name(f".{place.name}.{os.getpid()}")
            beside.symlink_to(run, target_is_directory=True)
            beside.replace(place)
        else:
            place.symlink_to(run, target_is_directory=True)
    except OSError as error:
        why = f"{printable(place)} does not lead there ({error.strerror})"
        print(f"nantui: the run is {printable(run)}; {why}", file=sys.stderr)


def refuse(text: str) -> NoReturn:
    """End the script with the reason, so that no `except Exception` of its own goes on with the next call."""
    print(f"nantui: {printable(text)}", file=sys.stderr, flush=True)
    layout = train_calls.supervised()
    if layout is not None:
        Session.open(layout.run, int(os.environ[NUMBER])).end(attempts.FAILED, text)
    raise SystemExit(attempts.EXIT_CODES[attempts.FAILED])


def _awaited(layout: RunLayout, call: Call) -> attempts.Attempt:
    def recorded() -> attempts.Attempt | None:
        attempt = attempts.read_attempt(layout, layout.newest_attempt())
        return attempt if attempt is not None and attempt.uuid == call.token else None

    return train_calls.from_first_rank(recorded, f"has recorded no attempt in {layout.run}")


def _tell_the_supervised_run(call: Call, layout: RunLayout) -> None:
    """Say in the supervised run that its own training is over and the script trains on elsewhere."""
    supervised = train_calls.supervised()
    if supervised is None:
        return
    recorder = Recorder(supervised.events(int(os.environ[NUMBER]), 0), 0)
    recorder.event("phase", phase=ELSEWHERE, call=call.index, run=str(layout.run))
    recorder.close()


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
        _end_as_the_ranks(call, device_count(trainer.args.device), error)
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
    outcomes = [ending.outcome for ending in attempts.read_exits(RunLayout(Path(call.run)), call.attempt)]
    for outcome in (attempts.DIVERGED, attempts.STOPPED):
        if outcome in outcomes:
            raise SystemExit(attempts.EXIT_CODES[outcome]) from None
    if outcomes != [attempts.FINISHED] * ranks:
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
