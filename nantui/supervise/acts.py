"""What each command does, as plain code over the keeper. Returns a line for people; a refusal is a
UserError.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from nantui.errors import FAILED, UserError
from nantui.run.edits import pending_edits
from nantui.run.journal import last
from nantui.run.layout import RunLayout
from nantui.run.quarantine import quarantine_add, quarantine_undo
from nantui.run.spec import Spec, with_settings, write_spec
from nantui.run.spool import Command
from nantui.run.status import FAILED as FAILED_STATE
from nantui.run.status import RECOVERING
from nantui.supervise import phases, stopping
from nantui.supervise.admission import admit
from nantui.supervise.carried import rolled_back_before
from nantui.supervise.evidence import CERTAIN
from nantui.supervise.foreign import find_foreign
from nantui.supervise.foreign_words import describe
from nantui.supervise.hosts.leading import several
from nantui.supervise.into import continue_elsewhere
from nantui.supervise.keeper import Keeper
from nantui.supervise.launch import RESTART, RESUME, START, cwd_of, new_attempt, way_in
from nantui.supervise.notify import RECOVERED
from nantui.supervise.specs import leave_the_script, spec_of, stay_automatic
from nantui.supervise.transactions import act

PROBATION_EPOCHS = 3


def start(keeper: Keeper, command: Command) -> str:
    """Train from the beginning, in a directory that holds no checkpoint yet."""
    refuse_while_running(keeper)
    spec = spec_of(keeper)
    if last(keeper.journal.entries(), "created") is None:
        cwd = command.options.get("cwd")
        keeper.journal.append("created", by=command.by, spec=spec.__dict__, cwd=cwd)
    if any(keeper.layout.weights.glob("*.pt")):
        raise UserError("this run has checkpoints already: resume it, or train under another name", FAILED)
    return begin(keeper, command, spec, START, None, _asked(keeper, command))


def stop(keeper: Keeper, command: Command) -> str:
    """Stop at an agreed step, checkpoint kept; escalates after the patience that is shown."""
    return stopping.stop(keeper, command, at_once=False)


def kill(keeper: Keeper, command: Command) -> str:
    """End every process of the run now."""
    return stopping.stop(keeper, command, at_once=True)


def set_values(keeper: Keeper, command: Command) -> str:
    """Keep edited settings for the next start."""
    values = _set_of(command)
    if not values:
        raise UserError("nothing to set")
    write_spec(keeper.layout.spec, with_settings(spec_of(keeper), values))
    return "kept for the next start: " + ", ".join(f"{name}={value}" for name, value in values.items())


def rollback(keeper: Keeper, command: Command) -> str:
    """Go back to a clean checkpoint; starts nothing."""
    refuse_while_running(keeper)
    return str(act(keeper, command, "rollback").get("text") or "rolled back")


def undo(keeper: Keeper, command: Command) -> str:
    """Take the last rollback back."""
    refuse_while_running(keeper)
    return str(act(keeper, command, "undo").get("text") or "undone")


def resume(keeper: Keeper, command: Command) -> str:
    """Continue from the newest checkpoint, with edited settings in effect. Refuses one that is not clean."""
    refuse_while_running(keeper)
    leave_the_script(keeper, command)
    if phases.waits(keeper, command):
        return next_phase(keeper, command)
    spec = spec_of(keeper)
    asked = _asked(keeper, command)
    if phases.begins(keeper, spec):
        return begin(keeper, command, spec, START, None, {**phases.settings_now(spec), **asked})
    keeper.stage(command.id, "check", "looking for the newest clean checkpoint")
    newest = newest_checkpoint(keeper, command)
    if not (asked or command.options.get("presets") or command.options.get("to")):
        return begin(keeper, command, spec, RESUME, newest, {})
    keeper.stage(command.id, "rebase", "writing the changed settings into it")
    wanted = replace(command, options={"to": Path(newest).name, **command.options, "set": asked})
    return _begin_after(keeper, wanted, act(keeper, wanted, "rollback"), probation_epochs=0)


def next_phase(keeper: Keeper, command: Command) -> str:
    """Go on to the next phase of the plan, or to one that is appended; a refusal is shown as a failure."""
    spec_of(keeper)  # refuses here, with nothing done, what another user wrote
    try:
        asked = {**phases.go_on(keeper, command), **_asked(keeper, command)}
        return begin(keeper, command, spec_of(keeper), START, None, asked)
    except UserError as error:
        text = f"the next phase could not begin: {error}"
        keeper.publish(state=FAILED_STATE, text=text)
        keeper.tell(FAILED_STATE, text)
        raise


def recover(keeper: Keeper, command: Command) -> str:
    """Stop what runs, roll back, and continue: what the key R does."""
    _stop_first(keeper, command)
    leave_the_script(keeper, command)
    stay_automatic(keeper, command)
    spec_of(keeper)  # refuses here, with nothing done, what says nowhere what to train
    answer = rolled_back_before(keeper.journal.entries(), command.id)
    if answer is None:
        edits = _asked(keeper, command)
        options = {**command.options, **({"set": edits} if edits else {})}
        options.setdefault("propose", not (edits or options.get("presets")))
        if options.get("into"):
            keeper.stage(command.id, "branch", "making the new run from the restore point")
            answer = act(keeper, replace(command, options=options), "rollback")
            return continue_elsewhere(answer, command)
        answer = _roll_back_shown(keeper, replace(command, options=options))
    keeper.stage(command.id, "start", "starting the new attempt")
    text = _begin_after(keeper, command, answer, PROBATION_EPOCHS)
    keeper.tell(RECOVERED, text)
    return text


def quarantine(keeper: Keeper, command: Command) -> str:
    """Change the list of images that are left out of the training, from the next start on."""
    layout, options = keeper.layout, command.options
    if options.get("undo"):
        return quarantine_undo(layout, command.by) or "quarantine: nothing to undo"
    images = [str(image) for image in options.get("images") or ()]
    added = quarantine_add(layout, images, str(options.get("why") or "as asked"), command.by)
    return f"quarantine: {len(added)} images added; they are left out from the next start or resume on"


HANDLERS: dict[str, Callable[[Keeper, Command], str]] = {
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
    keeper: Keeper,
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
    write_spec(keeper.layout.spec, spec)
    admit(keeper, command, spec)
    hosts = several(keeper, spec)
    attempt = new_attempt(keeper.layout, spec, mode, checkpoint, asked, probation_epochs, **hosts)
    keeper.journal.append(
        "attempt_started",
        command=command.id,
        attempt=attempt.attempt,
        mode=mode,
        checkpoint=checkpoint,
        epoch=None,
        asked=asked,
        phase=attempt.phase,
    )
    keeper.begin(attempt, cwd_of(keeper.journal.entries()))
    how = way_in(mode, checkpoint)
    if attempt.nnodes > 1:
        join = f"on the others: nantui join {keeper.layout.run}"
        return f"attempt {attempt.attempt} {how}: {keeper.hosts.text}, at {attempt.endpoint}; {join}"
    return f"attempt {attempt.attempt} started {how}"


def refuse_while_running(keeper: Keeper) -> None:
    """Raise UserError while a worker lives."""
    if keeper.watch is not None:
        raise UserError(f"attempt {keeper.state.attempt} is still running: stop it first", FAILED)
    ours = bool(keeper.layout.attempt_numbers())
    for training in find_foreign(keeper.layout.run):
        # That args.yaml is as young as a process says nothing where our own worker has written it.
        if training.evidence == CERTAIN or not ours:
            raise UserError(f"still training here: {describe(training)}; stop it first", FAILED)


def newest_checkpoint(keeper: Keeper, command: Command) -> str:
    """Return what to continue from: the newest of last.pt and what an agreed stop left, if it is clean.

    Raises UserError when there is nothing to continue from, or only a rollback leads to something clean.
    """
    if command.options.get("to"):
        return checkpoint_inside(keeper.layout, str(command.options["to"]))
    asked = {"set": _set_of(command), "python": command.options.get("python")}
    plan = act(keeper, replace(command, options=asked), "plan").get("plan") or {}
    point = plan.get("restore_point") or {}
    names = {keeper.layout.last.name, keeper.layout.stop_point.name}
    if point.get("name") in names:
        return f"{keeper.layout.weights.name}/{point['name']}"
    instead = f"the newest clean one is {point['name']}" if point else "nothing clean is left"
    raise UserError(f"last.pt cannot be continued from; {instead}: recover the run instead", FAILED)


def checkpoint_inside(layout: RunLayout, name: str) -> str:
    """Return a checkpoint by its path inside the run. Raises UserError for one that lies elsewhere."""
    for path in (layout.weights / name, layout.run / name):
        if path.is_file() and path.resolve().is_relative_to(layout.run.resolve()):
            return str(path.resolve().relative_to(layout.run.resolve()))
    raise UserError(f"{name}: no such checkpoint inside {layout.run}", FAILED)


def _stop_first(keeper: Keeper, command: Command) -> None:
    """End what trains here; a training that nantui did not start only with the word `foreign`."""
    if keeper.watch is not None or command.options.get("foreign"):
        keeper.stage(command.id, "stop", "stopping the training")
        stopping.stop(keeper, command, at_once=False)
    else:
        refuse_while_running(keeper)


def _roll_back_shown(keeper: Keeper, command: Command) -> dict[str, Any]:
    """Roll back as `recovering`; a refusal leaves the state as it was."""
    before = keeper.state
    keeper.publish(state=RECOVERING)
    keeper.stage(command.id, "rollback", "going back to a clean checkpoint")
    try:
        return act(keeper, command, "rollback")
    except UserError:
        keeper.publish(state=before.state, text=before.text, since=before.since)
        raise


def _begin_after(keeper: Keeper, command: Command, answer: dict[str, Any], probation_epochs: int) -> str:
    """Start the attempt after a rollback, which may have changed the spec."""
    mode = RESTART if command.options.get("force_restart") or answer.get("mode") == RESTART else RESUME
    checkpoint = None if mode == RESTART else str(answer.get("checkpoint") or "weights/last.pt")
    asked = {**dict(answer.get("asked") or {}), **_set_of(command)}
    started = begin(keeper, command, spec_of(keeper), mode, checkpoint, asked, probation_epochs)
    return "; ".join(filter(None, [str(answer.get("text") or ""), started]))


def _asked(keeper: Keeper, command: Command) -> dict[str, Any]:
    """Return the settings of the next attempt: what was edited since the last one, then the command's own."""
    return {**pending_edits(keeper.journal.entries()), **_set_of(command)}


def _set_of(command: Command) -> dict[str, Any]:
    values = command.options.get("set") or {}
    return dict(values) if isinstance(values, dict) else {}
