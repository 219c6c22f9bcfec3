"""The rollback itself: refuse where somebody writes, stage what is needed, then move as one transaction.

A rollback under a living writer would be overwritten. The supervisor has stopped and verified before it asks;
here is the second look, by the process that acts. Everything it needs is then prepared beside the run's files
before a single one moves. The slow part (torch) and whatever can fail for lack of space or rights happens
there, where failing costs nothing: what was prepared is removed again and the run is as it was.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from nantui import entry_points
from nantui.checkpoint.catalog import Catalog
from nantui.errors import FAILED, NO, UserError
from nantui.machine.process_tree import marked
from nantui.machine.training_python import training_python
from nantui.paths import interpreter
from nantui.recovery import manifest
from nantui.recovery.plan import RESUME, Plan
from nantui.recovery.restore_points import BEST, why_again
from nantui.recovery.resume_point import points_aside
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
)
from nantui.run.atomic_files import write_atomic, write_json
from nantui.run.attempts import read_attempt, registered
from nantui.run.documents import JsonObject
from nantui.run.events import RollbackBegun, of_kind
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.plan import PlanPhase, with_phase
from nantui.run.points import in_words, is_whole
from nantui.run.record import RunRecord, in_full, is_relative
from nantui.run.results import trimmed
from nantui.run.spec import Spec, divided, own_uids, to_yaml, with_settings
from nantui.settings.effective import number
from nantui.settings.values import changed
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
    groups: list[JsonObject] = field(default_factory=list)
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


def done(plan: Plan, staged: Staged) -> Done:
    """Return how to go on after the rollback."""
    notes = [
        *staged.answer.get("notes", []),
        *(f"undo will not cover {path} (too large)" for path in staged.left_out),
    ]
    checkpoint = "weights/last.pt" if plan.mode == RESUME else None
    groups = list(staged.answer.get("groups", []))
    return Done(plan.id, plan.mode, checkpoint, dict(plan.asked), summary(plan), tuple(notes), groups)


@dataclass(frozen=True)
class Staged:
    """What lies ready: the steps in order, the rebase's answer, and what undo could not cover."""

    steps: tuple[Step, ...]
    answer: JsonObject = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def stage(layout: RunLayout, plan: Plan, *, python: str, allow: frozenset[str] = frozenset()) -> Staged:
    """Prepare `plan`. Raises UserError (nothing is changed then) or OSError (disk full, no rights)."""
    verify(layout, plan, allow)
    refuse_without_room(layout, plan)
    layout.home.mkdir(exist_ok=True)
    best = f"weights/{BEST}"  # it stays where it is when it is the right one, to be overwritten in place
    in_place = () if any(step.source == best for step in plan.moves) else (best,)
    _, left_out = manifest.keep(layout, plan.id, in_place)
    answer: JsonObject = {}
    installs: list[tuple[Path, str]] = []
    if plan.restore is not None:
        new_last = layout.weights / f"{STAGED}{plan.id}-last.pt"
        answer = run_rebase(rebase_request(layout, plan, new_last), python)
        refuse_unfit(new_last, allow)
        installs.append((new_last, "weights/last.pt"))
        installs += _best(layout, plan)
    installs += _texts(layout, plan)
    return Staged(tuple(_steps(layout, plan, installs)), answer, tuple(left_out))


def refuse_without_room(layout: RunLayout, plan: Plan) -> None:
    """Raise UserError where the disk cannot hold what is prepared beside the files; moving takes no room."""
    sizes = [one.path.stat().st_size for one in (plan.restore, plan.best) if one is not None]
    needed, free = sum(sizes) + ROOM_TO_SPARE, shutil.disk_usage(layout.run).free
    if free < needed:
        text = f"a rollback needs {needed / 1e6:.0f} MB beside the files, {free / 1e6:.0f} MB are free"
        raise UserError(f"{layout.run.name}: {text}; nothing was done", FAILED)


def verify(layout: RunLayout, plan: Plan, allow: frozenset[str]) -> None:
    """Raise UserError unless the restore point is whole to the last bit and may be loaded."""
    if plan.restore is None:
        return
    if plan.restore.point is not None and not is_whole(layout, plan.restore.point):
        raise UserError(f"{plan.restore.words}: not the file that its header describes; choose another", NO)
    verdict = Catalog(layout.weights, allow).verdict(plan.restore.path, crc=True)
    if verdict.badge != "clean":
        kinds = ", ".join(finding.kind for finding in verdict.findings)
        raise UserError(f"{plan.restore.name} is {verdict.badge} ({kinds}): choose another with --to", NO)
    if refused := set(verdict.names_to_allow) - allow:
        names = ", ".join(sorted(refused))
        raise UserError(
            f"loading {plan.restore.name} runs code of {names}; allow it by name: --allow NAME", NO
        )


def rebase_request(layout: RunLayout, plan: Plan, target: Path, run: Path | None = None) -> dict[str, object]:
    """Return the request for worker/checkpoints/rebase.py."""
    restore = plan.restore
    assert restore is not None, "plan B rebases nothing"
    wanted = {**plan.carried, **plan.asked, **changed(plan.settings)}
    train, _ = divided(wanted)
    if is_relative(data := train.get("data", restore.verdict.train_args.get("data"))):
        train |= in_full(RunRecord(layout), {"data": data})
    best = None
    if plan.best is not None and not plan.record_ends:
        best = {"fitness": plan.best.fitness, "epoch": plan.best.work}
    revive = {"epoch": restore.epoch, "updates": estimated_updates(plan)} if restore.revive else None
    note = {"from": restore.name, "transaction": plan.id}
    return {
        "source": str(restore.path), "target": str(target), "run": str(run or layout.run), "train": train,
        "best": best, "revive": revive, "note": note,
    }  # fmt: skip


def estimated_updates(plan: Plan) -> int | None:
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
        path = Path(folder) / "request.json"
        write_json(path, dict(request), mode=0o600)
        words = [interpreter(training_python(python)), "-m", REBASE, str(path)]
        try:
            # It inherits the lock of `sole_doer`: a rebase that outlives this process still writes here.
            done = subprocess.run(words, cwd="/", capture_output=True, text=True, close_fds=False)
        except OSError as error:
            raise UserError(f"cannot run {words[0]} ({error.strerror}); nothing was done", FAILED) from None
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("{"):
            answer: JsonObject = json.loads(line)
            break
    else:
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise UserError(f"the checkpoint could not be rebased ({last}); nothing was done", FAILED)
    if not answer.get("ok"):
        raise UserError(f"the settings were refused: {answer.get('error')}; nothing was done", NO)
    return answer


def refuse_unfit(path: Path, allow: frozenset[str]) -> None:
    """Raise UserError unless the rebased checkpoint is clean and resumable: it is read back as written."""
    verdict = Catalog(path.parent, allow).verdict(path, crc=True)
    if verdict.badge != "clean" or not verdict.resumable:
        why = verdict.why_not_resumable or ", ".join(finding.detail for finding in verdict.findings)
        raise UserError(f"the rebased checkpoint is not fit to resume from ({why}); nothing was done", FAILED)


def _best(layout: RunLayout, plan: Plan) -> list[tuple[Path, str]]:
    """Stage the new best.pt, unless the one there stays or its record has ended."""
    if plan.best is None or plan.record_ends or plan.best.name == BEST:
        return []
    staged = layout.weights / f"{STAGED}{plan.id}-{BEST}"
    copy_durably(plan.best.path, staged)
    os.utime(staged)
    return [(staged, f"weights/{BEST}")]


def _texts(layout: RunLayout, plan: Plan) -> list[tuple[Path, str]]:
    """Stage results.csv, args.yaml and our spec.yaml as they will be."""
    staged: list[tuple[Path, str]] = []
    work = plan.restore.work or 0 if plan.restore else 0
    if layout.results_csv.is_file() and plan.restore is not None:
        before = layout.results_csv.read_bytes().decode("utf-8", "surrogateescape")
        after = trimmed(before, work)
        if after != before:
            staged.append((_write(layout.run, plan, "results.csv", after), "results.csv"))
    wanted = {**plan.carried, **changed(plan.settings)}
    train, _ = divided(wanted)
    record = RunRecord(layout, trusted=own_uids(layout.lock))
    if record.args and train:
        text = to_yaml({**record.args, **train})
        staged.append((_write(layout.run, plan, "args.yaml", text), "args.yaml"))
    if record.spec is not None and wanted:
        text = to_yaml(asdict(decided_spec(record.spec, wanted, plan.appended)))
        staged.append((_write(layout.home, plan, "spec.yaml", text), "nantui/spec.yaml"))
    return staged


def decided_spec(spec: Spec, settings: Mapping[str, object], phase: PlanPhase | None = None) -> Spec:
    """Return the spec with changed settings, and with one more phase."""
    changed_spec = with_settings(spec, settings)
    if phase is None:
        return changed_spec
    return replace(changed_spec, plan=with_phase(spec.plan, phase, changed_spec.train, changed_spec.ours))


def _write(directory: Path, plan: Plan, name: str, text: str) -> Path:
    path = directory / f"{STAGED}{plan.id}-{name}"
    write_atomic(path, text.encode("utf-8", "surrogateescape"))
    return path


def _steps(layout: RunLayout, plan: Plan, installs: list[tuple[Path, str]]) -> list[Step]:
    """Return the moves in order: everything that has to go first, then what takes its place."""
    run, home = layout.run, f"nantui/backups/{plan.id}"
    away = [move(run, one.source, one.target, one.why) for one in plan.moves]
    taken = {step.target for step in away} | {step.source for step in away}
    replaced = [target for _, target in installs if target not in taken and (run / target).exists()]
    if plan.restore is None and layout.results_csv.exists() and "results.csv" not in replaced:
        replaced.append("results.csv")
    away += [move(run, path, f"{home}/{path}", "replaced") for path in replaced]
    away += points_aside(layout, home)
    folders = [Step(MKDIR, "weights/corrupted_backup", why="back-ups")]
    wanted = any(step.target.startswith("weights/corrupted_backup/") for step in away)
    into = [move(run, str(path.relative_to(run)), target, "new") for path, target in installs]
    return [*(folders if wanted and not layout.corrupted_backup.is_dir() else []), *away, *into]
