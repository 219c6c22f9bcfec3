"""What `R` would do, worked out before anything is touched: the dialog, the command and the policy share it.

A plan reads files only. It is cheap enough for a thread of the cockpit; the helper process makes it
again before it acts, so that what is done is what the files say then.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from nantui.errors import NO, UserError
from nantui.recovery.agreement import refuse_named
from nantui.recovery.history import QUARANTINE, Earlier, earlier_recoveries, repeats
from nantui.recovery.ladder import AGAIN, UNCHANGED, Proof, load_ladder, next_step, proven
from nantui.recovery.plan_inputs import PlanInputs, gather_inputs
from nantui.recovery.remedies import in_words
from nantui.recovery.restore_points import (
    BEST,
    LAST,
    NOT_WRITTEN,
    STOP_POINT,
    Candidate,
    Costs,
    best_at,
    choose,
    costs_of,
    pick,
    why_again,
)
from nantui.recovery.resume_settings import carried_over, rows_for, settings_in_effect
from nantui.recovery.run_facts import known_about
from nantui.recovery.trouble import Judgement, Trouble, overflow_words
from nantui.run.documents import JsonObject
from nantui.run.events import Incident, of_kind
from nantui.run.plan import PlanPhase, place_of
from nantui.run.record import RunRecord, read_run
from nantui.run.spec import OURS_DEFAULTS
from nantui.settings.lint import Known, LintFinding, lint, more_epochs
from nantui.settings.presets import as_words, find_presets, load_presets, phase_after
from nantui.settings.schema import Schema
from nantui.settings.values import Change, cells, changed, number, show_value
from nantui.words import aligned, span, which_epochs

RESUME, RESTART = "resume", "restart"
ENDS_THE_RECORD = ("imgsz", "data", "split", "val", "single_cls", "conf", "iou", "max_det")
"""Settings after whose change an old fitness can no longer be compared with a new one."""
EPOCH_FILE = re.compile(r"^epoch(\d+)\.pt$")
UNKNOWN = "whatever its script adds: a trainer class, callbacks, loggers, changes to data set or model"


@dataclass(frozen=True)
class Move:
    """A checkpoint that goes aside; paths are relative to the run."""

    source: str
    target: str
    why: str


@dataclass(frozen=True)
class Plan:
    """A rollback as it would be done. `mode` is RESUME, or RESTART for plan B (no clean checkpoint).

    `reason` is what it is for, `judgement` what finite numbers say; `second`, the proposal below the first,
    is the newest restore point from before that, None where the first one is no later. `measured` is what is
    known of the remedy that is proposed, "" where none is. Of the `guilty` images, absolute paths that the
    autopsy named, `images` are left out with it. `attempt` is the newest that it knows of.
    """

    id: str
    run: Path
    mode: str
    restore: Candidate | None
    candidates: tuple[Candidate, ...]
    trouble: Trouble | None
    moves: tuple[Move, ...]
    best: Candidate | None
    settings: tuple[Change, ...]
    in_effect: Mapping[str, object]
    costs: Costs
    findings: tuple[LintFinding, ...]
    warnings: tuple[str, ...]
    presets: tuple[str, ...]
    record_ends: tuple[str, ...]
    carried: Mapping[str, object]
    earlier: tuple[Earlier, ...]
    asked: Mapping[str, object]
    afterwards: PlanPhase | None
    auto: bool
    reason: Trouble | Judgement | None
    judgement: Judgement | None
    second: Candidate | None
    measured: str = ""
    guilty: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    attempt: int = 0

    @property
    def decided(self) -> dict[str, object]:
        """What is written down: decisions of before that stay in force, and what changes now."""
        return {**self.carried, **changed(self.settings)}

    @property
    def appended(self) -> PlanPhase | None:
        """The phase that the run is to go on with by itself once it has finished: unattended only."""
        return self.afterwards if self.auto else None

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
            "measured": self.measured, "images": list(self.images),
        }  # fmt: skip


def make_plan(
    run: Path | RunRecord, to: str | None = None, settings: Mapping[str, object] | None = None,
    presets: Sequence[str] | None = None, *, propose: bool | None = None, restart: bool = False,
    python: str | None = None, allow: Collection[str] = (), id: str = "", diagnosed: tuple[str, ...] = (),
    leave_out: bool | None = None,
) -> Plan:  # fmt: skip
    """Return what a rollback of a run, by its directory or as it was read already, would do.

    `to` names a checkpoint; by default the best restore point is chosen. `settings` are asked for by name,
    `presets` applied below them. With `propose` the guard and, where `presets` is None, the remedy that the
    evidence supports are proposed beneath what is asked for, when there was trouble; by default where nothing
    is asked for; `diagnosed` is as in `Proof`. `leave_out` tells whether images that are proven guilty are
    left out; None: if that was measured to help first. `restart` asks for plan B; `allow` names code that
    loading may run; `id` names the transaction and its backups. Raises UserError: no run, a checkpoint that
    cannot be used, an unknown setting or preset, a wrong value.
    """
    record = run if isinstance(run, RunRecord) else read_run(run)
    facts = gather_inputs(record, dict(settings or {}), python, allow)
    restore = choose_restore(facts, to, restart)
    refuse_named(record, restore.verdict if restore else None, allow)
    in_effect = settings_in_effect(facts, restore)
    own = [one.verdict for one in facts.candidates if not one.stranger]
    known = known_about(record, in_effect, restore.work or 0 if restore else 0, own)
    if propose is None:
        propose = not settings and presets is None
    wanted, reason = propose and presets is None, facts.reason_for(restore)
    proof = proven(record, reason, diagnosed)  # of steps that were undone, too: they change nothing else
    # A run that finished with nothing but undone steps has nothing to cure, whatever happened before.
    cured = any(one.finished for one in facts.candidates) and bool(of_kind(record.journal, Incident))
    cured = cured and all(one.harmless for one in of_kind(record.standing.all_events, Incident))
    propose = propose and bool(reason or proof.guilty or (restart and diagnosed and not cured))
    names, table = tuple(presets or ()), proof.remedies
    if wanted and propose:
        by_evidence = restore is not None or any(row.cured for row in table)
        names = propose_presets(facts, in_effect, known.bf16, proof) if by_evidence else (AGAIN,)
    rows = rows_for(facts, restore, in_effect, names, known, guard=propose, remedies=wanted)
    first = wanted and propose and not names and [one.step for one in table[:1]] == [QUARANTINE]
    images = proof.guilty if leave_out or (leave_out is None and first) else ()
    said = in_words(table, (*names, QUARANTINE if images else UNCHANGED)[0]) if propose else ""
    plan = put_together(facts, restore, in_effect, rows, names, known, id or uuid.uuid4().hex)
    return replace(plan, measured=said, guilty=proof.guilty, images=images, attempt=record.newest.number)


def exactly(plan: Plan) -> JsonObject:
    """Return the options of the command that does what the plan shows, nothing proposed anew."""
    target: JsonObject = {"to": plan.restore.name} if plan.restore else {"force_restart": True}
    own = {"set": dict(plan.asked), "presets": list(plan.presets), "images": list(plan.images)}
    return {**own, "propose": False, "attempt": plan.attempt, **target}


def propose_presets(
    facts: PlanInputs, in_effect: Mapping[str, object], bf16: bool | None, proof: Proof
) -> tuple[str, ...]:
    """Return the remedy that the evidence and the earlier recoveries suggest, as presets."""
    earlier, presets = earlier_recoveries(facts.record), load_presets(facts.schema, facts.record.run)
    step = next_step(load_ladder(), earlier, proof, presets, in_effect, facts.schema.fields, bf16=bf16)
    return (step,) if step and step != QUARANTINE else ()


def choose_restore(facts: PlanInputs, to: str | None, restart: bool) -> Candidate | None:
    """Return the restore point, None for plan B. Raises UserError (NO) when there is nothing to do at all:
    going back in a finished run would only repeat its last epochs.
    """
    if to and not restart:
        return pick(facts.candidates, to, facts.record.layout)
    before = choose(facts.candidates, seen.epoch) if (seen := facts.judgement) and seen.said else None
    restore = None if restart else before or choose(facts.candidates)
    done = next((one for one in facts.candidates if one.finished), None)
    further = done is not None and (restore is None or (done.epoch or 0) > (restore.epoch or 0))
    if done is not None and further and not restart and (restore is None or facts.trouble is None):
        raise UserError(finished_words(facts, done, restore), NO)
    if restore is None and not facts.record.args and facts.spec is None:
        why = "; ".join(f"{one.name}: {one.why_not}" for one in facts.candidates[:3]) or "no checkpoint"
        said = f"nothing can be restored ({why}), nor begun again without args.yaml"
        raise UserError(f"{said}; nothing moved", NO)
    return restore


def put_together(
    facts: PlanInputs, restore: Candidate | None, in_effect: Mapping[str, object], rows: Sequence[Change],
    presets: tuple[str, ...], known: Known, id: str,
) -> Plan:  # fmt: skip
    """Return the plan for a restore point and the settings' rows."""
    changes = changed(rows)
    then = {**in_effect, **changes}
    best = best_at(facts.candidates, restore) if restore else None
    ends = tuple(name for name in ENDS_THE_RECORD if name in changes)
    label = f"{ends[0]}{in_effect.get(ends[0])}_epoch{best.work}" if ends and best else ""
    earlier = tuple(earlier_recoveries(facts.record))
    carried = carried_over(facts, restore, in_effect, rows)
    judgement = facts.judgement
    before = choose(facts.candidates, judgement.epoch) if judgement and restore else None
    second = before if before and restore and (before.work or 0) < (restore.work or 0) else None
    return Plan(
        id=id, run=facts.record.run, mode=RESUME if restore else RESTART, restore=restore,
        candidates=tuple(facts.candidates), trouble=facts.trouble, reason=facts.reason_for(restore),
        judgement=judgement, second=second,
        moves=tuple(checkpoints_aside(facts, id, restore, best, re.sub(r"[^\w.-]", "-", label))),
        best=best, settings=tuple(rows), in_effect=in_effect,
        costs=costs_of(restore, facts.reached, in_effect, then), findings=tuple(lint(then, known)),
        warnings=tuple(warnings_for(facts, restore, rows, earlier, carried)), presets=presets,
        record_ends=ends, earlier=earlier, carried=carried,
        asked={**(carried if restore is None else {}), **facts.asked, **changes},
        afterwards=afterwards_of(presets, facts, in_effect, rows),
        auto=facts.spec is not None and facts.spec.auto,
    )  # fmt: skip


def afterwards_of(
    presets: Sequence[str], facts: PlanInputs, in_effect: Mapping[str, object], rows: Sequence[Change]
) -> PlanPhase | None:
    """Return the phase that the remedies ask for at the end; a plan that goes on anyway needs none."""
    place = place_of(facts.spec.plan) if facts.spec else None
    if not presets or (place is not None and place.number < place.of):
        return None
    wanted = find_presets(presets, facts.schema, facts.record.run)
    return phase_after([preset.then for preset in wanted], in_effect, rows)


def checkpoints_aside(
    facts: PlanInputs, id: str, restore: Candidate | None, best: Candidate | None, record_ends: str = ""
) -> list[Move]:
    """Return the moves of every checkpoint that must not stay where it is.

    `restore` None moves all of them (plan B). `record_ends` is the telling part of the name under which
    the old best is kept when its fitness can no longer be compared.
    """
    layout = facts.record.layout
    folders = [one for one in (layout.weights, layout.corrupted_backup) if one.is_dir()]
    taken = {f"{one.relative_to(layout.run)}/{path.name}" for one in folders for path in one.iterdir()}
    moves = []
    for one in sorted(facts.candidates, key=lambda one: one.name):
        if one.point is not None:
            continue  # they move together, `points_aside`
        source, stays = f"weights/{one.name}", best is not None and one.path == best.path and one.name == BEST
        if stays and record_ends:
            moves.append(Move(source, _free(f"weights/best_{record_ends}", taken), "the old record"))
        elif not stays and (why := _why_aside(one, restore)):
            moves.append(Move(source, _target(facts, id, one, restore, taken), why))
    return moves


def _why_aside(one: Candidate, restore: Candidate | None) -> str:
    if restore is None:
        return "the training begins again"
    if one.path == restore.path:
        return "replaced by the restored one" if one.name in (LAST, STOP_POINT) else ""
    if one.verdict.badge == "busy":
        return one.why_not
    if one.why_not == NOT_WRITTEN:
        return ""
    if one.verdict.badge == "corrupt" or one.name in (LAST, STOP_POINT, BEST):
        return one.verdict.badge if one.verdict.badge != "clean" else "replaced by the restored one"
    named = EPOCH_FILE.match(one.name)
    epoch = one.epoch if one.epoch is not None else int(named[1]) if named else None
    return "newer than the restore point" if epoch is None or epoch > (restore.epoch or 0) else ""


def _target(facts: PlanInputs, id: str, one: Candidate, restore: Candidate | None, taken: set[str]) -> str:
    """Return where a checkpoint moves: into the transaction's own backups when it is sound and not newer
    than the restore point, else to corrupted_backup/ under a name that tells the incident's epoch.
    """
    limit = -1 if restore is None or restore.epoch is None else restore.epoch
    sound = one.verdict.badge == "clean"
    if sound and one.epoch is not None and one.epoch <= limit:
        return f"nantui/backups/{id}/weights/{one.name}"
    broken = not sound and one.verdict.badge != "busy"
    word = "corrupted" if broken else "suspect" if facts.trouble else "aside"
    epoch = facts.trouble.epoch if facts.trouble else facts.reached.epoch
    return _free(f"weights/corrupted_backup/{one.path.stem}_epoch{epoch}_{word}", taken)


def _free(stem: str, taken: set[str]) -> str:
    name, number = f"{stem}.pt", 2
    while name in taken:
        name, number = f"{stem}-{number}.pt", number + 1
    taken.add(name)
    return name


def warnings_for(
    facts: PlanInputs, restore: Candidate | None, rows: Sequence[Change], earlier: Sequence[Earlier],
    carried: Mapping[str, object],
) -> list[str]:  # fmt: skip
    """Return what the person should know before saying yes."""
    found = []
    if restore is None:
        found.append(f"{why_again(facts.candidates)}: it begins again from the model's own weights")
        kept = "" if changed(rows) else "; the settings stay as they are"
        found.append(f"results.csv moves aside, too{kept}")
    elif (seen := facts.judgement) and seen.said and not choose(facts.candidates, seen.epoch):
        found.append(f"{seen.named}; no checkpoint is from before that: b begins again")
    if restore and (names := restore.verdict.names_to_allow):
        found.append(f"loading {restore.name} runs code of {', '.join(names)}: allow it by name")
    if facts.overflowed:
        found.append(f"{overflow_words(facts.overflowed)}; metrics or later epochs show a sound network")
    if busy := [one.name for one in facts.candidates if one.verdict.badge == "busy"]:
        found.append(f"{', '.join(busy)}: being written now, judged again once the training has stopped")
    if facts.spec is None:
        found += [f"nantui's own runner goes on without {one}" for one in lost_with_our_runner(facts.record)]
    elif facts.spec.kind == "exec":
        found.append("trained by its own script, which goes on with it: arguments there win over ours")
    if facts.record.results_unread:
        found.append("results.csv cannot be read: how far it came, and whether it holds NaN, is not known")
    if not facts.record.args:
        found.append("args.yaml is missing: the settings are those in the checkpoint")
    if restore and restore.verdict.repairable and not restore.verdict.resumable:
        found.append(f"{restore.name}: optimizer or scaler state is not finite and begins anew")
    if carried:
        words = ", ".join(f"{name}={show_value(value)}" for name, value in carried.items())
        found.append(f"decided before (asked, recovered or optimizer=auto), stays in force: {words}")
    if own := ", ".join(row.name for row in rows if row.name in OURS_DEFAULTS and not row.kept):
        found.append(f"{own}: nantui's own, of no effect if you resume with plain `yolo` instead")
    if restore and (repeat := repeats(earlier, restore.place, changed(rows))):
        found.append(repeat)
    return found


def finished_words(facts: PlanInputs, done: Candidate, older: Candidate | None) -> str:
    """Return that a run is finished and how one goes on all the same, in the shell and in the cockpit."""
    work, run, asked = done.work or 0, facts.record.run, facts.asked.get("epochs")
    if asked and number(facts.record.args.get("epochs")) > work:
        return f"epochs={asked}: {work} are trained already; leave it out to go on as before"
    text = f"{run.name} is finished, all {work} epochs are trained; to train longer raise epochs, "
    text += f"e.g. --set epochs={more_epochs(work)} (in the cockpit: epochs in c, w, then R); to begin "
    text += f"again, all of it moved aside: nantui recover {run} --restart (in the cockpit: R, then b)"
    if facts.judgement is not None:
        text += f"; {facts.judgement.in_words}"
        older = choose(facts.candidates, facts.judgement.epoch) or older
    if older is None:
        return text
    return f"{text}; to train on from an older epoch: nantui rollback {run} --to {older.name}, then resume"


def lost_with_our_runner(record: RunRecord, schema: Schema | None = None) -> list[str]:
    """Return what a training loses, one thing a line, when nantui's own runner goes on with it instead of the
    script that began it; nothing where our runner trains already.

    Nobody can see in a run directory what a script did besides training. What is known is named (the guard
    reports a trainer class, callbacks and a data set class of the script's own); the rest is said.
    """
    spec = record.spec
    if spec is not None and spec.kind != "exec":
        return []
    argv = (spec.exec or {}).get("argv") or [] if spec else []
    lost = [f"its own script: {' '.join(map(str, argv))}"] if spec else []
    reported = (attempt.in_effect for attempt in reversed(record.attempts))
    own = next((one.own for one in reported if one is not None and one.own is not None), (UNKNOWN,))
    unknown = [name for name in record.args if name not in schema.fields] if schema else []
    return [*lost, *own, *(f"{name}, a setting that this Ultralytics does not know" for name in unknown)]


def plan_lines(plan: Plan) -> list[str]:
    """Return the plan as lines: what happens, what it costs, what moves, what changes and why."""
    lines = [plan.headline]
    if found := plan.trouble:
        seen = f"epoch {found.epoch}" + (f", step {found.step}" if found.step else "")
        lines.append(f"because: {found.text or found.kind} ({seen}, seen in {found.source})")
    if plan.second is not None:
        lines.append(f"or --to {plan.second.name}: {plan.second_words}; yours to decide")
    elif plan.judgement is not None:
        lines.append(plan.judgement.in_words)
    lines += [f"measured: {plan.measured}"] if plan.measured else []
    if again := plan.costs.again:
        time = f", {span(plan.costs.hours_lost)}" if math.isfinite(plan.costs.hours_lost) else ""
        lines.append(f"costs: {again}{time}")
    if math.isfinite(left := plan.costs.hours_remaining):
        factor = plan.costs.factor
        slower = f", each about {factor:.2g} times as long as before" if factor != 1 else ""
        lines.append(f"costs: {span(left)} of training left{slower}")
    lines += [f"moves: {move.source} to {move.target} ({move.why})" for move in plan.moves]
    lines += [f"  {line}" for line in settings_table(plan.settings)]
    lines += [f"leaves out: {image}, proven by the autopsy" for image in plan.images]
    lines += afterwards(plan)
    lines += [f"note: {finding.name}: {finding.text}" for finding in plan.findings]
    return lines + [f"warning: {warning}" for warning in plan.warnings]


def afterwards(plan: Plan) -> list[str]:
    """Return what follows at the end of the run: by itself when it is unattended, else as an offer."""
    if plan.afterwards is None:
        return []
    words = " ".join(as_words(plan.afterwards))
    if plan.appended:
        return [f"afterwards: {plan.afterwards.title} ({words}), as a further phase of this run"]
    return [f"once it has finished: nantui resume {plan.run} --phase {words}  ({plan.afterwards.title})"]


def settings_table(changes: Sequence[Change]) -> list[str]:
    """Return the guide's table: parameter, now, then, why."""
    head = ("parameter", "now", "then", "why")
    return aligned([head, *map(cells, changes)]) if changes else []
