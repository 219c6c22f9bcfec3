"""The rollback itself: stage, then move as one transaction; also into a new directory."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from nantui.errors import FAILED, UserError
from nantui.recovery.candidates import why_again
from nantui.recovery.plan import RESUME, Plan
from nantui.recovery.stage import Staged, stage
from nantui.recovery.transaction import ROLLBACK, Transaction, carry_out, discard_staged
from nantui.recovery.writers import living_writers
from nantui.run.layout import RunLayout


@dataclass(frozen=True)
class Done:
    """What a rollback left: how to go on (`mode`, `checkpoint`), what was `asked`, a line to show.

    `run` is the new run when it continues in another directory.
    """

    id: str
    mode: str
    checkpoint: str | None
    asked: dict[str, Any]
    text: str
    notes: tuple[str, ...] = ()
    groups: list[dict[str, Any]] = field(default_factory=list)
    run: str = ""


def roll_back(
    plan: Plan, *, by: str, python: str = "", allow: Iterable[str] = (), images: Iterable[str] = ()
) -> Done:
    """Carry `plan` out; `images`, which are left out with it, are journaled as part of the step.

    Raises UserError when a writer lives or it cannot be done: nothing is changed then.
    """
    layout = RunLayout(plan.run)
    if writers := living_writers(layout):
        raise UserError(f"{plan.run.name} is being written by {', '.join(writers)}: stop it first", FAILED)
    try:
        staged = stage(layout, plan, python=python, allow=frozenset(allow))
        transaction = Transaction(plan.id, ROLLBACK, staged.steps, {**about(plan), "images": list(images)})
    except UserError:
        forget(layout, plan.id)
        raise
    except OSError as error:
        forget(layout, plan.id)
        raise UserError(
            f"the rollback could not be prepared ({error}); nothing was changed", FAILED
        ) from error
    carry_out(layout, transaction, by=by)
    return done(plan, staged)


def forget(layout: RunLayout, id: str) -> None:
    """Remove what was prepared for a transaction that does not happen."""
    discard_staged(layout, id)
    shutil.rmtree(layout.backups / id, ignore_errors=True)


def about(plan: Plan) -> dict[str, Any]:
    """Return what the journal says of the rollback besides its steps."""
    return {
        "restore_point": str(plan.restore.path.relative_to(plan.run)) if plan.restore else None,
        "epoch": plan.restore.work if plan.restore else None,
        "epochs_lost": plan.costs.epochs_lost,
        "incident_epoch": plan.reason.epoch if plan.reason else None,
        "judgement": asdict(plan.judgement) if plan.judgement else None,
        "mode": plan.mode,
        "presets": list(plan.presets),
        "settings": [asdict(change) for change in plan.settings],
        "afterwards": asdict(plan.afterwards) if plan.afterwards else None,
        "text": summary(plan),
    }


def summary(plan: Plan) -> str:
    """Return what was done in one line."""
    if plan.restore is None:
        return f"{why_again(plan.candidates)}: everything moved aside, the training begins again"
    changes = [change for change in plan.settings if not change.kept]
    changed = f", {len(changes)} settings changed" if changes else ""
    restored = f"restored {plan.restore.name} (epoch {plan.restore.work})"
    return f"{restored}{changed}; {len(plan.moves)} files moved aside"


def done(plan: Plan, staged: Staged) -> Done:
    """Return how to go on after the rollback."""
    notes = [
        *staged.answer.get("notes", []),
        *(f"undo will not cover {path} (too large)" for path in staged.left_out),
    ]
    checkpoint = "weights/last.pt" if plan.mode == RESUME else None
    groups = list(staged.answer.get("groups", []))
    return Done(plan.id, plan.mode, checkpoint, dict(plan.asked), summary(plan), tuple(notes), groups)
