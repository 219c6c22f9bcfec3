"""One action of recovery in a process of its own: `python -m nantui.recovery REQUEST.json`.

Started by the supervisor, which must not import what a scan of checkpoints needs, in the interpreter that
trains. The request is {"action", "run", "id", "by", "to", "set", "presets", "force_restart", "allow", "into",
"images", "epoch"}, with actions `plan`, `rollback`, `undo`, `keep` (copies for undo before a plain resume),
`phase` (on to the plan's next phase), `repair` (finish or take back what a crash left half done) and `next`
(what the ladder would do after an attempt ended badly).
One JSON answer on stdout, {"ok", "text" or "error", …}; exit status as every command's.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from nantui.errors import FAILED, USAGE, UserError
from nantui.machine.training_python import training_python
from nantui.recovery.branch import branch, new_place
from nantui.recovery.phase_change import advance, just_begun
from nantui.recovery.plan import Plan, make_plan
from nantui.recovery.resume_point import point_to_resume
from nantui.recovery.rollback import roll_back, verify
from nantui.recovery.transaction import pending, settle
from nantui.recovery.unattended_policy import decide
from nantui.recovery.undo import keep_for_undo, undo
from nantui.run.atomic_files import to_json
from nantui.run.discovery import require_run
from nantui.run.documents import JsonObject
from nantui.run.inside import refuse_links
from nantui.run.journal import Journal, author, rolled_back_before
from nantui.run.layout import RunLayout
from nantui.run.quarantine import quarantine_add
from nantui.run.sole_doer import sole_doer

Request = JsonObject


def plan_for(request: Request) -> Plan:
    """Return the plan that a request means. Raises UserError as `make_plan` does."""
    return make_plan(
        Path(request["run"]),
        request.get("to"),
        dict(request.get("set") or {}),
        request.get("presets") or None,
        propose=bool(request.get("propose")),
        restart=bool(request.get("force_restart")),
        python=request.get("python"),
        allow=tuple(request.get("allow") or ()),
        id=str(request.get("id") or ""),
    )


def act_plan(request: Request) -> JsonObject:
    """Say what would be done, once every byte of what a resume may start from was looked at."""
    plan = plan_for(request)
    layout, allow = RunLayout(plan.run), frozenset(request.get("allow") or ())
    whole = [one for one in plan.candidates if one.usable and one.point is None]
    for one in whole:
        if one is whole[0] or one.name == layout.last.name:
            verify(layout, replace(plan, restore=one), allow)
    point, left_out = point_to_resume(plan.run, plan.candidates)
    return {
        "text": plan.headline,
        "plan": plan.to_json(),
        "step_point": {**asdict(point), "path": point.path, "label": point.label} if point else None,
        "notes": list(left_out),
    }


def act_rollback(request: Request) -> JsonObject:
    """Go back, an interrupted transaction put right first; or into a new run, the old one untouched."""
    layout = require_run(Path(request["run"]))
    python = training_python(str(request.get("python") or ""))
    allow, images = tuple(request.get("allow") or ()), tuple(request.get("images") or ())
    if request.get("into"):
        name = str(request["into"])
        new_place(layout.run, name)
        refuse_unsettled(layout)
        return asdict(branch(plan_for(request), name, by=_by(request), python=python, allow=allow))
    settle(layout, by=_by(request))
    if done := rolled_back_before(Journal(layout.journal).events(), str(request.get("id") or "")):
        return done  # by a helper whose supervisor did not live to hear of it
    leave_out(layout, images, _by(request))
    return asdict(roll_back(plan_for(request), by=_by(request), python=python, allow=allow, images=images))


def refuse_unsettled(layout: RunLayout) -> None:
    """Raise UserError where a crash left a rollback half done: putting it right would touch the run."""
    if pending(layout) is not None:
        name = layout.run.name
        raise UserError(f"{name}: a rollback was interrupted; `nantui stop` puts it right first", FAILED)


def leave_out(layout: RunLayout, images: Sequence[str], by: str) -> None:
    """Put images on the run's quarantine list. Raises UserError when it cannot."""
    try:
        quarantine_add(layout, images, "recovery", by)
    except OSError as error:
        raise UserError(f"the images could not be left out ({error}); nothing was done", FAILED) from None


def act_next(request: Request) -> JsonObject:
    """Say what the ladder would do now: {"action": "recover" | "give up" | "tell" | "nothing", …}."""
    decision = decide(Path(request["run"]))
    return {**asdict(decision), "text": decision.why}


def act_undo(request: Request) -> JsonObject:
    """Take the last rollback back; an interrupted transaction is put right first."""
    layout = require_run(Path(request["run"]))
    settle(layout, by=_by(request))
    return asdict(undo(layout, by=_by(request), asked=str(request.get("id") or "")))


def act_keep(request: Request) -> JsonObject:
    """Copy what a resume may overwrite, so that undo knows it."""
    layout = RunLayout(Path(request["run"]))
    keep_for_undo(layout, int(request["epoch"]), id=str(request["id"]), by=_by(request))
    return {"text": "kept"}


def act_phase(request: Request) -> JsonObject:
    """Go on to the next phase of the run's plan; an interrupted transaction is put right first."""
    layout = require_run(Path(request["run"]))
    settle(layout, by=_by(request))
    if done := just_begun(layout):
        return asdict(done)
    return asdict(advance(layout, id=str(request["id"]), by=_by(request)))


def act_repair(request: Request) -> JsonObject:
    """Finish or take back what a crash left half done."""
    return {"text": settle(require_run(Path(request["run"])), by=_by(request))}


ACTIONS: dict[str, Callable[[Request], JsonObject]] = {
    "plan": act_plan,
    "next": act_next,
    "rollback": act_rollback,
    "undo": act_undo,
    "keep": act_keep,
    "phase": act_phase,
    "repair": act_repair,
}
MOVING = frozenset({"rollback", "undo", "phase", "repair"})


def _alone(request: Request) -> contextlib.AbstractContextManager[None]:
    """Return what keeps others away while files move; `into` another run touches nothing of this one."""
    moves = request["action"] in MOVING and not request.get("into")
    return sole_doer(require_run(Path(request["run"]))) if moves else contextlib.nullcontext()


def _by(request: Request) -> str:
    return str(request.get("by") or author())


def main(arguments: list[str]) -> int:
    """Carry out one request; returns the exit status."""
    try:
        request = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
        action = ACTIONS[request["action"]]
    except (OSError, ValueError, KeyError, IndexError) as error:
        print(to_json({"ok": False, "error": f"no such request: {error}", "status": USAGE}))
        return USAGE
    try:
        if request["action"] not in ("plan", "next"):
            refuse_links(RunLayout(Path(request["run"])))
        with _alone(request):
            answer = action(request)
    except UserError as error:
        print(to_json({"ok": False, "error": str(error), "status": error.status}))
        return error.status
    except OSError as error:
        print(to_json({"ok": False, "error": f"{error}; nothing was changed", "status": FAILED}))
        return FAILED
    print(to_json({"ok": True, **answer}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
