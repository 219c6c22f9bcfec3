"""What `R` would do, worked out before anything is touched: the dialog, the command and the policy share it.

A plan reads files only. It is cheap enough for a thread of the cockpit; the helper process makes it
again before it acts, so that what is done is what the files say then.

Which files a rollback moves, and under which names: back-ups never overwrite an older one.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from nantui.errors import NO, UserError
from nantui.recovery import run_facts
from nantui.recovery.history import QUARANTINE, Earlier, earlier_recoveries, repeats
from nantui.recovery.ladder import AGAIN, load_ladder, next_step, proven
from nantui.recovery.lost_without_script import lost_with_our_runner
from nantui.recovery.plan_inputs import PlanInputs, gather_inputs
from nantui.recovery.reason import reason_for, second_choice
from nantui.recovery.restore_points import (
    BEST,
    LAST,
    STOP_POINT,
    Candidate,
    Costs,
    best_at,
    choose,
    choose_before,
    costs_of,
    pick,
    why_again,
)
from nantui.recovery.resume_settings import (
    against_overflow,
    carried_over,
    kept_of_auto,
    rows_for,
    settings_in_effect,
    with_rate,
)
from nantui.recovery.trouble import Judgement, Reached, Trouble, overflow_words
from nantui.run.discovery import require_run
from nantui.run.layout import RunLayout
from nantui.run.plan import PlanPhase, place_of
from nantui.run.spec import OURS_DEFAULTS
from nantui.settings.gpu_memory import Measured, fit
from nantui.settings.lint import Known, LintFinding, lint, more_epochs
from nantui.settings.presets import find_presets, load_presets, phase_after
from nantui.settings.values import Change, changed, merge, show_value

EPOCH_FILE = re.compile(r"^epoch(\d+)\.pt$")
RESUME, RESTART = "resume", "restart"


@dataclass(frozen=True)
class Move:
    """A checkpoint that goes aside; paths are relative to the run."""

    source: str
    target: str
    why: str


def checkpoints_aside(
    facts: PlanInputs, id: str, restore: Candidate | None, best: Candidate | None, record_ends: str = ""
) -> list[Move]:
    """Return the moves of every checkpoint that must not stay where it is.

    `restore` None moves all of them (plan B). `record_ends` is the telling part of the name under which
    the old best is kept when its fitness can no longer be compared.
    """
    taken = existing_names(facts.layout)
    moves = []
    for one in sorted(facts.candidates, key=lambda one: one.name):
        source, stays = f"weights/{one.name}", best is not None and one.path == best.path and one.name == BEST
        if stays and record_ends:
            moves.append(Move(source, free_name(f"weights/best_{record_ends}", taken), "the old record"))
        elif not stays and (why := why_aside(one, restore)):
            moves.append(Move(source, target_of(facts, id, one, restore, taken), why))
    return moves


def why_aside(one: Candidate, restore: Candidate | None) -> str:
    """Return why a checkpoint moves, "" when it stays."""
    if restore is None:
        return "the training begins again"
    if one.path == restore.path:
        return "replaced by the restored one" if one.name in (LAST, STOP_POINT) else ""
    if one.verdict.badge == "busy":
        return one.why_not
    if one.verdict.badge == "corrupt" or one.name in (LAST, STOP_POINT, BEST):
        return one.verdict.badge if one.verdict.badge != "clean" else "replaced by the restored one"
    epoch = epoch_of(one)
    return "newer than the restore point" if epoch is None or epoch > (restore.epoch or 0) else ""


def epoch_of(one: Candidate) -> int | None:
    """Return the epoch, from 0, that the file or else its name tells."""
    found = EPOCH_FILE.match(one.name)
    return one.epoch if one.epoch is not None else int(found[1]) if found else None


def target_of(facts: PlanInputs, id: str, one: Candidate, restore: Candidate | None, taken: set[str]) -> str:
    """Return where a checkpoint moves: into the transaction's own backups when it is sound and not newer
    than the restore point, else to corrupted_backup/ under a name that tells the incident's epoch.
    """
    limit = -1 if restore is None or restore.epoch is None else restore.epoch
    sound = one.verdict.badge == "clean"
    if sound and one.epoch is not None and one.epoch <= limit:
        return f"nantui/backups/{id}/weights/{one.name}"
    judged = sound or one.verdict.badge == "busy"
    word = "corrupted" if not judged else "suspect" if facts.trouble else "aside"
    epoch = facts.trouble.epoch if facts.trouble else facts.reached.epoch
    return free_name(f"weights/corrupted_backup/{one.path.stem}_epoch{epoch}_{word}", taken)


def existing_names(layout: RunLayout) -> set[str]:
    """Return the relative paths that are taken in weights/ and its back-up folder."""
    folders = (layout.weights, layout.corrupted_backup)
    return {
        f"{folder.relative_to(layout.run)}/{path.name}"
        for folder in folders
        if folder.is_dir()
        for path in folder.iterdir()
    }


def free_name(stem: str, taken: set[str]) -> str:
    """Return `stem`.pt, or with -2, -3 … when that is taken, and take it."""
    name, number = f"{stem}.pt", 2
    while name in taken:
        name, number = f"{stem}-{number}.pt", number + 1
    taken.add(name)
    return name


def record_ends_because(changed: Collection[str]) -> list[str]:
    """Return the changed settings after which an old fitness can no longer be compared with a new one."""
    return [
        name
        for name in ("imgsz", "data", "split", "val", "single_cls", "conf", "iou", "max_det")
        if name in changed
    ]


@dataclass(frozen=True)
class Plan:
    """A rollback as it would be done. `mode` is RESUME, or RESTART for plan B (no clean checkpoint).

    `reason` is what it is for, `judgement` what finite numbers say; `second`, the proposal below the first,
    is the newest restore point from before that, None where the first one is no later.
    """

    id: str
    run: Path
    mode: str
    restore: Candidate | None
    candidates: tuple[Candidate, ...]
    trouble: Trouble | None
    reached: Reached
    moves: tuple[Move, ...]
    best: Candidate | None
    settings: tuple[Change, ...]
    in_effect: Mapping[str, Any]
    costs: Costs
    findings: tuple[LintFinding, ...] = ()
    warnings: tuple[str, ...] = ()
    presets: tuple[str, ...] = ()
    record_ends: tuple[str, ...] = ()
    carried: Mapping[str, Any] = field(default_factory=dict)
    earlier: tuple[Earlier, ...] = ()
    asked: Mapping[str, Any] = field(default_factory=dict)
    afterwards: PlanPhase | None = None
    auto: bool = False
    reason: Trouble | Judgement | None = None
    judgement: Judgement | None = None
    second: Candidate | None = None

    @property
    def appended(self) -> PlanPhase | None:
        """The phase that the run is to go on with by itself once it has finished: unattended only."""
        return self.afterwards if self.auto else None

    @property
    def plan_b(self) -> bool:
        """Whether nothing clean is left and the training begins again."""
        return self.mode == RESTART

    @property
    def incident_epoch(self) -> int:
        """The epoch, from 1, that names the back-ups."""
        return self.trouble.epoch if self.trouble else self.reached.epoch

    @property
    def second_words(self) -> str:
        """The second proposal in words, "" without one."""
        if self.second is None or self.judgement is None:
            return ""
        return f"epoch {self.second.work} ({self.second.name}): {self.judgement.named}"

    @property
    def headline(self) -> str:
        """What happens, in one line."""
        if self.restore is None:
            return f"Plan B: {why_again(self.candidates)}, the training begins again"
        back = f"go back to {self.restore.name} (epoch {self.restore.work}"
        lost = f"; lost: {self.costs.lost_text})" if self.costs.epochs_lost else "; nothing is lost)"
        return back + lost

    def to_json(self) -> dict[str, Any]:
        """Return the plan as `--dry-run --json` and the helper's answer show it."""
        return {
            "id": self.id, "run": str(self.run), "mode": self.mode, "headline": self.headline,
            "restore_point": self.restore.to_json() if self.restore else None,
            "candidates": [one.to_json() for one in self.candidates],
            "trouble": asdict(self.trouble) if self.trouble else None,
            "judgement": asdict(self.judgement) if self.judgement else None,
            "second": {**self.second.to_json(), "words": self.second_words} if self.second else None,
            "moves": [asdict(move) for move in self.moves], "best": self.best.name if self.best else None,
            "settings": [asdict(change) for change in self.settings], "costs": asdict(self.costs),
            "warnings": list(self.warnings), "findings": [asdict(one) for one in self.findings],
            "afterwards": asdict(self.afterwards) if self.afterwards else None, "auto": self.auto,
            "presets": list(self.presets), "earlier": [asdict(one) for one in self.earlier],
        }  # fmt: skip


def make_plan(
    run_dir: Path,
    to: str | None = None,
    settings: Mapping[str, Any] | None = None,
    presets: Sequence[str] | None = None,
    *,
    propose: bool | None = None,
    restart: bool = False,
    python: str | None = None,
    measured: Measured | None = None,
    allow: Collection[str] = (),
    id: str = "",
) -> Plan:
    """Return what a rollback of the run in `run_dir` would do.

    `to` names a checkpoint; by default the best restore point is chosen. `settings` are asked for by name,
    `presets` applied below them. With `propose` the guard and, where `presets` is None, the remedy that the
    evidence supports are proposed beneath what is asked for, when there was trouble; by default where nothing
    is asked for. `restart` asks for plan B; `allow` names code that loading may run;
    `id` names the transaction and its backups. Raises UserError: no run, a checkpoint that cannot be used,
    an unknown setting or preset, a wrong value.
    """
    facts = gather_inputs(require_run(Path(run_dir)), dict(settings or {}), python, allow)
    restore = choose_restore(facts, to, restart)
    in_effect = settings_in_effect(facts, restore)
    if propose is None:
        propose = not settings and presets is None
    wanted_by_default = propose and presets is None
    propose = propose and reason_for(facts, restore) is not None
    wanted = propose and presets is None
    known = known_to(facts, restore, in_effect, measured)
    names = propose_presets(facts, restore, in_effect, known.bf16) if wanted else tuple(presets or ())
    rows = rows_for(names, facts, in_effect, propose_guard=propose)
    if wanted_by_default:
        rows = merge(rows, against_overflow(facts, in_effect))
    rows = fit(rows, in_effect, known.measured, known.now)
    rows = with_rate(rows, in_effect, known.epoch)
    rows += kept_of_auto(restore, in_effect, rows)
    return put_together(facts, restore, in_effect, rows, names, known, id or uuid.uuid4().hex)


def known_to(
    facts: PlanInputs, restore: Candidate | None, in_effect: Mapping[str, Any], measured: Measured | None
) -> Known:
    """Return what lint may go by; `measured` takes the place of what the run's own files tell."""
    verdicts = [one.verdict for one in facts.candidates]
    known = run_facts.known_about(facts.layout, in_effect, restore.work or 0 if restore else 0, verdicts)
    return replace(known, measured=measured or known.measured)


def propose_presets(
    facts: PlanInputs, restore: Candidate | None, in_effect: Mapping[str, Any], bf16: bool | None
) -> tuple[str, ...]:
    """Return the remedy that the evidence and the earlier recoveries suggest, as presets; `bf16` tells
    whether the GPUs support it.
    """
    if restore is None:
        return (AGAIN,)
    earlier, proof = earlier_recoveries(facts.layout), proven(facts.layout, reason_for(facts, restore))
    presets = load_presets(facts.schema, facts.layout.run)
    step = next_step(load_ladder(), earlier, proof, presets, in_effect, facts.schema.fields, bf16=bf16)
    return (step,) if step and step != QUARANTINE else ()


def choose_restore(facts: PlanInputs, to: str | None, restart: bool) -> Candidate | None:
    """Return the restore point, None for plan B. Raises UserError when there is nothing to do at all."""
    if restart:
        return None
    if to:
        return pick(facts.candidates, to, facts.layout)
    restore = choose(facts.candidates)
    if restore is None or facts.trouble is None:
        refuse_finished(facts, restore)
    return restore


def put_together(
    facts: PlanInputs,
    restore: Candidate | None,
    in_effect: Mapping[str, Any],
    rows: Sequence[Change],
    presets: tuple[str, ...],
    known: Known,
    id: str,
) -> Plan:
    """Return the plan for a restore point and the settings' rows."""
    then = {**in_effect, **changed(rows)}
    best = best_at(facts.candidates, restore) if restore else None
    ends = tuple(record_ends_because(changed(rows)))
    label = f"{ends[0]}{in_effect.get(ends[0])}_epoch{best.work}" if ends and best else ""
    moves = checkpoints_aside(facts, id, restore, best, safe_name(label))
    earlier = tuple(earlier_recoveries(facts.layout))
    carried = carried_over(facts, restore, in_effect, rows)
    return Plan(
        id=id,
        run=facts.layout.run,
        mode=RESUME if restore else RESTART,
        restore=restore,
        candidates=tuple(facts.candidates),
        trouble=facts.trouble,
        reached=facts.reached,
        reason=reason_for(facts, restore),
        judgement=facts.judgement,
        second=second_choice(facts, restore),
        moves=tuple(moves),
        best=best,
        settings=tuple(rows),
        in_effect=in_effect,
        costs=costs_of(restore, facts.reached, in_effect, then),
        findings=tuple(lint(then, known)),
        warnings=tuple(warnings_for(facts, restore, rows, earlier, carried)),
        presets=presets,
        record_ends=ends,
        earlier=earlier,
        carried=carried,
        asked={**(carried if restore is None else {}), **facts.asked, **changed(rows)},
        afterwards=afterwards_of(presets, facts, in_effect, rows),
        auto=facts.spec is not None and facts.spec.auto,
    )


def afterwards_of(
    presets: Sequence[str], facts: PlanInputs, in_effect: Mapping[str, Any], rows: Sequence[Change]
) -> PlanPhase | None:
    """Return the phase that the remedies ask for at the end; a plan that goes on anyway needs none."""
    place = place_of(facts.spec.plan) if facts.spec else None
    if not presets or (place is not None and place.number < place.of):
        return None
    wanted = find_presets(presets, facts.schema, facts.layout.run)
    return phase_after([preset.then for preset in wanted], in_effect, rows)


def warnings_for(
    facts: PlanInputs,
    restore: Candidate | None,
    rows: Sequence[Change],
    earlier: Sequence[Earlier],
    carried: Mapping[str, Any],
) -> list[str]:
    """Return what the person should know before saying yes."""
    found = []
    if restore is None:
        found.append(f"{why_again(facts.candidates)}: it begins again from the model's own weights")
    elif names := restore.verdict.names_to_allow:
        found.append(f"loading {restore.name} runs code of {', '.join(names)}: allow it by name")
    if facts.overflowed:
        found.append(f"{overflow_words(facts.overflowed)}; metrics or later epochs show a sound network")
    if busy := [one.name for one in facts.candidates if one.verdict.badge == "busy"]:
        found.append(f"{', '.join(busy)}: being written now, judged again once the training has stopped")
    if facts.spec is not None and facts.spec.kind == "exec":
        found.append(
            "trained by its own script, which goes on with it: arguments in the script win over ours"
        )
    if facts.spec is None:
        found += [f"nantui's own runner goes on without {one}" for one in lost_with_our_runner(facts.layout)]
    if not facts.args:
        found.append("args.yaml is missing: the settings are those in the checkpoint")
    if restore and restore.verdict.repairable and not restore.verdict.resumable:
        found.append(f"{restore.name}: optimizer or scaler state is not finite and begins anew")
    if carried:
        words = ", ".join(f"{name}={show_value(value)}" for name, value in carried.items())
        found.append(f"what earlier recoveries or auto decided stays in force: {words}")
    if stock := [row.name for row in rows if row.name in OURS_DEFAULTS and not row.kept]:
        found.append(
            f"{', '.join(stock)}: nantui's own, of no effect if you resume with plain `yolo` instead"
        )
    if restore and (repeat := repeats(earlier, f"weights/{restore.name}", changed(rows))):
        found.append(repeat)
    return found


def refuse_finished(facts: PlanInputs, restore: Candidate | None) -> None:
    """Raise UserError (NO) when every epoch was trained: going back would only repeat the last ones."""
    done = next((one for one in facts.candidates if one.finished), None)
    if done is not None and (restore is None or (done.epoch or 0) > (restore.epoch or 0)):
        raise UserError(finished_words(facts, done, restore), NO)
    if not facts.candidates and not facts.args and facts.spec is None:
        raise UserError(
            f"{facts.layout.weights}: no checkpoint and no args.yaml; nothing can be restored", NO
        )


def finished_words(facts: PlanInputs, done: Candidate, older: Candidate | None) -> str:
    """Return that a run is finished and how one goes on all the same, in the shell and in the cockpit."""
    work, run = done.work or 0, facts.layout.run
    text = f"{run.name} is finished, all {work} epochs are trained; to train longer raise epochs, "
    text += f"e.g. --set epochs={more_epochs(work)} (in the cockpit: epochs in c, then s)"
    if facts.judgement is not None:
        text += f"; {facts.judgement.as_judged}"
        older = choose_before(facts.candidates, facts.judgement.epoch) or older
    if older is None:
        return text
    return f"{text}; to train on from an older epoch: nantui rollback {run} --to {older.name}, then resume"


def safe_name(text: str) -> str:
    """Return `text` fit for a file name."""
    return "".join(letter if letter.isalnum() or letter in "_-." else "-" for letter in text)
