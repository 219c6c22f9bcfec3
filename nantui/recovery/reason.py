"""What a recovery is for, and the proposal below the first: a judgement is only ever a person's choice."""

from __future__ import annotations

from nantui.recovery.judgement import Judgement
from nantui.recovery.plan_inputs import PlanInputs
from nantui.recovery.restore_points import Candidate, choose_before
from nantui.recovery.trouble import Trouble


def reason_for(facts: PlanInputs, restore: Candidate | None) -> Trouble | Judgement | None:
    """Return the first sign of trouble, or the judgement where the restore point is from before that."""
    judgement, trouble = facts.judgement, facts.trouble
    if judgement is None or restore is None or (restore.work or 0) >= judgement.epoch:
        return trouble
    return judgement if trouble is None or judgement.epoch < trouble.epoch else trouble


def lost_since(facts: PlanInputs) -> int | None:
    """Return the epoch, from 1, from which on a ruined network is not gone back to; None for any other."""
    if facts.ruin is None:
        return None
    return min(facts.ruin.epoch, facts.judgement.epoch if facts.judgement else facts.ruin.epoch)


def second_choice(facts: PlanInputs, restore: Candidate | None) -> Candidate | None:
    """Return the newest restore point from before the judgement, None where `restore` is no later one."""
    if facts.judgement is None or restore is None:
        return None
    second = choose_before(facts.candidates, facts.judgement.epoch)
    return second if second is not None and (second.work or 0) < (restore.work or 0) else None
