"""Unattended recovery: after an attempt ended badly, ask the ladder and do what it says, bounded by it.

The decision is recovery's (`nantui.recovery.policy`, asked in a helper process); it becomes an ordinary
`recover` command in the spool, so that it is journaled, shown and carried on like a person's.
"""

from __future__ import annotations

import uuid

from nantui.errors import UserError
from nantui.run import spool
from nantui.run.attempts import DIVERGED, FAILED
from nantui.run.spec import read_spec
from nantui.run.spool import Command
from nantui.supervise.keeper import Keeper
from nantui.supervise.spools import spool_for
from nantui.supervise.transactions import act

POLICY = "policy"
RECOVER, NOTHING = "recover", "nothing"


def follow_up(keeper: Keeper, outcome: str) -> None:
    """Enqueue the ladder's next step where the run may be recovered unattended; a refusal is giving up."""
    if outcome not in {DIVERGED, FAILED}:
        return
    try:
        spec = read_spec(keeper.layout.spec)
        if spec is None or not spec.auto:
            return
        decision = act(keeper, Command("recover", {}, uuid.uuid4().hex, POLICY), "next")
        why = str(decision.get("why") or decision.get("text") or "")
        if decision.get("action") == RECOVER:
            # Nobody is there to start it again once the GPU is free: it waits by itself.
            own = {"images": list(decision.get("images") or ()), "wait_gpu": True}
            options = {**(decision.get("options") or {}), **own}
            keeper.journal.append("note", by=POLICY, text=f"unattended: {why}")
            spool.put(spool_for(keeper.layout), Command("recover", options, by=POLICY))
        elif decision.get("action") != NOTHING:
            _give_up(keeper, why)
    except UserError as error:
        _give_up(keeper, str(error))


def _give_up(keeper: Keeper, why: str) -> None:
    text = f"unattended recovery gave up: {why}; everything is kept"
    keeper.journal.append("note", by=POLICY, text=text)
    keeper.publish(text=text)
    keeper.tell(DIVERGED, text)
