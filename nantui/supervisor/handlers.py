"""What each command does, as plain code over what it may ask of the supervisor. Returns a line for people; a
refusal is a UserError.

A command that is taken up again, because its supervisor died, finds its rollback or its attempt in the
journal: done once is done. Repeating it would stop a training that has just begun to recover, or go back a
second time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from nantui.errors import FAILED, UserError
from nantui.run import events as kinds
from nantui.run.atomic_files import write_json
from nantui.run.commands import Command
from nantui.run.documents import JsonObject
from nantui.run.events import document_of, newest, of_kind
from nantui.run.journal import not_taken_back, pending_edits, rolled_back_before
from nantui.run.layout import RunLayout
from nantui.run.plan import standing
from nantui.run.points import refuse_gone
from nantui.run.quarantine import quarantine_add, quarantine_undo
from nantui.run.spec import Spec, with_settings, write_spec
from nantui.run.status import FAILED as FAILED_STATE
from nantui.run.status import FINISHED, RECOVERING, STOPPED
from nantui.supervisor import recovery, run_spec
from nantui.supervisor.client import continue_elsewhere
from nantui.supervisor.config import RECOVERED
from nantui.supervisor.directories import stray_words
from nantui.supervisor.foreign import CERTAIN, describe, find_foreign
from nantui.supervisor.gpu_admission import admit, await_place
from nantui.supervisor.hosts.leader import several
from nantui.supervisor.launch import RESTART, RESUME, START, beginning_text, new_attempt
from nantui.supervisor.ports import CommandPort
from nantui.supervisor.recovery import act, to_continue
from nantui.supervisor.run_spec import directory_of, leave_the_script, spec_of, stay_automatic, taken_back
from nantui.supervisor.stop import POLL_S, USUAL_STEPS, stop_run
from nantui.words import count

PROBATION_EPOCHS = 3
REWIND_S = 10.0
"""How long the ranks may take to come to the end of a batch, beside some of their usual steps."""


def begun_before(port: CommandPort, command: str) -> str:
    """Return what to say of the attempt that was started for a command, "" where none came to life: the
    journal is written before the process is made.
    """
    attempts = of_kind(port.journal.events(), kinds.AttemptStarted)
    started = newest((one for one in attempts if one.command == command), kinds.AttemptStarted)
    if started is None or started.attempt is None:
        return ""
    lives = port.watch is not None and port.watch.attempt.attempt == started.attempt
    if not lives and not port.layout.ranks(started.attempt):
        return ""
    return f"attempt {started.attempt} started {beginning_text(started.mode, started.checkpoint)}"


def made_by_us(port: CommandPort) -> bool:
    """Tell whether the run's directory was made for it, by a first start or by a recovery into it."""
    return newest(port.journal.events(), kinds.Created) is not None


def start(port: CommandPort, command: Command) -> str:
    """Train from the beginning, in a directory that holds no checkpoint yet."""
    refuse_while_running(port)
    spec = spec_of(port)
    if any(port.layout.weights.glob("*.pt")):
        raise UserError("this run has checkpoints already: resume it, or train under another name", FAILED)
    if not made_by_us(port):
        cwd = command.options.get("cwd")
        port.journal.append("created", by=command.by, spec=spec.__dict__, cwd=cwd)
    return begin(port, command, spec, START, None, _asked(port, command))


def set_values(port: CommandPort, command: Command) -> str:
    """Keep edited settings for the next start, or take back some that wait for it."""
    values, names = _set_of(command), command.options.get("back") or []
    if names:
        write_spec(port.layout.spec, taken_back(port, names))
        return "taken back: " + ", ".join(names)
    if not values:
        raise UserError("nothing to set")
    run_spec.refuse_missing(values)
    write_spec(port.layout.spec, with_settings(spec_of(port), values))
    return "kept for the next start: " + ", ".join(f"{name}={value}" for name, value in values.items())


def rollback(port: CommandPort, command: Command) -> str:
    """Go back to a clean checkpoint; starts nothing."""
    refuse_while_running(port)
    done = rolled_back_before(port.journal.events(), command.id) or act(port, command, "rollback")
    text = str(done.get("text") or "rolled back")
    if port.state.state:
        port.publish(state=STOPPED, text=text, ending="", last_incident=None)
    return text


def undo(port: CommandPort, command: Command) -> str:
    """Take back the last that can be; a training that this leaves unfinished, or finished, is shown so, and
    what was told of the attempt that was taken back is told no more.
    """
    refuse_while_running(port)
    text = str(act(port, command, "undo").get("text") or "undone")
    events = port.journal.events()
    last, (_, finished) = newest(not_taken_back(events), kinds.Incident, kinds.RollbackDone), standing(events)
    incident = document_of(last) if isinstance(last, kinds.Incident) else None
    if port.state.state:  # of an attempt under `attach` the supervisor has told nothing
        state = FINISHED if finished else STOPPED
        port.publish(state=state, text=text, ending="", last_incident=incident, guarded=None)
    return text


def resume(port: CommandPort, command: Command) -> str:
    """Continue from the newest checkpoint, with edited settings in effect. Refuses one that is not clean."""
    refuse_while_running(port)
    await_place(port, command)
    leave_the_script(port, command)
    if recovery.waits(port, command):
        return next_phase(port, command)
    spec = spec_of(port)
    asked = _asked(port, command)
    if (own := recovery.begins_with(port, spec)) is not None:
        return begin(port, command, spec, START, None, {**own, **asked})
    if port.layout.spec.exists() and not recovery.has_trained(port.layout):
        return start(port, command)
    run_spec.refuse_missing(asked)
    directory_of(port, with_settings(spec, asked))
    port.stage(command.id, "check", "looking for the newest clean checkpoint")
    changes = bool(asked or command.options.get("presets") or command.options.get("to"))
    newest, repair, epoch, note = newest_checkpoint(port, command, changes)
    if not (changes or repair):
        started = begin(port, command, spec, RESUME, newest, {}, after=epoch)
        return "; ".join(filter(None, [started, note]))
    port.stage(command.id, "rebase", "writing what a resume needs into it")
    wanted = replace(command, options={"to": Path(newest).name, **command.options, "set": asked})
    return _begin_after(port, wanted, act(port, wanted, "rollback"), probation_epochs=0)


def next_phase(port: CommandPort, command: Command) -> str:
    """Go on to the next phase of the plan, or to one that is appended; a refusal is shown as a failure."""
    spec_of(port)  # refuses here, with nothing done, what another user wrote
    try:
        asked = {**recovery.go_on(port, command), **_asked(port, command)}
        return begin(port, command, spec_of(port), START, None, asked)
    except UserError as error:
        text = f"the next phase could not begin: {error}"
        port.publish(state=FAILED_STATE, text=text)
        port.tell(FAILED_STATE, text)
        raise


def recover(port: CommandPort, command: Command) -> str:
    """Stop what runs, roll back, and continue: what the key R does."""
    begun, newer = newest(port.journal.events(), kinds.AttemptStarted), port.layout.newest_attempt()
    others = begun is None or begun.command != command.id
    if others and newer > command.options.get("attempt", newer):  # healthy, perhaps: nobody agreed to end it
        raise UserError(f"attempt {newer} has begun since this was planned; nothing was done", FAILED)
    refuse_gone(port.layout, str(command.options.get("to") or ""))  # before the training is stopped for it
    if port.watch is not None or command.options.get("foreign"):
        port.stage(command.id, "stop", "stopping the training")
        stop_run(port, command, at_once=False)
    else:
        refuse_while_running(port)
    await_place(port, command)
    leave_the_script(port, command)
    stay_automatic(port, command)
    run_spec.refuse_missing(_set_of(command))
    directory_of(port, with_settings(spec_of(port), _set_of(command)))  # refuses here, with nothing moved
    answer = rolled_back_before(port.journal.events(), command.id)
    if answer is None:
        edits = _asked(port, command)
        options = {**command.options, **({"set": edits} if edits else {})}
        options.setdefault("propose", not edits and "presets" not in options)
        if options.get("into"):
            port.stage(command.id, "branch", "making the new run from the restore point")
            answer = act(port, replace(command, options=options), "rollback")
            return continue_elsewhere(answer, command)
        answer = _roll_back_shown(port, replace(command, options=options))
    port.stage(command.id, "start", "starting the new attempt")
    text = _begin_after(port, command, answer, PROBATION_EPOCHS)
    port.tell(RECOVERED, text)
    return text


def rewind(port: CommandPort, command: Command) -> str:
    """Have the ranks go back in memory at one agreed step; nothing is stopped and no setting changes.

    Raises UserError where nothing trains, where they cannot, and where they do not answer in time.
    """
    watch = port.watch
    if watch is None or not watch.stepping():
        raise UserError("nothing trains here that has a memory to go back in: recover it with R", FAILED)
    request = port.layout.rewind_request(watch.attempt.attempt)
    watch.rewind = None
    write_json(request, {"id": command.id, "t": time.time(), "by": command.by})
    port.stage(command.id, "agree", "the ranks go back at the next batch boundary")
    until = time.monotonic() + REWIND_S + USUAL_STEPS * watch.usual_step_s()
    while port.worker_alive() and time.monotonic() < until:
        port.pump(POLL_S)
        if isinstance(watch.rewind, kinds.RewindDone):
            return watch.rewind.text
        if watch.rewind is not None:
            raise UserError(watch.rewind.text, FAILED)
    request.unlink(missing_ok=True)
    raise UserError("the ranks did not go back: none of them has come to the end of a batch", FAILED)


def quarantine(port: CommandPort, command: Command) -> str:
    """Change the list of images that are left out of the training, from the next start on."""
    layout, options = port.layout, command.options
    if options.get("undo"):
        return quarantine_undo(layout, command.by) or "quarantine: nothing to undo"
    images = [str(image) for image in options.get("images") or ()]
    added = quarantine_add(layout, images, str(options.get("why") or "as asked"), command.by)
    return f"quarantine: {count(len(added), 'image')} added, left out from the next start or resume on"


HANDLERS: dict[str, Callable[[CommandPort, Command], str]] = {
    "start": start, "stop": partial(stop_run, at_once=False), "kill": partial(stop_run, at_once=True),
    "rollback": rollback, "undo": undo, "resume": resume, "recover": recover, "rewind": rewind,
    "set": set_values, "quarantine": quarantine,
}  # fmt: skip


def begin(
    port: CommandPort, command: Command, spec: Spec, mode: str, checkpoint: str | None,
    asked: dict[str, object], probation_epochs: int = 0, after: int | None = None,
) -> str:  # fmt: skip
    """Start a new attempt; a fresh start trains with the edits, a resume has them in its checkpoint.

    Without a rollback before it, what it may overwrite `after` the epoch is copied first. Raises UserError
    where its GPUs or those copies have no room; what was asked for is then kept for the next start.
    """
    python = str(command.options.get("python") or spec.python)
    spec = replace(with_settings(spec, asked), python=python)
    write_spec(port.layout.spec, spec)
    cwd = directory_of(port, spec)
    gpus = admit(port, command, spec)
    if after is not None:
        port.stage(command.id, "keep", "copying what it may overwrite, for undo")
        act(port, replace(command, options={"epoch": after}), "keep")
    hosts = several(spec, port.pump)
    attempt = new_attempt(port.layout, spec, mode, checkpoint, asked, probation_epochs, gpus, **hosts)
    port.journal.append(
        "attempt_started", command=command.id, attempt=attempt.attempt, mode=mode, checkpoint=checkpoint,
        epoch=None, asked=asked, phase=attempt.phase,
    )  # fmt: skip
    port.begin(attempt, cwd)
    how = beginning_text(mode, checkpoint)
    if attempt.nnodes > 1:
        join = f"on the others: nantui join {port.layout.run}"
        return f"attempt {attempt.attempt} {how}: {port.hosts.text}, at {attempt.endpoint}; {join}"
    return f"attempt {attempt.attempt} started {how}"


def refuse_while_running(port: CommandPort) -> None:
    """Raise UserError while a worker lives."""
    if port.watch is not None:
        raise UserError(f"attempt {port.state.attempt} is still running: stop it first", FAILED)
    ours = made_by_us(port) or bool(port.layout.attempt_numbers())
    for training in find_foreign(port.layout.run):
        # That args.yaml is as young as a process says nothing where we have written it.
        if training.evidence == CERTAIN or not ours:
            raise UserError(f"still training here: {describe(training)}; stop it first", FAILED)
    if said := stray_words(port.layout.run):
        raise UserError(said, FAILED)


def newest_checkpoint(port: CommandPort, command: Command, changes: bool) -> tuple[str, bool, int, str]:
    """Return what `to_continue` says of the files as they are, or the checkpoint that is asked for."""
    if command.options.get("to"):
        return checkpoint_inside(port.layout, str(command.options["to"])), True, 0, ""
    asked: JsonObject = {"set": _asked(port, command)}
    asked |= {name: command.options[name] for name in ("python", "allow") if name in command.options}
    return to_continue(port.layout, act(port, replace(command, options=asked), "plan"), changes)


def checkpoint_inside(layout: RunLayout, name: str) -> str:
    """Return a checkpoint by its path inside the run. Raises UserError for one that lies elsewhere."""
    for path in (layout.weights / name, layout.run / name):
        if path.is_file() and path.resolve().is_relative_to(layout.run.resolve()):
            return str(path.resolve().relative_to(layout.run.resolve()))
    raise UserError(f"{name}: no such checkpoint inside {layout.run}", FAILED)


def _roll_back_shown(port: CommandPort, command: Command) -> JsonObject:
    """Roll back as `recovering`; a refusal leaves the state as it was."""
    before = port.state
    port.publish(state=RECOVERING)
    port.stage(command.id, "rollback", "going back to a clean checkpoint")
    try:
        return act(port, command, "rollback")
    except UserError:
        port.publish(state=before.state, text=before.text, since=before.since)
        raise


def _begin_after(port: CommandPort, command: Command, answer: JsonObject, probation_epochs: int) -> str:
    """Start the attempt after a rollback, which may have changed the spec."""
    mode = RESTART if command.options.get("force_restart") or answer.get("mode") == RESTART else RESUME
    checkpoint = None if mode == RESTART else str(answer.get("checkpoint") or "weights/last.pt")
    asked = {**dict(answer.get("asked") or {}), **_set_of(command)}
    started = begin(port, command, spec_of(port), mode, checkpoint, asked, probation_epochs)
    return "; ".join(filter(None, [str(answer.get("text") or ""), started]))


def _asked(port: CommandPort, command: Command) -> dict[str, object]:
    """Return the settings of the next attempt: what was edited since the last one, then the command's own."""
    return {**pending_edits(port.journal.events()), **_set_of(command)}


def _set_of(command: Command) -> dict[str, object]:
    values = command.options.get("set") or {}
    return dict(values) if isinstance(values, dict) else {}
