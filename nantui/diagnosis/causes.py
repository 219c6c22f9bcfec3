"""Why it happened: from a run's files to ranked causes, each with its evidence, and what helps.

Prior odds, written likelihood ratios and the posterior are all in the result, so that a person can
disagree; what could not be measured is listed as unknown, and no claim is made from it. What a remedy costs
comes from a rollback that is planned and not carried out: epochs lost, hours left and how much longer an
epoch takes, from the run's own epoch times.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from nantui.diagnosis import evidence
from nantui.diagnosis.evidence import Evidence, Ranked, rank_causes
from nantui.diagnosis.facts import TroubleFacts, gather_facts
from nantui.errors import UserError
from nantui.recovery.history import newest_end, ran_out_of_memory
from nantui.recovery.ladder import guilty_images
from nantui.recovery.plan import Plan, make_plan
from nantui.recovery.trouble import judge_numbers, mosaic_closes, overflow_words, overflows
from nantui.run.attempts import FAILED
from nantui.run.endings import DIVERGED, Cause, cause_of
from nantui.run.events import Incident, document_of
from nantui.run.record import read_run
from nantui.settings.gpu_memory import Measured, least_gb
from nantui.settings.values import changed
from nantui.words import count, span, which_epochs

WORTH_ADVICE = 0.1
MOST = 3
"""Causes that are given advice, when they are at least this probable."""
SURE = 0.5
BY_HAND = {name: row["by_hand"] for name, row in evidence.CAUSES.items() if "by_hand" in row}


@dataclass(frozen=True)
class Advice:
    """One remedy: a preset (empty where none applies), settings beside it, images to leave out, and why.

    `cost` is in words; `numbers` holds what it was made of (hours, factor, GB), absent where not measured.
    """

    cause: str
    why: str
    preset: str = ""
    settings: dict[str, object] = field(default_factory=dict)
    images: tuple[str, ...] = ()
    cost: str = ""
    numbers: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Diagnosis:
    """The outcome: `incident` that the trouble began with, `causes` most probable first, `unknown` in words,
    `notes` on what is no sign of trouble by itself: a judgement, a validation that overflowed.

    `replay` says whether repeating the epoch could tell more: nantui did not watch, or saw no autopsy.
    """

    run: Path
    watched: bool
    incident: Incident | None = None
    causes: Sequence[Ranked] = ()
    advice: Sequence[Advice] = ()
    unknown: Sequence[str] = ()
    notes: Sequence[str] = ()
    replay: bool = False
    incidents: int = 0
    facts: TroubleFacts | None = field(default=None, repr=False)

    def to_json(self) -> dict[str, object]:
        """Return the document of `nantui diagnose --json`."""
        return {
            "run": str(self.run), "watched": self.watched,
            "incident": _document(self.incident) if self.incident else None, "incidents": self.incidents,
            "causes": [cause.to_json() for cause in self.causes],
            "advice": [asdict(advice) for advice in self.advice], "unknown": list(self.unknown),
            "notes": list(self.notes), "replay": self.replay,
        }  # fmt: skip


def diagnose(
    run: Path, *, labels: bool = True, costs: bool = True, more: Sequence[Evidence] = ()
) -> Diagnosis:
    """Return why the run's last trouble happened.

    `labels` checks its labels, `costs` plans the remedies, `more` is evidence from elsewhere.
    Raises UserError when `run` is no run. Reads only.
    """
    record = read_run(run)
    facts = gather_facts(record)
    sign, bad = facts.first, facts.bad_row
    if sign is None and bad is not None and not facts.watched:
        where = ", ".join(name for name, value in bad.values.items() if not math.isfinite(value))
        text = f"not finite in results.csv: {where}"
        sign = Incident(incident="nan_results", epoch=bad.epoch, text=text)
    found = Diagnosis(record.run, facts.watched, notes=noted(facts), facts=facts)
    if sign is None:
        return replace(found, unknown=_nothing_known(facts), replay=facts.broke_off is not None)
    asked = [*evidence.checkpoint(facts), *(evidence.labels(facts) if labels else ())]
    seen = [piece for look in evidence.SOURCES for piece in look(facts)]
    pieces = [*seen, *more, *(one for one in asked if isinstance(one, Evidence))]
    unknown = [*missing(facts), *(one for one in asked if isinstance(one, str))]
    ranked = rank_causes(pieces)
    advice = advise(facts, ranked) if costs else ()
    found = replace(found, incident=sign, causes=ranked, advice=advice, unknown=unknown)
    return replace(found, replay=facts.autopsy is None, incidents=len(facts.incidents))


def _document(incident: Incident) -> dict[str, object]:
    """Return the incident as it is reported, with what a script looks for also where it is not known."""
    place = {"epoch": incident.epoch, "step": incident.step, "text": incident.text}
    told = {name: value for name, value in document_of(incident).items() if name != "t" or value}
    return {**place, "evidence": dict(incident.evidence), **told}


def missing(facts: TroubleFacts) -> list[str]:
    """Return what was not measured and therefore says nothing."""
    gaps = []
    if not facts.watched:
        unseen = "gradient norms, loss scale and the guilty batch were not seen"
        gaps.append(f"nantui did not watch this run: {unseen}")
    elif not facts.before:
        gaps.append("no step was recorded before it: whether anything climbed is not known")
    if facts.watched and facts.autopsy is None:
        gaps.append("there was no autopsy: weights and batch were not looked at while they were in memory")
    if not facts.in_effect:
        gaps.append("the settings in effect were not reported; those asked for are taken instead")
    return gaps


def _nothing_known(facts: TroubleFacts) -> list[str]:
    if facts.watched:
        return []
    if facts.record.results_unread:
        return ["nantui did not watch this run, and results.csv cannot be read"]
    more = "no other NaN" if overflows(facts.record) else "no NaN"
    seen = f"nantui did not watch this run; results.csv shows {more}"
    if facts.broke_off is None:
        return [f"{seen}, which is all that can be said"]
    early = f"it ends before epoch {facts.broke_off} of {facts.settings['epochs']}"
    return [f"{seen}, but {early}: of an epoch that Ultralytics gave up because of a NaN it has no row"]


def noted(facts: TroubleFacts) -> list[str]:
    """Return how the newest attempt ended, and what results.csv shows that is no sign of trouble."""
    in_fp32 = facts.autopsy is not None and facts.autopsy.evidence.get("fp32_first_bad_module")
    epochs = () if in_fp32 else overflows(facts.record)
    found, ended = list[str](), newest_end(facts.record)
    cause = cause_of(ended) if ended is not None else Cause()
    if ended is not None and cause.kind not in ("", DIVERGED):
        how = "failed" if ended.outcome == FAILED else "ended"
        place = f" in epoch {ended.epoch}" if ended.epoch else ""
        found.append(f"attempt {ended.attempt} {how}{place}: {cause.text or 'nothing is known of why'}")
        if ran_out_of_memory(facts.record):
            helps = f"nantui recover {facts.record.run} halves the batch"
            found.append(f"a smaller batch helps, or smaller images: {helps}")
    if epochs:
        sound = "metrics or later epochs show a sound network, so it is the validation that overflowed"
        more = "half precision, as a rule: amp=False validates in fp32"
        found.append(f"{overflow_words(epochs)}; {sound} ({more})")
    judgement = judge_numbers(facts.results, mosaic_closes(facts.settings))
    return [*found, judgement.in_words] if judgement else found


def named(run: Path) -> tuple[str, ...]:
    """Return the cause that is likelier than all others together, then the names of its evidence."""
    ranked = diagnose(run, labels=False, costs=False).causes
    return _told(ranked[0]) if ranked and ranked[0].probability > SURE else ()


def _told(cause: Ranked) -> tuple[str, ...]:
    return (cause.cause, *(piece.name for piece in cause.evidence))


def advise(facts: TroubleFacts, ranked: Sequence[Ranked]) -> list[Advice]:
    """Return what a recovery would do against the most probable causes, and what only people can."""
    found = [_advice(facts, cause) for cause in ranked[:MOST] if cause.probability >= WORTH_ADVICE]
    return [one for one in found if one.why or one.preset or one.images]


def _advice(facts: TroubleFacts, cause: Ranked) -> Advice:
    """Return what was measured to help against a cause, with what it would cost this run."""
    by_hand, images = BY_HAND.get(cause.cause, ""), tuple[str, ...]()
    if cause.cause == evidence.DATA and facts.autopsy is not None:
        # one of several candidates of a mosaic is not proven guilty
        images = tuple(dict.fromkeys(guilty_images(facts.autopsy.evidence)))
    if images:
        command = shlex.join(["nantui", "labels", str(facts.record.run), "--leave-out", *images])
        by_hand = f"leave {count(len(images), 'named image')} out: {command}"
    try:
        plan = make_plan(facts.record, propose=True, diagnosed=_told(cause))
    except UserError:
        return Advice(cause.cause, by_hand, images=images, cost="cost not known: nantui recover says why")
    why = "; ".join(filter(None, (plan.measured, by_hand)))
    cost, numbers = _cost(facts, plan)
    return Advice(cause.cause, why, "".join(plan.presets[:1]), {}, images, cost, numbers)


def _cost(facts: TroubleFacts, plan: Plan) -> tuple[str, dict[str, float]]:
    """Return what a plan would cost this run in words and numbers, memory from the run's own peak."""
    costs = plan.costs
    peaks = [step.memory_peak() for step in (*facts.before, *facts.after)]
    peak, filled = max((one for one in peaks if math.isfinite(one[0])), default=(math.nan, False))
    then = {**plan.in_effect, **changed(plan.settings)}
    memory = least_gb(Measured(peak, math.nan, filled=filled), plan.in_effect, then)
    again = f"{which_epochs(costs.lost_text)} to train again" if costs.again else "no epoch"
    parts = [f"costs: {again}"]
    if math.isfinite(costs.hours_remaining):
        parts.append(f"{span(costs.hours_remaining)} left to train")
    if abs(costs.factor - 1) > 0.01:
        parts.append(f"an epoch takes {costs.factor:.2f} times as long")
    if math.isfinite(memory):
        parts.append(f"{memory:.3g} GB of memory")
    numbers = {
        "epochs_lost": float(costs.epochs_lost), "hours_lost": costs.hours_lost,
        "hours_remaining": costs.hours_remaining, "time_factor": costs.factor, "memory_gb": memory,
    }  # fmt: skip
    return ", ".join(parts), {name: value for name, value in numbers.items() if math.isfinite(value)}
