"""What `R` would do, worked out before anything is touched: the dialog, the command and the policy share it.

A plan reads files only. It is cheap enough for a thread of the cockpit; the helper process makes it
again before it acts, so that what is done is what the files say then.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from nantui.recovery import run_facts
from nantui.recovery.agreement import refuse_named
from nantui.recovery.checkpoint_moves import Move, checkpoints_aside
from nantui.recovery.history import QUARANTINE, Earlier, earlier_recoveries
from nantui.recovery.judgement import Judgement
from nantui.recovery.ladder import AGAIN, load_ladder, next_step, proven
from nantui.recovery.plan_inputs import PlanInputs, gather_inputs, reason_for, second_choice
from nantui.recovery.plan_warnings import refuse_finished, refuse_nothing_to_begin, warnings_for
from nantui.recovery.restore_points import Candidate, Costs, best_at, choose, costs_of, pick, why_again
from nantui.recovery.resume_settings import (
    against_memory,
    against_overflow,
    carried_over,
    kept_of_auto,
    rows_for,
    settings_in_effect,
    with_rate,
)
from nantui.recovery.trouble import Trouble
from nantui.run.plan import PlanPhase, place_of
from nantui.run.record import Reached, RunRecord, read_run
from nantui.settings.gpu_memory import Measured, fit
from nantui.settings.lint import Known, LintFinding, lint
from nantui.settings.presets import find_presets, load_presets, phase_after
from nantui.settings.values import Change, changed, merge
from nantui.words import which_epochs

RESUME, RESTART = "resume", "restart"


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
    in_effect: Mapping[str, object]
    costs: Costs
    findings: tuple[LintFinding, ...] = ()
    warnings: tuple[str, ...] = ()
    presets: tuple[str, ...] = ()
    record_ends: tuple[str, ...] = ()
    carried: Mapping[str, object] = field(default_factory=dict)
    earlier: tuple[Earlier, ...] = ()
    asked: Mapping[str, object] = field(default_factory=dict)
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
        lost = f"lost: {which_epochs(self.costs.lost_text)}" if self.costs.again else "nothing is lost"
        if self.restore.point is not None:
            return f"go back to {self.restore.words} ({lost})"
        return f"go back to {self.restore.name} (epoch {self.restore.work}; {lost})"

    def to_json(self) -> dict[str, object]:
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
    run: Path | RunRecord,
    to: str | None = None,
    settings: Mapping[str, object] | None = None,
    presets: Sequence[str] | None = None,
    *,
    propose: bool | None = None,
    restart: bool = False,
    python: str | None = None,
    measured: Measured | None = None,
    allow: Collection[str] = (),
    id: str = "",
) -> Plan:
    """Return what a rollback of a run, by its directory or as it was read already, would do.

    `to` names a checkpoint; by default the best restore point is chosen. `settings` are asked for by name,
    `presets` applied below them. With `propose` the guard and, where `presets` is None, the remedy that the
    evidence supports are proposed beneath what is asked for, when there was trouble; by default where nothing
    is asked for. `restart` asks for plan B; `allow` names code that loading may run;
    `id` names the transaction and its backups. Raises UserError: no run, a checkpoint that cannot be used,
    an unknown setting or preset, a wrong value.
    """
    record = run if isinstance(run, RunRecord) else read_run(run)
    facts = gather_inputs(record, dict(settings or {}), python, allow)
    restore = choose_restore(facts, to, restart)
    refuse_named(record, restore.verdict if restore else None, allow)
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
        rows = merge(rows, [*against_overflow(facts, in_effect), *against_memory(facts, in_effect)])
    rows = fit(rows, in_effect, known.measured, known.now)
    rows = with_rate(rows, in_effect, known.epoch)
    rows += kept_of_auto(restore, in_effect, rows)
    return put_together(facts, restore, in_effect, rows, names, known, id or uuid.uuid4().hex)


def known_to(
    facts: PlanInputs, restore: Candidate | None, in_effect: Mapping[str, object], measured: Measured | None
) -> Known:
    """Return what lint may go by; `measured` takes the place of what the run's own files tell."""
    verdicts = [one.verdict for one in facts.candidates if not one.stranger]
    known = run_facts.known_about(facts.record, in_effect, restore.work or 0 if restore else 0, verdicts)
    return replace(known, measured=measured or known.measured)


def propose_presets(
    facts: PlanInputs, restore: Candidate | None, in_effect: Mapping[str, object], bf16: bool | None
) -> tuple[str, ...]:
    """Return the remedy that the evidence and the earlier recoveries suggest, as presets; `bf16` tells
    whether the GPUs support it.
    """
    if restore is None:
        return (AGAIN,)
    earlier, proof = earlier_recoveries(facts.record), proven(facts.record, reason_for(facts, restore))
    presets = load_presets(facts.schema, facts.layout.run)
    step = next_step(load_ladder(), earlier, proof, presets, in_effect, facts.schema.fields, bf16=bf16)
    return (step,) if step and step != QUARANTINE else ()


def choose_restore(facts: PlanInputs, to: str | None, restart: bool) -> Candidate | None:
    """Return the restore point, None for plan B. Raises UserError when there is nothing to do at all."""
    if to and not restart:
        return pick(facts.candidates, to, facts.layout)
    restore = None if restart else choose(facts.candidates)
    if not restart and (restore is None or facts.trouble is None):
        refuse_finished(facts, restore)
    if restore is None:
        refuse_nothing_to_begin(facts)
    return restore


def put_together(
    facts: PlanInputs,
    restore: Candidate | None,
    in_effect: Mapping[str, object],
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
    earlier = tuple(earlier_recoveries(facts.record))
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
    presets: Sequence[str], facts: PlanInputs, in_effect: Mapping[str, object], rows: Sequence[Change]
) -> PlanPhase | None:
    """Return the phase that the remedies ask for at the end; a plan that goes on anyway needs none."""
    place = place_of(facts.spec.plan) if facts.spec else None
    if not presets or (place is not None and place.number < place.of):
        return None
    wanted = find_presets(presets, facts.schema, facts.layout.run)
    return phase_after([preset.then for preset in wanted], in_effect, rows)


def record_ends_because(changed: Collection[str]) -> list[str]:
    """Return the changed settings after which an old fitness can no longer be compared with a new one."""
    return [
        name
        for name in ("imgsz", "data", "split", "val", "single_cls", "conf", "iou", "max_det")
        if name in changed
    ]


def safe_name(text: str) -> str:
    """Return `text` fit for a file name."""
    return "".join(letter if letter.isalnum() or letter in "_-." else "-" for letter in text)
