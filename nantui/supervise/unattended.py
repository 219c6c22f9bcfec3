"""Unattended recovery: after an attempt has ended, ask the ladder and do what it says, bounded by it.

A training that goes on is never touched, whatever its numbers say. One that has finished is taken up again
only where the policy proves that it is worse than untrained; the evidence is in the journal.

The decision is recovery's (`nantui.recovery.policy`, asked in a helper process); it becomes an ordinary
`recover` command in the spool, so that it is journaled, shown and carried on like a person's.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from nantui.errors import UserError
from nantui.run import spool
from nantui.run.attempts import DIVERGED, FAILED, FINISHED
from nantui.run.spec import read_spec
from nantui.run.spool import Command
from nantui.supervise.keeper import Keeper
from nantui.supervise.spools import spool_for
from nantui.supervise.transactions import act

POLICY = "policy"
RECOVER, NOTHING = "recover", "nothing"


def follow_up(keeper: Keeper, outcome: str) -> None:
    """Enqueue the ladder's next step where the run may be recovered unattended; a refusal is giving up."""
    if outcome not in {DIVERGED, FAILED, FINISHED}:
        return
    try:
        spec = read_spec(keeper.layout.spec)
        if spec is not None and spec.auto:
            _follow(keeper, outcome, act(keeper, Command("recover", {}, uuid.uuid4().hex, POLICY), "next"))
    except UserError as error:
        _give_up(keeper, outcome, str(error))


def _follow(keeper: Keeper, outcome: str, decision: Mapping[str, Any]) -> None:
    why, action = str(decision.get("why") or decision.get("text") or ""), decision.get("action")
    if action == RECOVER:
        # Nobody is there to start it again once the GPU is free: it waits by itself.
        own = {"images": list(decision.get("images") or ()), "wait_gpu": True}
        options = {**(decision.get("options") or {}), **own}
        evidence = {"evidence": decision["evidence"]} if decision.get("evidence") else {}
        keeper.journal.append("note", by=POLICY, text=f"unattended: {why}", **evidence)
        spool.put(spool_for(keeper.layout), Command("recover", options, by=POLICY))
    elif action != NOTHING:
        _give_up(keeper, outcome, why)


def _give_up(keeper: Keeper, outcome: str, why: str) -> None:
    """Say that nothing is done, and why; a training that has finished stays finished."""
    finished = outcome == FINISHED
    text = f"finished, but {why}" if finished else f"unattended recovery gave up: {why}; everything is kept"
    keeper.journal.append("note", by=POLICY, text=text)
    keeper.publish(text=text)
    keeper.tell(FINISHED if finished else DIVERGED, text)
