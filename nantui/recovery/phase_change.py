"""The change from one phase of a plan to the next, as a transaction: what the phase has left moves aside.

Ultralytics begins a training in an empty directory and would delete what lies there.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

from nantui.checkpoint.catalog import Catalog
from nantui.errors import NO, UserError
from nantui.recovery import transaction
from nantui.recovery.history import settings_in_force
from nantui.recovery.rollback import refuse_written
from nantui.recovery.undo import FOLDER, items_now, write_manifest
from nantui.run.atomic_files import write_atomic
from nantui.run.events import AttemptStarted, PhaseDone, RollbackReverted, newest
from nantui.run.layout import RunLayout
from nantui.run.plan import phases_of, place_of
from nantui.run.record import RunRecord
from nantui.run.spec import Spec, divided, own_uids, to_yaml

WEIGHTS = ("weights/best.pt", "weights/last.pt")
"""What the next phase begins with, the first that is clean: stock's own choice for a finished training."""


@dataclass(frozen=True)
class Advanced:
    """The phase that is next: its number from 1, its settings, a line to show."""

    phase: int
    asked: dict[str, object]
    text: str


def advance(layout: RunLayout, *, id: str, by: str) -> Advanced:
    """Put the finished phase aside and write down what the next one trains.

    Raises UserError when there is no next phase, a writer lives, or no clean weights were left; nothing is
    changed then.
    """
    record = RunRecord(layout, trusted=own_uids(layout.lock))
    spec = record.spec
    place = place_of(spec.plan) if spec else None
    if spec is None or place is None or place.number >= place.of:
        raise UserError(f"{layout.run.name}: its plan has no further phase", NO)
    refuse_written(layout)
    weights = clean_weights(layout, place.number)
    phase = phases_of(spec.plan)[place.number]
    aside = free_folder(layout, place.number)
    new = next_spec(record, spec, layout.run / aside / weights)
    text = f"phase {place.number + 1} of {place.of}: {phase.title or 'the next settings'}"
    about = {"phase": place.number + 1, "title": phase.title, "aside": aside, "text": text}
    try:
        steps = stage(layout, id, aside, new)
    except OSError as error:
        transaction.discard_staged(layout, id)
        raise UserError(f"the next phase could not be prepared ({error}); nothing was changed") from error
    transaction.carry_out(layout, transaction.Transaction(id, transaction.PHASE, tuple(steps), about), by=by)
    return Advanced(place.number + 1, dict(phase.settings), text)


def just_begun(layout: RunLayout) -> Advanced | None:
    """Return the phase that has been changed to and has not begun to train, None where there is none."""
    record = RunRecord(layout)
    spec = record.spec
    place = place_of(spec.plan) if spec else None
    what_was = newest(record.journal, PhaseDone, AttemptStarted, RollbackReverted)
    if spec is None or place is None or not isinstance(what_was, PhaseDone):
        return None
    settings = phases_of(spec.plan)[place.number - 1].settings
    return Advanced(place.number, dict(settings), what_was.text)


def clean_weights(layout: RunLayout, number: int) -> str:
    """Return the weights to go on from, relative to the run. Raises UserError when none are clean."""
    catalog, said = Catalog(layout.weights), []
    for name in WEIGHTS:
        path = layout.run / name
        if path.is_file():
            verdict = catalog.verdict(path, crc=True)
            if verdict.badge == "clean":
                return name
            said.append(f"{path.name} is {verdict.badge}")
    why = ", ".join(said) or "it left no checkpoint"
    raise UserError(f"phase {number} left nothing clean to go on from ({why}): recover the run", NO)


def next_spec(record: RunRecord, spec: Spec, weights: Path) -> Spec:
    """Return the spec of the next phase: the run's own settings, what was decided since, the phase's own."""
    plan = dict(spec.plan or {})
    number = int(plan["phase"])
    train_decided, ours_decided = divided(settings_in_force(record))
    base = plan.get("base") or {"train": spec.train, "ours": spec.ours}
    kept = {"train": {**base["train"], **train_decided}, "ours": {**base["ours"], **ours_decided}}
    own_train, own_ours = divided(phases_of(plan)[number].settings)
    place = {"save_dir": str(record.run), "project": str(record.run.parent), "name": record.run.name}
    start = {"model": str(weights), "pretrained": True}
    train, ours = {**kept["train"], **own_train, **start, **place}, {**kept["ours"], **own_ours}
    return replace(spec, train=train, ours=ours, plan={**plan, "phase": number + 1, "base": kept})


def free_folder(layout: RunLayout, number: int) -> str:
    """Return the folder for phase `number`, relative to the run, that holds nothing yet."""
    name, count = f"nantui/phases/{number:02d}", 2
    while (layout.run / name).exists() and any(path.is_file() for path in (layout.run / name).rglob("*")):
        name, count = f"nantui/phases/{number:02d}-{count}", count + 1
    return name


def stage(layout: RunLayout, id: str, aside: str, spec: Spec) -> list[transaction.Step]:
    """Write the new spec beside the old one and return the moves. Raises OSError."""
    items = items_now(layout)
    write_manifest(layout, id, items)
    staged = layout.home / f"{transaction.STAGED}{id}-spec.yaml"
    write_atomic(staged, to_yaml(asdict(spec)))
    run = layout.run
    steps = [
        transaction.move(run, path, f"{aside}/{path}") for path, item in items.items() if item.kind != FOLDER
    ]
    steps += transaction.points_aside(layout, f"nantui/backups/{id}")
    steps.append(transaction.move(run, "nantui/spec.yaml", f"nantui/backups/{id}/nantui/spec.yaml"))
    return [*steps, transaction.move(run, str(staged.relative_to(run)), "nantui/spec.yaml")]
