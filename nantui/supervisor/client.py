"""For the cockpit and the commands: make a run, leave a command, make sure that a supervisor lives, follow
what becomes of it.

Nothing here acts on a run. Whoever dies after `submit` changes nothing: the supervisor carries on. A new run
that recovery makes beside the old one goes on under a supervisor of its own, and the old run gets none where
nothing trains in it: not one byte of it changes, so one that is read-only, or somebody else's, can be
continued, too.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from nantui import entry_points
from nantui.errors import FAILED, UserError, refused
from nantui.machine.process_identity import alive, ref_of, this_machine
from nantui.machine.process_tree import argv_of
from nantui.machine.training_python import training_python
from nantui.run import commands
from nantui.run.atomic_files import write_json
from nantui.run.binding import HERE, STARTS, begin_records, bind, standing
from nantui.run.commands import Command, local_spool, spool_for
from nantui.run.documents import JsonObject
from nantui.run.events import CommandDone, Stage, of_kind, parse_lines
from nantui.run.growing_files import LineFollower
from nantui.run.inside import refuse_links
from nantui.run.journal import author
from nantui.run.layout import RunLayout
from nantui.run.spec import Spec, read_spec, write_spec
from nantui.run.status import ACTIVE
from nantui.supervisor.config import load_config
from nantui.supervisor.helper_process import ACT, PREPARE, helper, worker_environment
from nantui.supervisor.launch import RESTART
from nantui.supervisor.state import read_holder, read_state, unwritten_lines
from nantui.terminal_text import printable

POLL_S = 0.05
ENSURE_EVERY_S, STALE_HEARTBEAT_S = 1.0, 60.0
OnStage = Callable[[str, str], None]


@dataclass(frozen=True)
class CommandResult:
    """What became of a command."""

    ok: bool
    text: str


def submit(run: Path, command: Command, *, take_over: bool = False) -> str:
    """Leave `command` for the run's supervisor, starting one where none lives; returns the command's id.
    Raises UserError when the run is held on another host, or no supervisor can be started.
    """
    layout = RunLayout(Path(run).resolve())
    with contextlib.suppress(UserError):
        begin_records()
    refuse_links(layout)
    with refused(f"cannot read {layout.spec}", "nothing was done"):
        made_here = command.kind not in STARTS or (standing(layout.run) == HERE and layout.spec.exists())
    if not made_here:
        from nantui.recovery.agreement import refuse_unagreed  # reads checkpoints

        refuse_unagreed(layout, command.kind)
    if not layout.is_ours():
        bind(layout.run)  # nothing in it is anybody's word yet
    disregard_lock(layout)
    refuse_elsewhere(layout, take_over)
    left = commands.put(spool_for(layout), command, local_spool(layout))
    try:
        ensure_supervisor(layout, take_over=take_over)
    except UserError:  # what was refused is not to be done one day
        left.unlink(missing_ok=True)
        raise
    return command.id


def wait(
    run: Path, command: str, *, on_stage: OnStage | None = None, timeout_s: float | None = None
) -> CommandResult:
    """Follow the journal until the command is done. Raises UserError when `timeout_s` is over before."""
    layout = RunLayout(Path(run).resolve())
    follower = LineFollower(layout.journal)
    begun, ensured = time.monotonic(), time.monotonic()
    while True:
        for event in parse_lines(follower.read().lines):
            if isinstance(event, Stage) and event.command == command and on_stage is not None:
                on_stage(event.stage, printable(event.text))
            if isinstance(event, CommandDone) and event.id == command:
                return CommandResult(event.ok, printable(event.text))
        for done in of_kind(parse_lines(unwritten_lines(layout)), CommandDone):
            if done.id == command:
                return CommandResult(done.ok, printable(done.text))
        now = time.monotonic()
        if timeout_s is not None and now - begun > timeout_s:
            raise UserError(f"nothing heard within {timeout_s:.0f} s; the command stays in force", FAILED)
        if now - ensured > ENSURE_EVERY_S:
            ensured = now
            ensure_supervisor(layout)
        time.sleep(POLL_S)


def carry_out(
    run: Path, command: Command, *, on_stage: OnStage | None = None, take_over: bool = False
) -> CommandResult:
    """Submit and wait."""
    return wait(run, submit(run, command, take_over=take_over), on_stage=on_stage)


def create_run(
    train: Mapping[str, object], ours: Mapping[str, object] | None = None, *, python: str | None = None,
    auto: bool = False, faults: Sequence[Mapping[str, object]] = (), start: bool = True,
    options: Mapping[str, object] | None = None, plan: Callable[[JsonObject], JsonObject] | None = None,
    nnodes: int = 1, endpoint: str = "",
) -> Path:  # fmt: skip
    """Check the arguments, make the run directory under the name Ultralytics chooses, and start it.

    `options` go with the start command; `plan` returns the plan of a run in phases, given the checked
    arguments of the first one. Returns the new run directory. Raises UserError for bad arguments, before
    anything is created.
    """
    begin_records()
    cwd = os.getcwd()
    answer = check_arguments(train, python=python, cwd=cwd)
    run = _new_directory(Path(str(answer["save_dir"])))
    asked = dict(answer.get("args") or train)
    own: JsonObject = {"faults": [dict(fault) for fault in faults], "nnodes": nnodes, "endpoint": endpoint}
    ours = dict(ours or {})
    make_run(
        run, Spec(asked, ours, training_python(python), auto, plan=plan(dict(asked)) if plan else None, **own)
    )
    if start:
        submit(run, Command("start", {"cwd": cwd, **(options or {})}))
    return run


def make_run(directory: Path, spec: Spec) -> None:
    """Make a run of a new directory. Raises UserError where that cannot be written down."""
    write_spec(RunLayout(directory).spec, replace(spec, created=time.time()))
    bind(directory)


def disregard_lock(layout: RunLayout) -> None:
    """Take away a lock that a run brought along from elsewhere: no process of this machine holds it here."""
    holder = read_holder(layout.lock)
    if holder is None or standing(layout.run) == HERE:
        return
    own = this_machine().sees_pids_of(holder.machine) and alive(holder.process)
    if not own or str(layout.run) not in argv_of(holder.process.pid):
        layout.lock.unlink(missing_ok=True)


def _new_directory(run: Path) -> Path:
    if os.path.lexists(run):
        raise UserError(f"{run} exists already and is never overwritten; choose another name=", FAILED)
    with refused(f"cannot make {run}", "choose another project="):
        run.mkdir(parents=True)
    return run.resolve()


def make_directories(trains: Sequence[Mapping[str, object]], python: str) -> list[JsonObject]:
    """Check the arguments of many runs in one process and make their directories, all or none; returns an
    answer each, as `check_arguments` does. Raises UserError with what is wrong.
    """
    begin_records()
    return list(_checked({"runs": {"trains": [*trains]}}, python)["made"])


def check_arguments(train: Mapping[str, object], *, python: str | None, cwd: str | None = None) -> JsonObject:
    """Return what Ultralytics' own code says of the arguments, and the directory. Raises UserError."""
    return _checked({"train": dict(train)}, python, cwd)


def settings_as_now(
    config: Mapping[str, object], *, python: str | None
) -> tuple[dict[str, object], list[str]]:
    """Return a file's settings in the words of the installed Ultralytics, and notes on what it left out.
    Raises UserError for a setting that it does not know.
    """
    answer = _checked({"config": dict(config)}, python)
    return dict(answer.get("settings") or {}), [printable(note) for note in answer.get("notes") or ()]


def _checked(request: JsonObject, python: str | None, cwd: str | None = None) -> JsonObject:
    load_config()  # what a supervisor would refuse is refused before anything is made
    answer = helper(PREPARE, request, python=training_python(python), cwd=cwd or os.getcwd())
    if not answer.get("ok"):
        raise UserError(printable(answer.get("error") or "the settings were refused"))
    return answer


def want_worker(run: Path, wanted: bool) -> None:
    """Have the run's next worker brought up while a person makes up their mind, or no longer. It only saves
    time: nothing is said where it cannot be, and no run is taken up for it that is not settled.
    """
    layout, own = RunLayout(Path(run).resolve()), ref_of(os.getpid())
    state = read_state(layout.supervisor) if standing(layout.run) == HERE else None
    with contextlib.suppress(OSError, UserError):
        if not wanted:
            layout.wish.unlink(missing_ok=True)
        elif state and own and (alive(state.process) or not (state.doing or state.state in ACTIVE)):
            refuse_links(layout)
            write_json(layout.wish, {**asdict(own), "t": time.time()})
            ensure_supervisor(layout)


def ensure_supervisor(layout: RunLayout, *, take_over: bool = False) -> None:
    """Start a supervisor where none lives. Raises UserError when that fails."""
    holder, here = read_holder(layout.lock), this_machine()
    lives = holder is not None and not holder.is_dead(here)
    if holder is not None and lives and (not take_over or here.sees_pids_of(holder.machine)):
        return
    argv = [sys.executable, "-m", entry_points.SUPERVISOR, str(layout.run), "--detach"]
    argv += ["--take-over"] if take_over else []
    try:
        layout.home.mkdir(exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        with os.fdopen(os.open(layout.supervisor_log, flags, 0o666), "ab") as log:
            done = subprocess.run(
                argv, cwd="/", env=worker_environment(), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=log, timeout=60,
            )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        text = f"cannot start a supervisor for {layout.run}: {error}; nothing was done"
        raise UserError(text, FAILED) from None
    if done.returncode and read_holder(layout.lock) is None:
        why = printable(done.stdout.decode(errors="replace")) or f"see {layout.supervisor_log}"
        raise UserError(f"no supervisor could be started for {layout.run}: {why}", FAILED)


def refuse_elsewhere(layout: RunLayout, take_over: bool) -> None:
    """Raise UserError when the run is held on another host that may still live."""
    holder, here = read_holder(layout.lock), this_machine()
    if holder is None or here.sees_pids_of(holder.machine) or holder.is_dead(here):
        return
    state, host = read_state(layout.supervisor), holder.machine.host
    age = time.time() - (state.heartbeat if state else 0.0)
    if age < STALE_HEARTBEAT_S:
        act = f"(heard of {age:.0f} s ago); act there: ssh {host}"
        raise UserError(f"{layout.run}: held on host {host} {act}", FAILED)
    if not take_over:
        gone = f"silent for {age:.0f} s; if it is surely gone, add --take-over"
        raise UserError(f"{layout.run}: held on host {host}, {gone}", FAILED)


def branch_off(run: Path, options: Mapping[str, object], python: str | None = None) -> str:
    """Make the new run that `options` of a recover name, and start it; returns a line for people. Raises
    UserError with recovery's refusal; nothing is left of the new run then.
    """
    load_config()
    command = Command("recover", dict(options), by=author())
    answer = ask_recovery("rollback", run, {**options, "id": command.id, "by": command.by}, python)
    return continue_elsewhere(answer, command)


def ask_recovery(action: str, run: Path, options: Mapping[str, object], python: str | None) -> JsonObject:
    """Return what recovery answers where no supervisor is asked. Raises UserError with its refusal."""
    spec = read_spec(RunLayout(run).spec)
    chosen = training_python(python, spec.python if spec else None)
    answer = helper(ACT, {**options, "action": action, "run": str(run), "python": chosen}, python=chosen)
    if not answer.get("ok"):
        raise UserError(printable(answer.get("error") or answer.get("text") or "refused"), FAILED)
    return answer


def continue_elsewhere(answer: JsonObject, command: Command) -> str:
    """Have the run that `answer` of recovery names go on; returns a line for people. Raises UserError."""
    new = RunLayout(Path(str(answer["run"])))
    options = {name: command.options[name] for name in ("wait_gpu",) if name in command.options}
    kind = "start" if answer.get("mode") == RESTART else "resume"
    submit(new.run, Command(kind, options, by=command.by))
    return str(answer.get("text") or f"continues in {new.run}")
