"""What each command does, as plain code over the supervisor. Returns a line for people; a refusal is a
UserError.

What an earlier supervisor had done of a command before it died: done once is done.

A command that is taken up again finds its rollback, or its attempt, in the journal; repeating it would stop
a training that has just begun to recover, or go back a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nantui.errors import FAILED, UserError
from nantui.run.commands import Command
from nantui.run.journal import Entry, last, pending_edits
from nantui.run.layout import RunLayout
from nantui.run.quarantine import quarantine_add, quarantine_undo
from nantui.run.spec import Spec, with_settings, write_spec
from nantui.run.status import FAILED as FAILED_STATE
from nantui.run.status import RECOVERING
from nantui.supervisor import after_attempt
from nantui.supervisor import stop as stopping
from nantui.supervisor.client import continue_elsewhere
from nantui.supervisor.foreign.find import CERTAIN, describe, find_foreign
from nantui.supervisor.gpu_wait import admit
from nantui.supervisor.hosts.leader import several
from nantui.supervisor.launch import RESTART, RESUME, START, cwd_of, new_attempt, way_in
from nantui.supervisor.notify import RECOVERED
from nantui.supervisor.recovery_helper import act
from nantui.supervisor.run_spec import leave_the_script, spec_of, stay_automatic
from nantui.supervisor.supervisor import Supervisor

PROBATION_EPOCHS = 3


def begun_before(supervisor: Supervisor, command: str) -> str:
    """Return what to say of the attempt that was started for a command, "" where none came to life.

    The journal is written before the process is made: an attempt without a process or a trace of one was not.
    """
    started = _attempt_of(supervisor.journal.entries(), command)
    if started is None:
        return ""
    number = int(started["attempt"])
    lives = supervisor.attempt is not None and supervisor.attempt.attempt == number
    if not lives and not supervisor.layout.ranks(number):
        return ""
    return f"attempt {number} started {way_in(str(started['mode']), started.get('checkpoint'))}"


def rolled_back_before(entries: list[Entry], command: str) -> dict[str, Any] | None:
    """Return the answer of a rollback that was finished for this command and not trained on, else None."""
    others = (entry for entry in entries if entry.get("command") != command)
    done = last(others, "rollback_done", "attempt_started")
    begun = last((entry for entry in entries if entry.get("id") == command), "rollback_begun")
    if done is None or begun is None or done["kind"] != "rollback_done" or done.get("id") != command:
        return None
    asked = {row["name"]: row["then"] for row in begun.get("settings") or [] if not row.get("kept")}
    return {"mode": begun.get("mode"), "asked": asked, "text": begun.get("text")}


def _attempt_of(entries: list[Entry], command: str) -> Mapping[str, Any] | None:
    return last((entry for entry in entries if entry.get("command") == command), "attempt_started")


def start(supervisor: Supervisor, command: Command) -> str:
    """Train from the beginning, in a directory that holds no checkpoint yet."""
    refuse_while_running(supervisor)
    spec = spec_of(supervisor)
    if last(supervisor.journal.entries(), "created") is None:
        cwd = command.options.get("cwd")
        supervisor.journal.append("created", by=command.by, spec=spec.__dict__, cwd=cwd)
    if any(supervisor.layout.weights.glob("*.pt")):
        raise UserError("this run has checkpoints already: resume it, or train under another name", FAILED)
    return begin(supervisor, command, spec, START, None, _asked(supervisor, command))


def stop(supervisor: Supervisor, command: Command) -> str:
    """Stop at an agreed step, checkpoint kept; escalates after the patience that is shown."""
    return stopping.stop(supervisor, command, at_once=False)


def kill(supervisor: Supervisor, command: Command) -> str:
    """End every process of the run now."""
    return stopping.stop(supervisor, command, at_once=True)


def set_values(supervisor: Supervisor, command: Command) -> str:
    """Keep edited settings for the next start."""
    values = _set_of(command)
    if not values:
        raise UserError("nothing to set")
    write_spec(supervisor.layout.spec, with_settings(spec_of(supervisor), values))
    return "kept for the next start: " + ", ".join(f"{name}={value}" for name, value in values.items())


def rollback(supervisor: Supervisor, command: Command) -> str:
    """Go back to a clean checkpoint; starts nothing."""
    refuse_while_running(supervisor)
    return str(act(supervisor, command, "rollback").get("text") or "rolled back")


def undo(supervisor: Supervisor, command: Command) -> str:
    """Take the last rollback back."""
    refuse_while_running(supervisor)
    return str(act(supervisor, command, "undo").get("text") or "undone")


def resume(supervisor: Supervisor, command: Command) -> str:
    """Continue from the newest checkpoint, with edited settings in effect. Refuses one that is not clean."""
    refuse_while_running(supervisor)
    leave_the_script(supervisor, command)
    if after_attempt.waits(supervisor, command):
        return next_phase(supervisor, command)
    spec = spec_of(supervisor)
    asked = _asked(supervisor, command)
    if after_attempt.begins(supervisor, spec):
        return begin(supervisor, command, spec, START, None, {**after_attempt.settings_now(spec), **asked})
    supervisor.stage(command.id, "check", "looking for the newest clean checkpoint")
    newest = newest_checkpoint(supervisor, command)
    if not (asked or command.options.get("presets") or command.options.get("to")):
        return begin(supervisor, command, spec, RESUME, newest, {})
    supervisor.stage(command.id, "rebase", "writing the changed settings into it")
    wanted = replace(command, options={"to": Path(newest).name, **command.options, "set": asked})
    return _begin_after(supervisor, wanted, act(supervisor, wanted, "rollback"), probation_epochs=0)


def next_phase(supervisor: Supervisor, command: Command) -> str:
    """Go on to the next phase of the plan, or to one that is appended; a refusal is shown as a failure."""
    spec_of(supervisor)  # refuses here, with nothing done, what another user wrote
    try:
        asked = {**after_attempt.go_on(supervisor, command), **_asked(supervisor, command)}
        return begin(supervisor, command, spec_of(supervisor), START, None, asked)
    except UserError as error:
        text = f"the next phase could not begin: {error}"
        supervisor.publish(state=FAILED_STATE, text=text)
        supervisor.tell(FAILED_STATE, text)
        raise


def recover(supervisor: Supervisor, command: Command) -> str:
    """Stop what runs, roll back, and continue: what the key R does."""
    _stop_first(supervisor, command)
    leave_the_script(supervisor, command)
    stay_automatic(supervisor, command)
    spec_of(supervisor)  # refuses here, with nothing done, what says nowhere what to train
    answer = rolled_back_before(supervisor.journal.entries(), command.id)
    if answer is None:
        edits = _asked(supervisor, command)
        options = {**command.options, **({"set": edits} if edits else {})}
        options.setdefault("propose", not (edits or options.get("presets")))
        if options.get("into"):
            supervisor.stage(command.id, "branch", "making the new run from the restore point")
            answer = act(supervisor, replace(command, options=options), "rollback")
            return continue_elsewhere(answer, command)
        answer = _roll_back_shown(supervisor, replace(command, options=options))
    supervisor.stage(command.id, "start", "starting the new attempt")
    text = _begin_after(supervisor, command, answer, PROBATION_EPOCHS)
    supervisor.tell(RECOVERED, text)
    return text


def quarantine(supervisor: Supervisor, command: Command) -> str:
    """Change the list of images that are left out of the training, from the next start on."""
    layout, options = supervisor.layout, command.options
    if options.get("undo"):
        return quarantine_undo(layout, command.by) or "quarantine: nothing to undo"
    images = [str(image) for image in options.get("images") or ()]
    added = quarantine_add(layout, images, str(options.get("why") or "as asked"), command.by)
    return f"quarantine: {len(added)} images added; they are left out from the next start or resume on"


HANDLERS: dict[str, Callable[[Supervisor, Command], str]] = {
    "start": start,
    "stop": stop,
    "kill": kill,
    "rollback": rollback,
    "undo": undo,
    "resume": resume,
    "recover": recover,
    "set": set_values,
    "quarantine": quarantine,
}


def begin(
    supervisor: Supervisor,
    command: Command,
    spec: Spec,
    mode: str,
    checkpoint: str | None,
    asked: dict[str, Any],
    probation_epochs: int = 0,
) -> str:
    """Start a new attempt; a fresh start trains with the edits, a resume has them in its checkpoint.

    Raises UserError where its GPUs have no room; what was asked for is then kept for the next start.
    """
    python = str(command.options.get("python") or spec.python)
    spec = replace(with_settings(spec, asked), python=python)
    write_spec(supervisor.layout.spec, spec)
    admit(supervisor, command, spec)
    hosts = several(supervisor, spec)
    attempt = new_attempt(supervisor.layout, spec, mode, checkpoint, asked, probation_epochs, **hosts)
    supervisor.journal.append(
        "attempt_started",
        command=command.id,
        attempt=attempt.attempt,
        mode=mode,
        checkpoint=checkpoint,
        epoch=None,
        asked=asked,
        phase=attempt.phase,
    )
    supervisor.begin(attempt, cwd_of(supervisor.journal.entries()))
    how = way_in(mode, checkpoint)
    if attempt.nnodes > 1:
        join = f"on the others: nantui join {supervisor.layout.run}"
        return f"attempt {attempt.attempt} {how}: {supervisor.hosts.text}, at {attempt.endpoint}; {join}"
    return f"attempt {attempt.attempt} started {how}"


def refuse_while_running(supervisor: Supervisor) -> None:
    """Raise UserError while a worker lives."""
    if supervisor.watch is not None:
        raise UserError(f"attempt {supervisor.state.attempt} is still running: stop it first", FAILED)
    ours = bool(supervisor.layout.attempt_numbers())
    for training in find_foreign(supervisor.layout.run):
        # That args.yaml is as young as a process says nothing where our own worker has written it.
        if training.evidence == CERTAIN or not ours:
            raise UserError(f"still training here: {describe(training)}; stop it first", FAILED)


def newest_checkpoint(supervisor: Supervisor, command: Command) -> str:
    """Return what to continue from: the newest of last.pt and what an agreed stop left, if it is clean.

    Raises UserError when there is nothing to continue from, or only a rollback leads to something clean.
    """
    if command.options.get("to"):
        return checkpoint_inside(supervisor.layout, str(command.options["to"]))
    asked = {"set": _set_of(command), "python": command.options.get("python")}
    plan = act(supervisor, replace(command, options=asked), "plan").get("plan") or {}
    point = plan.get("restore_point") or {}
    names = {supervisor.layout.last.name, supervisor.layout.stop_point.name}
    if point.get("name") in names:
        return f"{supervisor.layout.weights.name}/{point['name']}"
    instead = f"the newest clean one is {point['name']}" if point else "nothing clean is left"
    raise UserError(f"last.pt cannot be continued from; {instead}: recover the run instead", FAILED)


def checkpoint_inside(layout: RunLayout, name: str) -> str:
    """Return a checkpoint by its path inside the run. Raises UserError for one that lies elsewhere."""
    for path in (layout.weights / name, layout.run / name):
        if path.is_file() and path.resolve().is_relative_to(layout.run.resolve()):
            return str(path.resolve().relative_to(layout.run.resolve()))
    raise UserError(f"{name}: no such checkpoint inside {layout.run}", FAILED)


def _stop_first(supervisor: Supervisor, command: Command) -> None:
    """End what trains here; a training that nantui did not start only with the word `foreign`."""
    if supervisor.watch is not None or command.options.get("foreign"):
        supervisor.stage(command.id, "stop", "stopping the training")
        stopping.stop(supervisor, command, at_once=False)
    else:
        refuse_while_running(supervisor)


def _roll_back_shown(supervisor: Supervisor, command: Command) -> dict[str, Any]:
    """Roll back as `recovering`; a refusal leaves the state as it was."""
    before = supervisor.state
    supervisor.publish(state=RECOVERING)
    supervisor.stage(command.id, "rollback", "going back to a clean checkpoint")
    try:
        return act(supervisor, command, "rollback")
    except UserError:
        supervisor.publish(state=before.state, text=before.text, since=before.since)
        raise


def _begin_after(
    supervisor: Supervisor, command: Command, answer: dict[str, Any], probation_epochs: int
) -> str:
    """Start the attempt after a rollback, which may have changed the spec."""
    mode = RESTART if command.options.get("force_restart") or answer.get("mode") == RESTART else RESUME
    checkpoint = None if mode == RESTART else str(answer.get("checkpoint") or "weights/last.pt")
    asked = {**dict(answer.get("asked") or {}), **_set_of(command)}
    started = begin(supervisor, command, spec_of(supervisor), mode, checkpoint, asked, probation_epochs)
    return "; ".join(filter(None, [str(answer.get("text") or ""), started]))


def _asked(supervisor: Supervisor, command: Command) -> dict[str, Any]:
    """Return the settings of the next attempt: what was edited since the last one, then the command's own."""
    return {**pending_edits(supervisor.journal.entries()), **_set_of(command)}


def _set_of(command: Command) -> dict[str, Any]:
    values = command.options.get("set") or {}
    return dict(values) if isinstance(values, dict) else {}
