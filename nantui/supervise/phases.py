"""The phases of a plan under the supervisor: when one is finished, the next begins by itself.

It goes on with an ordinary `resume` command in the spool, so that it is journaled, shown, carried on after a
crash, and the same as what a person would ask for.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from nantui.errors import FAILED, UserError
from nantui.run import spool
from nantui.run.attempts import FINISHED
from nantui.run.journal import last
from nantui.run.phases import Phase, next_waits, phases_of, place_of, standing, with_phase
from nantui.run.spec import Spec, divided, read_spec, write_spec
from nantui.run.spool import Command
from nantui.supervise import spools
from nantui.supervise.keeper import Keeper
from nantui.supervise.specs import own_spec
from nantui.supervise.transactions import act

PLAN = "plan"
SINCE = ("attempt_ended", "command", "undo_done", "phase_begun")


def follow_up(keeper: Keeper) -> None:
    """Enqueue the next phase where the current one has just finished; done before anything else waits."""
    entries = keeper.journal.entries()
    newest = last(entries, *SINCE)
    if newest is None or newest["kind"] != "attempt_ended" or newest.get("outcome") != FINISHED:
        return
    try:
        spec = read_spec(keeper.layout.spec)
    except UserError as error:
        keeper.say(f"whether a phase follows cannot be told: {error}")
        return
    asked = any(command.kind == "resume" for _, command in spools.pending(keeper.layout))
    if spec is not None and not asked and next_waits(spec.plan, entries):
        spool.put(spools.spool_for(keeper.layout), Command("resume", {"wait_gpu": True}, by=PLAN))


def waits(keeper: Keeper, command: Command) -> bool:
    """Tell whether a resume means the next phase: the current one is finished, or one is to be appended.

    A person who names a checkpoint or remedies means the phase that is there.
    """
    if command.options.get("to") or command.options.get("presets"):
        return False
    spec = read_spec(keeper.layout.spec)
    return spec is not None and (
        bool(command.options.get("phase")) or next_waits(spec.plan, keeper.journal.entries())
    )


def go_on(keeper: Keeper, command: Command) -> dict[str, Any]:
    """Put the finished phase aside; returns the next one's settings. Raises UserError; nothing moved then."""
    if command.options.get("phase"):
        append(keeper, dict(command.options["phase"]))
    keeper.stage(command.id, "phase", "putting the finished phase aside")
    asking = Command("resume", {}, f"{command.id}-{uuid.uuid4().hex[:4]}", command.by)
    return dict(act(keeper, asking, "phase").get("asked") or {})


def append(keeper: Keeper, settings: dict[str, Any]) -> None:
    """Append a phase to a finished run. Raises UserError when the run is not at its end."""
    spec = own_spec(keeper.layout)
    place = place_of(spec.plan) if spec else None
    _, finished = standing(keeper.journal.entries())
    if spec is None or not finished or (place is not None and place.number < place.of):
        raise UserError("a phase can be appended once the training has finished", FAILED)
    text = ", ".join(f"{name}={value}" for name, value in settings.items())
    plan = with_phase(spec.plan, Phase(text, settings), divided(spec.train)[0], spec.ours)
    write_spec(keeper.layout.spec, replace(spec, plan=plan))


def begins(keeper: Keeper, spec: Spec) -> bool:
    """Tell whether the current phase has nothing yet to resume from: it then begins, or begins again."""
    place = place_of(spec.plan)
    left = {path.name for path in keeper.layout.weights.glob("*.pt")} - {keeper.layout.stop_point.name}
    return place is not None and place.number > 1 and not left and not keeper.layout.results_csv.exists()


def settings_now(spec: Spec) -> dict[str, Any]:
    """Return what the current phase asks for by itself."""
    place = place_of(spec.plan)
    return dict(phases_of(spec.plan)[place.number - 1].settings) if place else {}
