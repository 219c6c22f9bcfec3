"""Everything a rollback needs, prepared beside the run's files before a single one moves.

The slow part (torch) and whatever can fail for lack of space or rights happens here, where failing costs
nothing: what was prepared is removed again and the run is as it was.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from nantui.checkpoint.catalog import Catalog
from nantui.errors import FAILED, NO, UserError
from nantui.recovery import manifest
from nantui.recovery.candidates import BEST
from nantui.recovery.plan import Plan
from nantui.recovery.steps import MKDIR, Step, copy_durably, move
from nantui.recovery.transaction import STAGED
from nantui.recovery.trim import trimmed
from nantui.run.files import write_atomic, write_json
from nantui.run.layout import RunLayout
from nantui.run.phases import Phase, with_phase
from nantui.run.spec import Spec, divided, own_uids, read_args, read_spec, to_yaml, with_settings
from nantui.settings.diff import changed

REBASE = "nantui.training.rebase"


@dataclass(frozen=True)
class Staged:
    """What lies ready: the steps in order, the rebase's answer, and what undo could not cover."""

    steps: tuple[Step, ...]
    answer: Mapping[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def stage(layout: RunLayout, plan: Plan, *, python: str, allow: frozenset[str] = frozenset()) -> Staged:
    """Prepare `plan`. Raises UserError (nothing is changed then) or OSError (disk full, no rights)."""
    verify(layout, plan, allow)
    layout.home.mkdir(exist_ok=True)
    _, left_out = manifest.keep(layout, plan.id, in_place=_staying_best(plan))
    answer: dict[str, Any] = {}
    installs: list[tuple[Path, str]] = []
    if plan.restore is not None:
        new_last = layout.weights / f"{STAGED}{plan.id}-last.pt"
        answer = run_rebase(rebase_request(layout, plan, new_last), python)
        refuse_unfit(new_last, allow)
        installs.append((new_last, "weights/last.pt"))
        installs += _best(layout, plan)
    installs += _texts(layout, plan)
    return Staged(tuple(_steps(layout, plan, installs)), answer, tuple(left_out))


def verify(layout: RunLayout, plan: Plan, allow: frozenset[str]) -> None:
    """Raise UserError unless the restore point is whole to the last bit and may be loaded."""
    if plan.restore is None:
        return
    verdict = Catalog(layout.weights, allow).verdict(plan.restore.path, crc=True)
    if verdict.badge != "clean":
        kinds = ", ".join(finding.kind for finding in verdict.findings)
        raise UserError(f"{plan.restore.name} is {verdict.badge} ({kinds}): choose another with --to", NO)
    if refused := set(verdict.names_to_allow) - allow:
        names = ", ".join(sorted(refused))
        raise UserError(
            f"loading {plan.restore.name} runs code of {names}; allow it by name: --allow NAME", NO
        )


def rebase_request(layout: RunLayout, plan: Plan, target: Path, run: Path | None = None) -> dict[str, Any]:
    """Return the request for training/rebase.py."""
    restore = plan.restore
    assert restore is not None, "plan B rebases nothing"
    wanted = {**plan.carried, **plan.asked, **changed(plan.settings)}
    train, _ = divided(wanted)
    best = None
    if plan.best is not None and not plan.record_ends:
        best = {"fitness": plan.best.fitness, "epoch": plan.best.work}
    revive = {"epoch": restore.epoch, "updates": estimated_updates(plan)} if restore.revive else None
    note = {"from": restore.name, "transaction": plan.id}
    return {
        "source": str(restore.path), "target": str(target), "run": str(run or layout.run), "train": train,
        "best": best, "revive": revive, "note": note,
    }  # fmt: skip


def estimated_updates(plan: Plan) -> int:
    """Return how many EMA updates a finished run had made: from another checkpoint's count, else far beyond
    the start, so that the average does not begin anew (`ModelEMA` decays by 1 − exp(−updates/2000)).
    """
    work = plan.restore.work if plan.restore else 0
    known = ((one.verdict.updates, one.work) for one in plan.candidates)
    rates = [updates / epochs for updates, epochs in known if updates and epochs]
    return int(max(rates) * (work or 0)) if rates else 20000


def run_rebase(request: Mapping[str, Any], python: str) -> dict[str, Any]:
    """Rebase in a process of its own. Raises UserError with its reason when it refuses."""
    with tempfile.TemporaryDirectory(prefix="nantui-") as folder:
        path = Path(folder) / "request.json"
        write_json(path, dict(request), mode=0o600)
        words = [python or sys.executable, "-m", REBASE, str(path)]
        try:
            done = subprocess.run(words, capture_output=True, text=True)
        except OSError as error:
            raise UserError(f"cannot run {words[0]} ({error.strerror}); nothing was done", FAILED) from None
    for line in reversed(done.stdout.splitlines()):
        if line.startswith("{"):
            answer: dict[str, Any] = json.loads(line)
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


def _staying_best(plan: Plan) -> tuple[str, ...]:
    """best.pt stays where it is when it is the right one; a later attempt may overwrite it in place."""
    moved = {step.source for step in plan.moves}
    return () if f"weights/{BEST}" in moved else (f"weights/{BEST}",)


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
        before = layout.results_csv.read_text(encoding="utf-8", errors="surrogateescape")
        after = trimmed(before, work)
        if after != before:
            staged.append((_write(layout.run, plan, "results.csv", after), "results.csv"))
    wanted = {**plan.carried, **changed(plan.settings)}
    train, _ = divided(wanted)
    args = read_args(layout.args_yaml)
    if args and train:
        text = to_yaml({**args, **train})
        staged.append((_write(layout.run, plan, "args.yaml", text), "args.yaml"))
    spec = read_spec(layout.spec, own_uids(layout.lock))
    if spec is not None and wanted:
        text = to_yaml(asdict(decided_spec(spec, wanted, plan.appended)))
        staged.append((_write(layout.home, plan, "spec.yaml", text), "nantui/spec.yaml"))
    return staged


def decided_spec(spec: Spec, settings: Mapping[str, Any], phase: Phase | None = None) -> Spec:
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
    folders = [Step(MKDIR, "weights/corrupted_backup", why="back-ups")]
    wanted = any(step.target.startswith("weights/corrupted_backup/") for step in away)
    into = [move(run, str(path.relative_to(run)), target, "new") for path, target in installs]
    return [*(folders if wanted and not layout.corrupted_backup.is_dir() else []), *away, *into]
