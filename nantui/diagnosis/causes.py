"""Why it happened: from a run's files to ranked causes, each with its evidence, and what helps.

Prior odds, written likelihood ratios and the posterior are all in the result, so that a person can
disagree; what could not be measured is listed as unknown, and no claim is made from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nantui.diagnosis.advice import Advice, advise
from nantui.diagnosis.evidence import all_evidence
from nantui.diagnosis.file_evidence import checkpoint
from nantui.diagnosis.file_evidence import labels as label_errors
from nantui.diagnosis.probabilities import Evidence, Ranked, rank_causes
from nantui.diagnosis.trouble import TroubleFacts, gather_facts
from nantui.recovery.history import newest_end, ran_out_of_memory
from nantui.recovery.judgement import judge_numbers, mosaic_closes
from nantui.recovery.trouble import overflow_words, overflowed
from nantui.run.attempts import FAILED
from nantui.run.endings import DIVERGED, Cause, cause_of
from nantui.run.events import Incident, document_of
from nantui.run.record import read_run


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
            "advice": [advice.to_json() for advice in self.advice], "unknown": list(self.unknown),
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
    sign = facts.first or _sign_of_results(facts)
    found = Diagnosis(record.run, facts.watched, notes=noted(facts), facts=facts)
    if sign is None:
        return replace(found, unknown=_nothing_known(facts), replay=facts.broke_off is not None)
    pieces = [*all_evidence(facts), *more]
    unknown = list(missing(facts))
    for asked in (checkpoint, *((label_errors,) if labels else ())):
        said, not_known = asked(facts)
        pieces += said
        unknown += [not_known] if not_known else []
    ranked = rank_causes(pieces)
    return replace(
        found,
        incident=sign,
        causes=ranked,
        advice=advise(facts, ranked) if costs else (),
        unknown=unknown,
        replay=facts.autopsy is None,
        incidents=len(facts.incidents),
    )


def _document(incident: Incident) -> dict[str, object]:
    """Return the incident as it is reported, with what a script looks for also where it is not known."""
    place = {"epoch": incident.epoch, "step": incident.step, "text": incident.text}
    told = {name: value for name, value in document_of(incident).items() if name != "t" or value}
    return {**place, "evidence": dict(incident.evidence), **told}


def missing(facts: TroubleFacts) -> list[str]:
    """Return what was not measured and therefore says nothing."""
    gaps = []
    if not facts.watched:
        gaps.append(
            "nantui did not watch this run: gradient norms, loss scale and the guilty batch were not seen"
        )
    elif not facts.before:
        gaps.append("no step was recorded before it: whether anything climbed is not known")
    if facts.watched and facts.autopsy is None:
        gaps.append("there was no autopsy: weights and batch were not looked at while they were in memory")
    if not facts.in_effect:
        gaps.append("the settings in effect were not reported; those asked for are taken instead")
    return gaps


def _sign_of_results(facts: TroubleFacts) -> Incident | None:
    """Return the first bad epoch of results.csv in the form of an incident, where nobody watched."""
    sound = overflowed(facts.results)
    bad = next((row for row in facts.results if not row.finite and row.epoch not in sound), None)
    if bad is None or facts.watched:
        return None
    where = ", ".join(
        name for name, value in bad.values.items() if value != value or abs(value) == float("inf")
    )
    text = f"not finite in results.csv: {where}"
    return Incident(kind=Incident.KIND, incident="nan_results", epoch=bad.epoch, text=text)


def _nothing_known(facts: TroubleFacts) -> list[str]:
    if facts.watched:
        return []
    if facts.record.results_unread:
        return ["nantui did not watch this run, and results.csv cannot be read"]
    more = "no other NaN" if overflowed(facts.results) else "no NaN"
    seen = f"nantui did not watch this run; results.csv shows {more}"
    if facts.broke_off is None:
        return [f"{seen}, which is all that can be said"]
    early = f"it ends before epoch {facts.broke_off} of {facts.settings['epochs']}"
    return [f"{seen}, but {early}: of an epoch that Ultralytics gave up because of a NaN it has no row"]


def _ended(facts: TroubleFacts) -> Iterator[str]:
    ended = newest_end(facts.record)
    cause = cause_of(ended) if ended is not None else Cause()
    if ended is None or cause.kind in ("", DIVERGED):
        return
    how = "failed" if ended.outcome == FAILED else "ended"
    place = f" in epoch {ended.epoch}" if ended.epoch else ""
    yield f"attempt {ended.attempt} {how}{place}: {cause.text or 'nothing is known of why'}"
    if ran_out_of_memory(facts.record):
        yield f"a smaller batch helps, or smaller images: nantui recover {facts.record.run} halves the batch"


def noted(facts: TroubleFacts) -> list[str]:
    """Return how the newest attempt ended, and what results.csv shows that is no sign of trouble."""
    found, epochs = list(_ended(facts)), overflowed(facts.results)
    if epochs:
        sound = "metrics or later epochs show a sound network, so it is the validation that overflowed"
        more = "half precision, as a rule: amp=False validates in fp32"
        found.append(f"{overflow_words(epochs)}; {sound} ({more})")
    judgement = judge_numbers(facts.results, mosaic_closes(facts.settings))
    return [*found, judgement.in_words] if judgement else found
