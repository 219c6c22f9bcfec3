"""What is asked of recovery: its transactions, each in a helper process, and what follows when an attempt has
ended: the plan's next phase, or a recovery that nobody has to ask for.

Either becomes an ordinary command in the spool, so that it is journaled, shown, carried on after a crash,
and the same as what a person would ask for. Whether to recover unattended is recovery's own decision
(`nantui.recovery.unattended_policy`, asked in a helper process): what the ladder says, bounded by it.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from nantui.errors import FAILED, UserError
from nantui.machine.training_python import training_python
from nantui.machine.waiting_process import ASKED_THROUGH
from nantui.run import commands
from nantui.run import events as kinds
from nantui.run.attempts import DIVERGED, FINISHED
from nantui.run.attempts import FAILED as FAILED_OUTCOME
from nantui.run.commands import POLICY, Command, spool_for
from nantui.run.documents import JsonObject
from nantui.run.endings import PREEMPTED
from nantui.run.events import newest
from nantui.run.journal import is_being_done
from nantui.run.layout import RunLayout
from nantui.run.plan import PlanPhase, next_waits, phases_of, place_of, standing, with_phase
from nantui.run.spec import Spec, divided, read_spec, write_spec
from nantui.run.status import LOST
from nantui.supervisor.gpu_admission import await_place
from nantui.supervisor.helper_process import ACT, helper
from nantui.supervisor.outcome import Ending
from nantui.supervisor.ports import RunPort
from nantui.supervisor.run_spec import own_spec
from nantui.terminal_text import printable

PLAN, REPAIR = "plan", "repair"
ROOM_TO_WRITE = 1 << 20
RECOVER, RESUME, NOTHING = "recover", "resume", "nothing"


def act(port: RunPort, command: Command, action: str) -> JsonObject:
    """Run one transaction of recovery in a helper process. Raises UserError with its refusal."""
    spec = own_spec(port.layout)
    python = training_python(str(command.options.get("python") or ""), spec.python if spec else None)
    own = {"action": action, "run": str(port.layout.run), "id": command.id, "by": command.by}
    request, through = {**command.options, **own, "python": python}, dict[str, Any]()
    if port.waiting is not None and port.waiting.argv[0] == python:
        number = port.waiting.asked.fileno()
        through = {"variables": {ASKED_THROUGH: str(number)}, "passed": (number,)}
    try:
        answer = helper(ACT, request, python=python, pump=port.pump, started=port.start_helper, **through)
    except UserError as error:
        # It died, out of memory perhaps, and may have left the run half rolled back.
        if action == REPAIR or not (repaired := repair(port, died=True)):
            raise
        raise UserError(f"{error}; {repaired}", FAILED) from None
    if not answer.get("ok"):
        raise UserError(printable(answer.get("error") or answer.get("text") or "refused"), FAILED)
    if notes := "; ".join(map(printable, answer.get("notes") or ())):
        port.journal.append("note", by=command.by, text=notes)
    return answer


def repair(port: RunPort, died: bool = False) -> str:
    """Finish or undo a rollback that a crash interrupted; returns a line, empty when there was none.

    One that an earlier supervisor's helper still carries out is waited for. Of a helper that `died` before it
    had begun, copies as large as checkpoints may lie beside the run's files: they are removed.
    """
    latest = newest(port.journal.events(), *kinds.TRANSACTION_BEGINS, *kinds.TRANSACTION_ENDS)
    open_id = latest.id if isinstance(latest, kinds.TRANSACTION_BEGINS) else ""
    if not died and not open_id and not is_being_done(port.layout):
        return ""
    return str(act(port, Command("rollback", {}, open_id, "supervisor"), REPAIR).get("text") or "")


def follow_up(port: RunPort) -> None:
    """Enqueue the next phase where the current one has just finished; done before anything else waits."""
    events = port.journal.events()
    latest = newest(events, kinds.AttemptEnded, kinds.CommandReceived, kinds.UndoDone, kinds.PhaseBegun)
    if not isinstance(latest, kinds.AttemptEnded) or latest.outcome != FINISHED:
        return
    try:
        spec = read_spec(port.layout.spec)
    except UserError as error:
        port.say(f"whether a phase follows cannot be told: {error}")
        return
    asked = any(command.kind == "resume" for _, command in commands.pending_commands(port.layout))
    if spec is not None and not asked and next_waits(spec.plan, events):
        commands.put(spool_for(port.layout), Command("resume", {"wait_gpu": True}, by=PLAN))


def waits(port: RunPort, command: Command) -> bool:
    """Tell whether a resume means the next phase: the current one is finished, or one is to be appended. A
    person who names a checkpoint or remedies means the phase that is there.
    """
    if command.options.get("to") or command.options.get("presets"):
        return False
    spec = read_spec(port.layout.spec)
    return spec is not None and (
        bool(command.options.get("phase")) or next_waits(spec.plan, port.journal.events())
    )


def go_on(port: RunPort, command: Command) -> dict[str, object]:
    """Put the finished phase aside, and append another where that is asked for; returns the settings of the
    next. Raises UserError; nothing moved then.
    """
    if settings := dict(command.options.get("phase") or {}):
        spec = own_spec(port.layout)
        place = place_of(spec.plan) if spec else None
        _, finished = standing(port.journal.events())
        if spec is None or not finished or (place is not None and place.number < place.of):
            raise UserError("a phase can be appended once the training has finished", FAILED)
        text = ", ".join(f"{name}={value}" for name, value in settings.items())
        plan = with_phase(spec.plan, PlanPhase(text, settings), divided(spec.train)[0], spec.ours)
        write_spec(port.layout.spec, replace(spec, plan=plan))
    port.stage(command.id, "phase", "putting the finished phase aside")
    asking = Command("resume", {}, f"{command.id}-{uuid.uuid4().hex[:4]}", command.by)
    return dict(act(port, asking, "phase").get("asked") or {})


def begins_with(port: RunPort, spec: Spec) -> dict[str, object] | None:
    """Return what the current phase asks for by itself, where it has nothing yet to resume from: it then
    begins, or begins again. Else None.
    """
    place = place_of(spec.plan)
    left = {path.name for path in port.layout.weights.glob("*.pt")} - {port.layout.stop_point.name}
    if place is None or place.number < 2 or left or port.layout.results_csv.exists():
        return None
    return dict(phases_of(spec.plan)[place.number - 1].settings)


def has_trained(layout: RunLayout) -> bool:
    """Tell whether anything is kept that a resume could go on from: it may have ended before that."""
    return any((layout.results_csv.exists(), *layout.weights.glob("*.pt"), *layout.points.glob("*.pt")))


def to_continue(layout: RunLayout, answer: JsonObject, changes: bool) -> tuple[str, bool, int, str]:
    """Return what to continue from, the newest of last.pt, what an agreed stop left, and step points, if it
    is clean; whether it must be repaired before anything may resume from it; its last whole epoch, from 1;
    and what is to be said. `answer` is recovery's plan. Where something `changes` it is a rollback that
    continues, and names a step point.

    Raises UserError when there is nothing to continue from, only a rollback leads to something clean, or the
    training has ended by itself and nothing `changes`: Ultralytics would begin another one in its place.
    """
    plan, left_out = answer.get("plan") or {}, "; ".join(answer.get("notes") or ())
    if at := answer.get("step_point"):
        begins = f"it goes on in epoch {at['epoch']} after step {at['batch']} of {at['batches']}"
        name = str(at["label"] if changes else at["path"])
        return name, False, int(at["epoch"]) - 1, "; ".join(filter(None, [begins, left_out]))
    point = plan.get("restore_point") or {}
    usable = [one for one in plan.get("candidates") or () if one["usable"]]
    if point.get("step_point"):
        point = next((one for one in usable if not one["step_point"]), {})
    names = {layout.last.name, layout.stop_point.name}
    if point and point.get("name") not in names:
        # A kill between the renames of one save leaves last.pt an epoch behind: it is renamed last
        # (worker/checkpoints/save.py), so that the epoch counts as saved once all of it is.
        last = next((one for one in usable if one["name"] == "last.pt"), None)
        point = last if last and last["work"] == (point.get("work") or 0) - 1 else point
    if point.get("revive") and not changes:
        ended = f"the training has ended by itself after epoch {point.get('work')}"
        raise UserError(f"{ended}; to go on: nantui resume RUN --set patience=0, or more epochs=", FAILED)
    if point.get("name") in names:
        name = f"{layout.weights.name}/{point['name']}"
        return name, bool(point.get("repair")), int(point.get("work") or 0), left_out
    instead = f"the newest clean one is {point['name']}" if point else "nothing clean is left"
    raise UserError(
        f"last.pt cannot be continued from; {instead}: recover the run instead{left_out and '; '}{left_out}",
        FAILED,
    )


def recover_unattended(port: RunPort, ending: Ending) -> bool:
    """Enqueue what the policy decides where the run may go on unattended, and no person has ended it; a
    refusal is giving up. Tells whether it withdrew: the end is left to what somebody has asked for.
    """
    ended = ending.outcome in {DIVERGED, FAILED_OUTCOME, FINISHED, LOST} or ending.cause.kind == PREEMPTED
    if not ended or not is_automatic(port):
        return False
    if waiting := commands.pending_commands(port.layout):
        return all(command.by != POLICY for _, command in waiting)
    if ending.outcome != FINISHED:
        port.bring_up()
    try:
        decision = act(port, Command("recover", {}, uuid.uuid4().hex, POLICY), "next")
        return _follow(port, ending.outcome, decision)
    except UserError as error:
        give_up(port, ending.outcome, str(error))
        return False


def is_automatic(port: RunPort) -> bool:
    """Tell whether the run may go on unattended; one whose spec cannot be read may not."""
    try:
        spec = read_spec(port.layout.spec)
    except UserError:
        return False
    return spec is not None and spec.auto


def _follow(port: RunPort, outcome: str, decision: JsonObject) -> bool:
    """Do as was decided; tells whether it was withdrawn."""
    why, action = str(decision.get("why") or decision.get("text") or ""), decision.get("action")
    if action in (RECOVER, RESUME):
        # Nobody is there to start it again once the GPU is free: it waits by itself.
        own = {"images": list(decision.get("images") or ()), "wait_gpu": True}
        options = {**(decision.get("options") or {}), **own}
        evidence = {"evidence": decision["evidence"]} if decision.get("evidence") else {}
        command = Command(str(action), options, by=POLICY)
        room = {"until_free": max(int(options.get("until_free") or 0), ROOM_TO_WRITE)}
        # On a full disk neither journal nor spool can be written.
        await_place(port, replace(command, options={"thin": options.get("thin"), **room}))
        if commands.pending_commands(port.layout):  # it would end what a person has begun meanwhile
            return True
        port.journal.append("note", by=POLICY, text=f"unattended: {why}", **evidence)
        commands.put(spool_for(port.layout), command)
    elif action != NOTHING:
        give_up(port, outcome, why)
    return False


def give_up(port: RunPort, outcome: str, why: str) -> None:
    """Say that nothing is done, and why; a training that has finished stays finished."""
    finished = outcome == FINISHED
    text = f"finished, but {why}" if finished else f"unattended recovery gave up: {why}; everything is kept"
    port.journal.append("note", by=POLICY, text=text)
    port.publish(text=text)
    port.tell(FINISHED if finished else DIVERGED, text)
