"""A journaled transaction over a run directory: it is finished or taken back, whatever kills it.

The plan is in the journal before the first step, each step is in the journal before it is done, and steps
are moves only (recovery/steps.py). After a crash `settle` reads from the disk how far it came.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nantui.errors import FAILED, UserError
from nantui.recovery import steps as files
from nantui.recovery.steps import DONE, IMPOSSIBLE, Step, step_from
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout

ROLLBACK, UNDO, PHASE = "rollback", "undo", "phase"
STAGED = ".nantui-"
"""Files that are prepared before anything moves begin with this, followed by the transaction's id."""


@dataclass(frozen=True)
class Transaction:
    """What is to be done: `kind` is ROLLBACK, UNDO or PHASE, `about` goes into the journal with the steps."""

    id: str
    kind: str
    steps: tuple[Step, ...]
    about: dict[str, Any]


def carry_out(layout: RunLayout, transaction: Transaction, *, by: str) -> None:
    """Do every step, or none.

    Raises UserError when it could not be done; everything is then as it was, and the text says so.
    """
    journal = Journal(layout.journal)
    blocked = next(
        (step for step in transaction.steps if files.state_of(layout.run, step) == IMPOSSIBLE), None
    )
    if blocked is not None and blocked.source and not _made_on_the_way(blocked, transaction.steps):
        discard_staged(layout, transaction.id)
        raise UserError(
            f"{blocked.source} or {blocked.target} was changed by somebody else; nothing was done", FAILED
        )
    try:
        planned = [step.to_json() for step in transaction.steps]
        journal.append(
            f"{transaction.kind}_begun", by=by, id=transaction.id, **transaction.about, steps=planned
        )
        for index, step in enumerate(transaction.steps):
            journal.append("rollback_step", by=by, id=transaction.id, index=index)
            files.do(layout.run, step)
        journal.append(f"{transaction.kind}_done", by=by, id=transaction.id, **_outcome(transaction))
    except OSError as error:
        take_back(layout, transaction, by=by, why=str(error))
        raise UserError(
            f"{transaction.kind} failed ({error}); everything was put back as it was", FAILED
        ) from error


def take_back(layout: RunLayout, transaction: Transaction, *, by: str, why: str) -> None:
    """Revert every step that was done, newest first, and say so in the journal.

    What somebody else has put in the way meanwhile moves into nantui/backups. Raises UserError when a
    file cannot be put back; nothing is lost then either, and the next start tries again.
    """
    try:
        for step in reversed(transaction.steps):
            _clear_the_way(layout, transaction, step)
            files.revert(layout.run, step)
    except OSError as error:
        text = (
            f"{why}; and putting back stopped at {error}; every file still exists, see nantui/journal.jsonl"
        )
        raise UserError(text, FAILED) from error
    discard_staged(layout, transaction.id)
    with contextlib.suppress(OSError):
        # A full disk may refuse even this line. Without the staged files the next start can only take
        # back what is already back, and writes the line then.
        Journal(layout.journal).append("rollback_reverted", by=by, id=transaction.id, text=why)


def pending(layout: RunLayout) -> Transaction | None:
    """Return the transaction that was begun and neither done nor taken back, if any."""
    found: Transaction | None = None
    for entry in Journal(layout.journal).entries():
        kind, _, what = str(entry["kind"]).partition("_")
        if kind not in (ROLLBACK, UNDO, PHASE):
            continue
        if what == "begun" and isinstance(entry.get("steps"), list):
            steps = tuple(step_from(step) for step in entry["steps"])
            about = {
                key: value for key, value in entry.items() if key not in ("t", "kind", "by", "id", "steps")
            }
            found = Transaction(str(entry["id"]), kind, steps, about)
        elif what in ("done", "reverted") and found is not None and entry.get("id") == found.id:
            found = None
    return found


def settle(layout: RunLayout, *, by: str) -> str:
    """Finish or take back what a crash left half done; returns what was done in words, "" for nothing.

    Only whoever holds the run may call this. Raises UserError when neither is possible now.
    """
    transaction = pending(layout)
    if transaction is None:
        discard_staged(layout)
        return ""
    if not can_finish(layout, transaction):
        take_back(layout, transaction, by=by, why="it was interrupted and could not be finished")
        return f"an interrupted {transaction.kind} was taken back: everything is as it was before"
    journal = Journal(layout.journal)
    try:
        for step in transaction.steps:
            files.do(layout.run, step)
        journal.append(f"{transaction.kind}_done", by=by, id=transaction.id, **_outcome(transaction))
    except OSError as error:
        take_back(layout, transaction, by=by, why=str(error))
        return f"an interrupted {transaction.kind} could not be finished ({error}) and was taken back"
    return f"an interrupted {transaction.kind} was finished"


def can_finish(layout: RunLayout, transaction: Transaction) -> bool:
    """Tell whether every step is done or can still be done."""
    return all(
        files.state_of(layout.run, step) != IMPOSSIBLE or _made_on_the_way(step, transaction.steps[:index])
        for index, step in enumerate(transaction.steps)
    )


def discard_staged(layout: RunLayout, id: str = "") -> None:
    """Remove what was prepared by the transaction `id` (default: by any, none being under way)."""
    for directory in (layout.run, layout.weights, layout.home):
        with contextlib.suppress(OSError):
            staged = [*directory.glob(f"{STAGED}{id}*"), *directory.glob(f".{STAGED}{id}*.tmp")]
            for path in staged:  # the second kind is what a kill inside `write_atomic` leaves
                path.unlink()


def _made_on_the_way(step: Step, steps: Sequence[Step]) -> bool:
    """Tell whether `step`'s target is still taken by a file that an earlier step moves away."""
    return any(earlier.source == step.target for earlier in steps)


def _clear_the_way(layout: RunLayout, transaction: Transaction, step: Step) -> None:
    """Move aside what lies where a file has to go back to, unless it is that file."""
    place = layout.run / step.source
    waits = step.kind == files.MOVE and files.state_of(layout.run, step) == DONE
    if not waits or not place.exists() or files.is_file_of(place, step):
        return
    aside = layout.backups / transaction.id / "in_the_way" / step.source
    files.do(
        layout.run, files.move(layout.run, step.source, str(aside.relative_to(layout.run)), "in the way")
    )


def _outcome(transaction: Transaction) -> dict[str, Any]:
    return {key: transaction.about[key] for key in ("text", "of", "phase") if key in transaction.about}
