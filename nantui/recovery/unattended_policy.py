"""Unattended: what the supervisor does after an attempt has ended. Needs no terminal.

A training that goes on is never touched. Of a judgement on finite numbers only the proven one counts
(`nantui.recovery.ruin`): after a bad end it goes back to before that, and it takes up again a training that
has finished ruined, where a checkpoint from before is left; a restart would gain nothing there, since best.pt
is from before as well.
It climbs the ladder within a budget that counts only recoveries which did not get past the earlier trouble,
goes to an older restore point when the last one failed within its probation, and gives up with everything
kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from nantui.machine.gpus import has_bf16
from nantui.recovery.ending_remedies import GIVE_UP, NOTHING, RECOVER, TELL, Decision, remedy
from nantui.recovery.history import BAD_ENDS, QUARANTINE, Earlier, earlier_recoveries, newest_end
from nantui.recovery.ladder import AGAIN, Ladder, load_ladder, next_step, proven
from nantui.recovery.plan_inputs import PlanInputs, gather_inputs
from nantui.recovery.reason import lost_since, reason_for
from nantui.recovery.restore_points import choose_before, ends_before
from nantui.recovery.resume_settings import settings_in_effect
from nantui.recovery.run_facts import gpus_of
from nantui.run.attempts import FINISHED
from nantui.run.documents import JsonObject
from nantui.run.endings import DIVERGED, EXCEPTION, PREEMPTED, Cause, cause_of
from nantui.run.plan import place_of
from nantui.run.record import read_run
from nantui.run.status import LOST
from nantui.settings.presets import load_presets

BY_THE_LADDER = frozenset({DIVERGED, EXCEPTION})
"""What ends an attempt that NaN may have brought down."""


def decide(run: Path, ladder: Ladder | None = None) -> Decision:
    """Return the next step for the run, judged from its files alone. Raises UserError for no run."""
    record, ladder = read_run(run), ladder or load_ladder()
    ended = newest_end(record)
    cause = cause_of(ended) if ended is not None else Cause()
    if ended is None or (ended.outcome not in (*BAD_ENDS, FINISHED, LOST) and cause.kind != PREEMPTED):
        return Decision(NOTHING, "the newest attempt did not end badly")
    facts, earlier = gather_inputs(record, {}), earlier_recoveries(record)
    if ended.outcome == FINISHED:
        return after_finish(facts, earlier, ladder)
    if cause.kind not in BY_THE_LADDER or (facts.trouble is None and cause.kind != DIVERGED):
        return remedy(facts, cause)
    if facts.trouble is None:
        return Decision(GIVE_UP, f"it failed for another reason than NaN: {ended.text or 'unknown'}")
    if spent(earlier, ladder) >= ladder.max_recoveries:
        return Decision(GIVE_UP, f"{ladder.max_recoveries} recoveries did not get past the trouble")
    return climb(facts, earlier, ladder)


def after_finish(facts: PlanInputs, earlier: Sequence[Earlier], ladder: Ladder) -> Decision:
    """Return what becomes of a training that finished: nothing, unless it is proven that it was ruined.

    Then it is taken up from before that, or, where that cannot be, it is told.
    """
    place = place_of(facts.spec.plan) if facts.spec else None
    if facts.ruin is None or (place is not None and place.number < place.of):
        return Decision(NOTHING, "it finished")
    if spent(earlier, ladder) >= ladder.max_recoveries:
        return Decision(TELL, f"{facts.ruin.text}; {ladder.max_recoveries} recoveries did not get past it")
    if choose_before(facts.candidates, lost_since(facts) or 0) is None:
        return Decision(TELL, f"{facts.ruin.text}; no checkpoint from before can be resumed, best.pt is kept")
    decision = climb(facts, earlier, ladder)
    return decision if decision.action == RECOVER else replace(decision, action=TELL)


def climb(facts: PlanInputs, earlier: Sequence[Earlier], ladder: Ladder) -> Decision:
    """Return the next rung from a restore point that has not just failed, nor holds anything of a ruin."""
    ruin = facts.ruin
    last = earlier[-1] if earlier else None
    within = last is not None and fails_within(last, ladder.probation_epochs)
    usable = [one for one in facts.candidates if one.usable]
    if (lost := lost_since(facts)) is not None:
        usable = [one for one in usable if ends_before(one, lost)]
    if within and last is not None:
        usable = [one for one in usable if not past(one.work, last.work)]
    if not usable and ruin is not None:
        return Decision(GIVE_UP, f"{ruin.text}; no older checkpoint from before can be resumed")
    if not usable:
        return begin_again(earlier)
    restore = usable[0]
    in_effect = settings_in_effect(facts, restore)
    presets = load_presets(facts.schema, facts.layout.run)
    proof = proven(facts.record, reason_for(facts, restore))
    bf16 = has_bf16(gpus_of(in_effect.get("device")))
    step = next_step(ladder, earlier, proof, presets, in_effect, facts.schema.fields, bf16=bf16)
    if step is None:
        return Decision(GIVE_UP, "the ladder is at its end: every step was tried or would change nothing")
    options: JsonObject = {"to": restore.name, "presets": [step] if step != QUARANTINE else []}
    if in_effect.get("guard") != "protect":
        options["set"] = {"guard": "protect"}
    older = " (an older one: the last failed within its probation)" if within else ""
    images = proof.images if step == QUARANTINE else ()
    why = f"{step}, from {restore.name}{older}"
    if ruin is None:
        return Decision(RECOVER, why, options, images)
    return Decision(RECOVER, f"{why}: {ruin.text}", options, images, asdict(ruin))


def begin_again(earlier: Sequence[Earlier]) -> Decision:
    """Return plan B, once."""
    if any(AGAIN in one.presets for one in earlier):
        return Decision(GIVE_UP, "no older clean checkpoint is left, and beginning again was tried")
    options = {"presets": [AGAIN], "force_restart": True}
    return Decision(RECOVER, "no clean checkpoint is left: begin again", options)


def spent(earlier: Sequence[Earlier], ladder: Ladder) -> int:
    """Return the recoveries since the last one that got past the trouble before it, with its probation."""
    count, farthest = 0, 0
    for one in earlier:
        if one.out_of_memory:
            continue
        count += 1
        if one.failed_at is not None and farthest and one.failed_at > farthest + ladder.probation_epochs:
            count = 0
        farthest = max(farthest, one.failed_at or 0)
    return count


def fails_within(one: Earlier, probation: int) -> bool:
    """Tell whether the attempt after a recovery failed before its probation was over."""
    return one.failed_at is not None and one.failed_at - (one.work or 0) <= probation


def past(work: int | None, limit: int | None) -> bool:
    """Tell whether a checkpoint holds the failed restore point's epoch, or a later one."""
    return work is not None and limit is not None and work >= limit
