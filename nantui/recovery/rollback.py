"""The rollback itself: refuse where somebody writes, stage what is needed, then move as one transaction.

A rollback under a living writer would be overwritten. The supervisor has stopped and verified before it asks;
here is the second look, by the process that acts. Everything it needs is then prepared beside the run's files
before a single one moves. The slow part (torch) and whatever can fail for lack of space or rights happens
there, where failing costs nothing: what was prepared is removed again and the run is as it was.
Into a new directory (`branch`) everything is made beside the new name and appears with one rename, so that a
crash leaves no half run; the old run stays untouched.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from nantui import entry_points
from nantui.checkpoint.catalog import Catalog
from nantui.errors import FAILED, NO, USAGE, UserError
from nantui.machine.process_tree import marked
from nantui.machine.training_python import training_python
from nantui.machine.waiting_process import have_done
from nantui.paths import interpreter
from nantui.recovery.agreement import refuse_code
from nantui.recovery.plan import RESUME, Plan
from nantui.recovery.restore_points import BEST, Candidate, why_again
from nantui.recovery.transaction import (
    MKDIR,
    ROLLBACK,
    STAGED,
    Step,
    Transaction,
    carry_out,
    copy_durably,
    discard_staged,
    move,
    points_aside,
    rename_without_replacing,
)
from nantui.recovery.undo import keep_copies
from nantui.run.atomic_files import sync_directory, write_atomic, write_json
from nantui.run.attempts import read_attempt, registered
from nantui.run.binding import bind
from nantui.run.documents import JsonObject
from nantui.run.events import Created, RollbackBegun, newest, of_kind
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.plan import with_phase
from nantui.run.points import in_words, is_whole
from nantui.run.quarantine import quarantine_add, quarantined
from nantui.run.record import RunRecord, in_full, is_relative
from nantui.run.results import trimmed
from nantui.run.spec import Spec, divided, own_uids, to_yaml, with_settings, write_spec
from nantui.settings.values import number
from nantui.words import count

REBASE = entry_points.REBASE
ROOM_TO_SPARE = 1 << 20
"""Bytes for copies of plots and texts, and for the journal."""
RECENT = 3
"""Attempts before these were seen to end by the ones that followed."""


@dataclass(frozen=True)
class Done:
    """What a rollback left: how to go on (`mode`, `checkpoint`), what was `asked`, a line to show.

    `run` is the new run when it continues in another directory.
    """

    id: str
    mode: str
    checkpoint: str | None
    asked: dict[str, object]
    text: str
    notes: tuple[str, ...] = ()
    run: str = ""


def roll_back(
    plan: Plan, *, by: str, python: str = "", allow: Iterable[str] = (), images: Iterable[str] = ()
) -> Done:
    """Carry `plan` out; `images`, which are left out with it, are journaled as part of the step.

    Raises UserError when a writer lives or it cannot be done: nothing is changed then.
    """
    layout = RunLayout(plan.run)
    refuse_written(layout)
    try:
        steps, notes = _stage(layout, plan, python, frozenset(allow))
    except (UserError, OSError) as error:
        _forget(layout, plan.id)
        if isinstance(error, UserError):
            raise
        text = f"the rollback could not be prepared ({error}); nothing was changed"
        raise UserError(text, FAILED) from error
    told = {**about(plan), "images": list(images)}
    carry_out(layout, Transaction(plan.id, ROLLBACK, tuple(steps), told), by=by)
    return _done(plan, summary(plan), notes)


def _done(plan: Plan, text: str, notes: Iterable[str], run: str = "") -> Done:
    checkpoint = "weights/last.pt" if plan.mode == RESUME else None
    return Done(plan.id, plan.mode, checkpoint, dict(plan.asked), text, tuple(notes), run)


def _forget(layout: RunLayout, id: str) -> None:
    """Remove what was prepared for a transaction that does not happen; a backup only if none ever began.

    Of one that began and was taken back the folder may hold what somebody else had put in the way.
    """
    discard_staged(layout, id)
    if not any(begun.id == id for begun in of_kind(Journal(layout.journal).events(), RollbackBegun)):
        shutil.rmtree(layout.backups / id, ignore_errors=True)


def living_writers(layout: RunLayout) -> list[str]:
    """Return the processes that may write into the run, in words; only this machine can be looked at.

    They are ranks that registered in its newest attempts, and processes that carry such an attempt's mark.
    """
    recent = layout.attempt_numbers()[-RECENT:]
    ranks = [item for number in recent for item in registered(layout, number).items()]
    found = {ref.pid: f"pid {ref.pid} (rank {rank})" for rank, ref in ranks}
    marks = {attempt.uuid for number in recent if (attempt := read_attempt(layout, number))}
    found |= {pid: f"pid {pid}" for pid in marked(marks) if pid not in found}
    return [found[pid] for pid in sorted(found) if pid != os.getpid()]


def refuse_written(layout: RunLayout) -> None:
    """Raise UserError where a process may write into the run."""
    if writers := living_writers(layout):
        raise UserError(f"{layout.run.name} is being written by {', '.join(writers)}: stop it first", FAILED)


def about(plan: Plan) -> dict[str, object]:
    """Return what the journal says of the rollback besides its steps."""
    return {
        "restore_point": plan.restore.place if plan.restore else None,
        "epoch": plan.restore.work if plan.restore else None, "epochs_lost": plan.costs.epochs_lost,
        "incident_epoch": plan.reason.epoch if plan.reason else None,
        "judgement": asdict(plan.judgement) if plan.judgement else None, "mode": plan.mode,
        "presets": list(plan.presets), "settings": [asdict(change) for change in plan.settings],
        "afterwards": asdict(plan.afterwards) if plan.afterwards else None, "text": summary(plan),
    }  # fmt: skip


def summary(plan: Plan) -> str:
    """Return what was done in one line."""
    if plan.restore is None:
        return f"{why_again(plan.candidates)}: everything moved aside, the training begins again"
    changes = [change for change in plan.settings if not change.kept]
    changed = f", {count(len(changes), 'setting')} changed" if changes else ""
    restored = f"restored {in_words(plan.restore.name, plan.restore.work)}"
    return f"{restored}{changed}; {count(len(plan.moves), 'file')} moved aside"


def _stage(layout: RunLayout, plan: Plan, python: str, allow: frozenset[str]) -> tuple[list[Step], list[str]]:
    """Prepare `plan`; returns the steps in order, and notes.

    Raises UserError (nothing is changed then) or OSError (disk full, no rights).
    """
    verify(layout, plan.restore, allow)
    _refuse_without_room(layout, plan)
    layout.home.mkdir(exist_ok=True)
    best = f"weights/{BEST}"  # it stays where it is when it is the right one, to be overwritten in place
    in_place = () if any(step.source == best for step in plan.moves) else (best,)
    left_out, installs = keep_copies(layout, plan.id, in_place), dict[str, Path]()
    notes = [f"undo will not cover {path} (too large)" for path in left_out]
    if plan.restore is not None:
        installs["weights/last.pt"] = layout.weights / f"{STAGED}{plan.id}-last.pt"
        answer = _rebased(layout, plan, plan.restore, installs["weights/last.pt"], python, allow)
        notes = [*answer.get("notes", []), *notes]
    if plan.best is not None and not plan.record_ends and plan.best.name != BEST:
        installs[best] = layout.weights / f"{STAGED}{plan.id}-{BEST}"
        copy_durably(plan.best.path, installs[best])
        os.utime(installs[best])
    for path, text in _texts(layout, plan).items():
        installs[path] = (layout.run / path).with_name(f"{STAGED}{plan.id}-{Path(path).name}")
        write_atomic(installs[path], text)
    return _steps(layout, plan, installs), notes


def _refuse_without_room(layout: RunLayout, plan: Plan) -> None:
    """Raise UserError where the disk cannot hold what is prepared beside the files; moving takes no room."""
    sizes = [one.path.stat().st_size for one in (plan.restore, plan.best) if one is not None]
    needed, free = sum(sizes) + ROOM_TO_SPARE, shutil.disk_usage(layout.run).free
    if free < needed:
        text = f"a rollback needs {needed / 1e6:.0f} MB beside the files, {free / 1e6:.0f} MB are free"
        raise UserError(f"{layout.run.name}: {text}; nothing was done", FAILED)


def verify(layout: RunLayout, restore: Candidate | None, allow: Collection[str]) -> None:
    """Raise UserError unless the restore point is whole to the last bit and may be loaded."""
    if restore is None:
        return
    if restore.point is not None and not is_whole(layout, restore.point):
        raise UserError(f"{restore.words}: not the file that its header describes; choose another", NO)
    verdict = Catalog(layout.weights, allow).verdict(restore.path, crc=True)
    if verdict.badge != "clean":
        kinds = ", ".join(finding.kind for finding in verdict.findings)
        raise UserError(f"{restore.name} is {verdict.badge} ({kinds}): choose another with --to", NO)
    refuse_code(verdict, restore.name, allow)


def _rebased(
    layout: RunLayout, plan: Plan, restore: Candidate, target: Path, python: str, allow: frozenset[str],
    run: Path | None = None,
) -> JsonObject:  # fmt: skip
    """Write the restore point with the plan's settings to `target` (worker/checkpoints/rebase.py), for the
    directory `run`; returns the worker's answer. Raises UserError where the file is not fit.
    """
    train, _ = divided({**plan.carried, **plan.asked, **plan.decided})
    if is_relative(data := train.get("data", restore.verdict.train_args.get("data"))):
        train |= in_full(RunRecord(layout), {"data": data})
    best = None
    if plan.best is not None and not plan.record_ends:
        best = {"fitness": plan.best.fitness, "epoch": plan.best.work}
    revive = {"epoch": restore.epoch, "updates": _estimated_updates(plan)} if restore.revive else None
    note = {"from": restore.name, "transaction": plan.id}
    request = {
        "source": str(restore.path), "target": str(target), "run": str(run or layout.run), "train": train,
        "best": best, "revive": revive, "note": note,
    }  # fmt: skip
    answer = run_rebase(request, python)
    refuse_unfit(target, allow)
    return answer


def _estimated_updates(plan: Plan) -> int | None:
    """Return how many EMA updates a finished run had made, one an optimizer step: from another checkpoint's
    count, else from the steps that were recorded; None leaves it to the rebase, which can count images.
    """
    work = plan.restore.work if plan.restore else 0
    known = ((one.verdict.updates, one.work) for one in plan.candidates if not (one.stranger or one.point))
    rates = [updates / epochs for updates, epochs in known if updates and epochs]
    newest = RunRecord(RunLayout(plan.run)).newest.steps.newest
    batch, nbs = (number(plan.in_effect.get(name)) for name in ("batch", "nbs"))
    if newest is not None and batch > 0 and nbs > 0:
        rates.append(newest.steps / max(round(nbs / batch), 1))
    return int(max(rates) * (work or 0)) if rates else None


def run_rebase(request: JsonObject, python: str) -> JsonObject:
    """Rebase in a process of its own. Raises UserError with its reason when it refuses."""
    with tempfile.TemporaryDirectory(prefix="nantui-") as folder:
        path, out, err = (Path(folder, name) for name in ("request.json", "out", "err"))
        write_json(path, dict(request), mode=0o600)
        words = [interpreter(training_python(python)), "-m", REBASE, str(path)]
        # It inherits the lock of `sole_doer`: a rebase that outlives this process still writes here.
        try:
            with out.open("wb") as stdout, err.open("wb") as stderr:
                if not have_done(words[2:], stdout.fileno(), stderr.fileno()):
                    subprocess.run(words, cwd="/", stdout=stdout, stderr=stderr, close_fds=False)
        except OSError as error:
            raise UserError(f"cannot run {words[0]} ({error.strerror}); nothing was done", FAILED) from None
        said, complained = (one.read_text(encoding="utf-8", errors="replace") for one in (out, err))
    line = next((one for one in reversed(said.splitlines()) if one.startswith("{")), "")
    if not line:
        last = (complained.strip().splitlines() or ["no output"])[-1]
        raise UserError(f"the checkpoint could not be rebased ({last}); nothing was done", FAILED)
    answer: JsonObject = json.loads(line)
    if not answer.get("ok"):
        raise UserError(f"the settings were refused: {answer.get('error')}; nothing was done", NO)
    return answer


def refuse_unfit(path: Path, allow: frozenset[str]) -> None:
    """Raise UserError unless the rebased checkpoint is clean and resumable: it is read back as written."""
    verdict = Catalog(path.parent, allow).verdict(path, crc=True)
    if verdict.badge != "clean" or not verdict.resumable:
        why = verdict.why_not_resumable or ", ".join(finding.detail for finding in verdict.findings)
        raise UserError(f"the rebased checkpoint is not fit to resume from ({why}); nothing was done", FAILED)


def _texts(layout: RunLayout, plan: Plan) -> dict[str, bytes]:
    """Return results.csv, args.yaml and our spec.yaml as they will be, where they change."""
    record, texts = RunRecord(layout, trusted=own_uids(layout.lock)), dict[str, bytes]()
    before, after = _results(layout, plan)
    if after != before:
        texts["results.csv"] = after
    train, _ = divided(plan.decided)
    if record.args and train:
        texts["args.yaml"] = to_yaml({**record.args, **train}).encode()
    if record.spec is not None and plan.decided:
        texts["nantui/spec.yaml"] = to_yaml(asdict(_spec(record.spec, plan))).encode()
    return texts


def _results(layout: RunLayout, plan: Plan) -> tuple[bytes, bytes]:
    """Return results.csv as it is and as far as the restore point; without one both empty."""
    if plan.restore is None or not layout.results_csv.is_file():
        return b"", b""
    before = layout.results_csv.read_bytes()
    after = trimmed(before.decode("utf-8", "surrogateescape"), plan.restore.work or 0)
    return before, after.encode("utf-8", "surrogateescape")


def _spec(spec: Spec, plan: Plan) -> Spec:
    """Return the spec with what the plan has decided, and with one more phase where that was asked for."""
    new, phase = with_settings(spec, plan.decided), plan.appended
    return replace(new, plan=with_phase(spec.plan, phase, new.train, new.ours)) if phase else new


def _steps(layout: RunLayout, plan: Plan, installs: dict[str, Path]) -> list[Step]:
    """Return the moves in order: everything that has to go first, then what takes its place."""
    run, home = layout.run, f"nantui/backups/{plan.id}"
    away = [move(run, one.source, one.target, one.why) for one in plan.moves]
    taken = {step.target for step in away} | {step.source for step in away}
    replaced = [target for target in installs if target not in taken and (run / target).exists()]
    if plan.restore is None and layout.results_csv.exists() and "results.csv" not in replaced:
        replaced.append("results.csv")
    away += [move(run, path, f"{home}/{path}", "replaced") for path in replaced]
    away += points_aside(layout, home)
    folders = [Step(MKDIR, "weights/corrupted_backup", why="back-ups")]
    wanted = any(step.target.startswith("weights/corrupted_backup/") for step in away)
    into = [move(run, str(path.relative_to(run)), target, "new") for target, path in installs.items()]
    return [*(folders if wanted and not layout.corrupted_backup.is_dir() else []), *away, *into]


def branch(
    plan: Plan, name: str, *, by: str, python: str = "", allow: Iterable[str] = (), images: Iterable[str] = ()
) -> Done:
    """Make the run NAME as `plan` says, without `images`, once. Raises UserError; nothing is left then."""
    layout, place = RunLayout(plan.run), plan.run.parent / name
    if Path(name).name != name or name in ("", ".", ".."):
        raise UserError(f"--into {name}: give a plain name; the new run lies beside {plan.run.name}", USAGE)
    if place.exists():
        made = newest(Journal(RunLayout(place).journal).events(), Created)
        if made is not None and made.command == plan.id:
            return _done(plan, f"{summary(plan).split(';')[0]} into {place}, before", (), run=str(place))
        raise UserError(f"--into {name}: {place} exists already and is never overwritten", USAGE)
    old = RunRecord(layout, trusted=own_uids(layout.lock))
    beside = place.with_name(f"{STAGED}{plan.id}-{name}")
    shutil.rmtree(beside, ignore_errors=True)  # by a helper that was killed
    try:
        (beside / "weights").mkdir(parents=True)
        notes = _fill(old, plan, RunLayout(beside), place, python, frozenset(allow))
        journal, spec = Journal(RunLayout(beside).journal), RunRecord(RunLayout(beside)).spec
        created = newest(old.journal, Created)  # relative paths mean what they meant to the old run
        cwd = created.cwd or None if created else None
        journal.append("created", by=by, spec=spec.__dict__ if spec else {}, cwd=cwd, command=plan.id)
        journal.append("note", by=by, text=f"continues {plan.run}: {plan.headline}")
        quarantine_add(RunLayout(beside), (*quarantined(layout), *images), "recovery", by)
        rename_without_replacing(beside, place)
        sync_directory(place.parent)
        bind(place)
    except OSError as error:
        raise UserError(f"{place} could not be made ({error}); nothing was changed", FAILED) from error
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    text = f"{summary(plan).split(';')[0]} into {place}; {plan.run.name} is untouched"
    return _done(plan, text, notes, run=str(place))


def _fill(
    old: RunRecord, plan: Plan, new: RunLayout, place: Path, python: str, allow: frozenset[str]
) -> list[str]:
    """Write the new run's files; `place` is where they will lie. Returns notes."""
    verify(old.layout, plan.restore, allow)
    answer: JsonObject = {}
    if plan.restore is not None:
        answer = _rebased(old.layout, plan, plan.restore, new.last, python, allow, place)
        if plan.best is not None and not plan.record_ends:
            copy_durably(plan.best.path, new.weights / BEST)
        if results := _results(old.layout, plan)[1]:
            write_atomic(new.results_csv, results)
    own = {"save_dir": str(place), "project": str(place.parent), "name": place.name}
    write_atomic(new.args_yaml, to_yaml({**old.args, **divided(plan.decided)[0], **own}))
    spec = old.spec or Spec(dict(old.args))
    if spec.kind == "exec" and not spec.exec:  # somebody else's: what it would run was not read
        spec = replace(spec, kind="train", train={**old.args, **spec.train})
    spec = _spec(spec, plan)
    fresh = replace(spec, train={**spec.train, **own}, python=python or spec.python, created=time.time())
    write_spec(new.spec, fresh)
    return list(answer.get("notes", []))
