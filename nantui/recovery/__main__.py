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
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from nantui.errors import FAILED, USAGE, UserError
from nantui.machine.training_python import training_python
from nantui.recovery.phase_change import advance, just_begun
from nantui.recovery.plan import Plan, make_plan
from nantui.recovery.restore_points import choose, point_to_resume
from nantui.recovery.rollback import branch, roll_back, verify
from nantui.recovery.transaction import LEFT_OUT, pending, settle
from nantui.recovery.unattended_policy import decide
from nantui.recovery.undo import keep_for_undo, undo
from nantui.run.atomic_files import to_json
from nantui.run.documents import JsonObject
from nantui.run.inside import refuse_links
from nantui.run.journal import Journal, author, rolled_back_before, sole_doer
from nantui.run.layout import RunLayout, require_run
from nantui.run.quarantine import quarantine_undo, quarantined


def plan_for(request: JsonObject) -> Plan:
    """Return the plan that a request means. Raises UserError as `make_plan` does."""
    return make_plan(
        Path(request["run"]), request.get("to"), dict(request.get("set") or {}),
        request.get("presets") or None, propose=bool(request.get("propose")),
        restart=bool(request.get("force_restart")), python=request.get("python"),
        allow=tuple(request.get("allow") or ()), id=str(request.get("id") or ""),
    )  # fmt: skip


def act_plan(request: JsonObject) -> JsonObject:
    """Say what would be done, once every byte of what a resume may start from was looked at."""
    plan = plan_for(request)
    newest = choose(plan.candidates)  # a judgement moves what is proposed to a person, no resume
    layout, allow = RunLayout(plan.run), frozenset(request.get("allow") or ())
    whole = [one for one in plan.candidates if one.usable and one.point is None]
    for one in whole:
        if one is whole[0] or one.name == layout.last.name:
            verify(layout, one, allow)
    point, left_out = point_to_resume(plan.run, plan.candidates)
    return {
        "text": plan.headline,
        "plan": {**plan.to_json(), "restore_point": newest.to_json() if newest else None},
        "step_point": {**asdict(point), "path": point.path, "label": point.label} if point else None,
        "notes": list(left_out),
    }


def act_rollback(request: JsonObject) -> JsonObject:
    """Go back; or into a new run, the old one untouched."""
    layout, by = require_run(Path(request["run"])), _by(request)
    python = training_python(str(request.get("python") or ""))
    allow, images = tuple(request.get("allow") or ()), tuple(request.get("images") or ())
    how: dict[str, Any] = {"by": by, "python": python, "allow": allow, "images": images}
    if request.get("into"):
        if pending(layout) is not None:  # putting it right would touch the run
            said = "a rollback was interrupted; `nantui stop` puts it right first"
            raise UserError(f"{layout.run.name}: {said}", FAILED)
        return asdict(branch(plan_for(request), str(request["into"]), **how))
    if done := rolled_back_before(Journal(layout.journal).events(), str(request.get("id") or "")):
        return done  # by a helper whose supervisor did not live to hear of it
    quarantined(layout)  # where it cannot be read nothing could be started: no file moves for that
    return asdict(roll_back(plan_for(request), **how))


def act_next(request: JsonObject) -> JsonObject:
    """Say what the ladder would do now: {"action": "recover" | "give up" | "tell" | "nothing", …}."""
    decision = decide(Path(request["run"]))
    return {**asdict(decision), "text": decision.why}


def act_undo(request: JsonObject) -> JsonObject:
    """Take back the last that can be, and the images that it left out, unless their list has changed."""
    layout = RunLayout(Path(request["run"]))
    done = undo(layout, by=_by(request), asked=str(request.get("id") or ""), shown=request.get("of"))
    try:
        quarantine_undo(layout, _by(request), LEFT_OUT.format(done.of))
    except OSError as error:  # no failure: whoever asked again would take back the rollback before, too
        done = replace(done, text=f"{done.text}; its images are still on {layout.quarantine} ({error})")
    return asdict(done)


def act_keep(request: JsonObject) -> JsonObject:
    """Copy what a resume may overwrite, so that undo knows it."""
    layout = RunLayout(Path(request["run"]))
    keep_for_undo(layout, int(request["epoch"]), id=str(request["id"]), by=_by(request))
    return {"text": "kept"}


def act_phase(request: JsonObject) -> JsonObject:
    """Go on to the next phase of the run's plan."""
    layout = RunLayout(Path(request["run"]))
    if done := just_begun(layout):
        return asdict(done)
    return asdict(advance(layout, id=str(request["id"]), by=_by(request)))


ACTIONS: dict[str, Callable[[JsonObject], JsonObject]] = {
    "plan": act_plan, "next": act_next, "rollback": act_rollback, "undo": act_undo, "keep": act_keep,
    "phase": act_phase, "repair": lambda request: {},
}  # fmt: skip
MOVING = frozenset({"rollback", "undo", "phase", "repair"})
"""Before them what a crash left half done is finished or taken back."""


def _by(request: JsonObject) -> str:
    return str(request.get("by") or author())


def main(arguments: list[str]) -> int:
    """Carry out one request; returns the exit status."""
    try:
        request = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
        action = ACTIONS[request["action"]]
    except (OSError, ValueError, KeyError, IndexError) as error:
        print(to_json({"ok": False, "error": f"no such request: {error}", "status": USAGE}))
        return USAGE
    # `into` another run touches nothing of this one
    alone, run = request["action"] in MOVING, Path(request["run"])
    moves = alone and not request.get("into")
    try:
        if request["action"] not in ("plan", "next"):
            refuse_links(RunLayout(run))
        with sole_doer(require_run(run), untouched=not moves) if alone else contextlib.nullcontext():
            settled = settle(require_run(run), by=_by(request)) if moves else ""
            answer = {"ok": True, "text": settled, **action(request)}
    except UserError as error:
        answer = {"ok": False, "error": str(error), "status": error.status}
    except OSError as error:
        answer = {"ok": False, "error": f"{error}; nothing was changed", "status": FAILED}
    print(to_json(answer))
    return 0 if answer["ok"] else int(answer["status"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
