"""Recover into a new directory: the old run stays untouched, the new one goes on from its restore point.

Everything is made beside the new name and appears with one rename, so a crash leaves no half run.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from nantui.errors import FAILED, USAGE, UserError
from nantui.recovery.plan import RESUME, Plan
from nantui.recovery.restore_points import BEST
from nantui.recovery.rollback import (
    Done,
    decided_spec,
    rebase_request,
    refuse_unfit,
    run_rebase,
    summary,
    verify,
)
from nantui.recovery.transaction import STAGED, copy_durably, rename_without_replacing
from nantui.run.atomic_files import sync_directory, write_atomic
from nantui.run.binding import bind
from nantui.run.documents import JsonObject
from nantui.run.events import Created, newest
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from nantui.run.results import trimmed
from nantui.run.spec import Spec, divided, own_uids, to_yaml, write_spec
from nantui.settings.values import changed


def new_place(run: Path, name: str) -> Path:
    """Return the directory for `--into NAME`. Raises UserError when it is taken or no plain name."""
    if Path(name).name != name or name in ("", ".", ".."):
        raise UserError(f"--into {name}: give a plain name; the new run lies beside {run.name}", USAGE)
    place = run.parent / name
    if place.exists():
        raise UserError(f"--into {name}: {place} exists already and is never overwritten", USAGE)
    return place


def branch(plan: Plan, name: str, *, by: str, python: str = "", allow: Iterable[str] = ()) -> Done:
    """Make the run NAME from `plan`'s restore point and settings. Raises UserError; nothing is left then."""
    layout, place = RunLayout(plan.run), new_place(plan.run, name)
    old = RunRecord(layout, trusted=own_uids(layout.lock))
    beside = place.with_name(f"{STAGED}{plan.id}-{name}")
    try:
        (beside / "weights").mkdir(parents=True)
        answer = _fill(old, plan, RunLayout(beside), place, python, frozenset(allow))
        journal = Journal(RunLayout(beside).journal)
        journal.append("created", by=by, **_created(old, beside))
        journal.append("note", by=by, text=f"continues {plan.run}: {plan.headline}")
        rename_without_replacing(beside, place)
        sync_directory(place.parent)
        bind(place)
    except OSError as error:
        raise UserError(f"{place} could not be made ({error}); nothing was changed", FAILED) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    text = f"{summary(plan).split(';')[0]} into {place}; {plan.run.name} is untouched"
    checkpoint = "weights/last.pt" if plan.mode == RESUME else None
    notes = tuple(answer.get("notes", ()))
    return Done(plan.id, plan.mode, checkpoint, dict(plan.asked), text, notes, run=str(place))


def _fill(
    old: RunRecord, plan: Plan, new: RunLayout, place: Path, python: str, allow: frozenset[str]
) -> JsonObject:
    """Write the new run's files; `place` is where they will lie."""
    verify(old.layout, plan, allow)
    answer: JsonObject = {}
    if plan.restore is not None:
        answer = run_rebase(rebase_request(old.layout, plan, new.last, place), python)
        refuse_unfit(new.last, allow)
        if plan.best is not None and not plan.record_ends:
            copy_durably(plan.best.path, new.weights / BEST)
    work = plan.restore.work or 0 if plan.restore else 0
    if plan.restore is not None and old.layout.results_csv.is_file():
        before = old.layout.results_csv.read_bytes().decode("utf-8", "surrogateescape")
        write_atomic(new.results_csv, trimmed(before, work).encode("utf-8", "surrogateescape"))
    settings = {**plan.carried, **changed(plan.settings)}
    own = {"save_dir": str(place), "project": str(place.parent), "name": place.name}
    args = {**old.args, **divided(settings)[0], **own}
    write_atomic(new.args_yaml, to_yaml(args))
    spec = old.spec or Spec(dict(old.args))
    if spec.kind == "exec" and not spec.exec:  # somebody else's: what it would run was not read
        spec = replace(spec, kind="train", train={**old.args, **spec.train})
    spec = decided_spec(spec, settings, plan.appended)
    fresh = replace(spec, train={**spec.train, **own}, python=python or spec.python, created=time.time())
    write_spec(new.spec, fresh)
    return answer


def _created(old: RunRecord, beside: Path) -> dict[str, object]:
    """Return the new journal's first entry; relative paths mean what they meant to the old run."""
    created, spec = newest(old.journal, Created), RunRecord(RunLayout(beside)).spec
    return {"spec": spec.__dict__ if spec else {}, "cwd": created.cwd or None if created else None}
