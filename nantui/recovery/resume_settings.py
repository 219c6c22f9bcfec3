"""Which settings a recovered run trains with: what is in effect, what was decided before, what changes now.

A preset bounds what is *in effect*. With `optimizer=auto` the arguments do not say that; the restore point
does, or any checkpoint of the run, or what the worker read from its live optimizer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from nantui.recovery.history import ran_out_of_memory, settings_in_force
from nantui.recovery.plan_inputs import PlanInputs
from nantui.recovery.restore_points import Candidate
from nantui.run.events import InEffect, newest
from nantui.settings.effective import lr_at
from nantui.settings.presets import apply_all, find_presets
from nantui.settings.values import Change, changed, differences, is_number, merge, same_value

RESOLVED = ("optimizer", "lr0", "momentum")
"""What `optimizer=auto` decides by itself (`BaseTrainer.build_optimizer`)."""
AUTO_MOMENTUM = 0.9


def settings_in_effect(facts: PlanInputs, restore: Candidate | None) -> dict[str, object]:
    """Return every setting in effect: as asked, as in args.yaml, as the restore point has resolved them, and
    as earlier recoveries of this run have decided.
    """
    spec = facts.spec.train if facts.spec else {}
    from_file = restore.verdict.train_args if restore else resolved_elsewhere(facts)
    decided = {**settings_in_force(facts.record), **facts.ours}
    settings = {**facts.schema.defaults(), **spec, **facts.args, **from_file, **decided}
    reported = newest(facts.record.journal, InEffect)
    if reported is not None and reported.values.get("amp") is False:
        settings["amp"] = False  # on a CPU, and where Ultralytics' own check of AMP has failed
    if is_auto(settings):
        return {**settings, **resolved_live(facts)}
    if "momentum" not in decided and is_auto({**spec, **facts.args}):
        settings["momentum"] = momentum_of_auto(settings, resolved_live(facts))
    return settings


def momentum_of_auto(settings: Mapping[str, object], live: Mapping[str, object]) -> Any:
    """Return the momentum in effect where `auto` chose the optimizer that `settings` name.

    Unlike optimizer and lr0 it is not written back into the arguments: it is 0.9 whatever they say, but a
    warm-up leads SGD's on to theirs (`BaseTrainer.build_optimizer`, `_do_train`); Adam's betas stay.
    """
    name = str(settings.get("optimizer"))
    if str(live.get("optimizer")) == name and is_number(live.get("momentum")):
        return live["momentum"]
    led = "adam" not in name.lower() and settings.get("warmup_epochs")
    return settings.get("momentum") if led else AUTO_MOMENTUM


def resolved_elsewhere(facts: PlanInputs) -> dict[str, object]:
    """Return what `auto` chose as another checkpoint of the run tells it, also one that is corrupt."""
    for one in facts.candidates:
        if not one.stranger and one.verdict.train_args and not is_auto(one.verdict.train_args):
            return {name: one.verdict.train_args[name] for name in RESOLVED if name in one.verdict.train_args}
    return {}


def resolved_live(facts: PlanInputs) -> dict[str, object]:
    """Return what `auto` chose as the worker read it from its live optimizer, if it got that far."""
    reported = newest(facts.record.journal, InEffect)
    values = reported.values if reported else {}
    return {name: values[name] for name in RESOLVED if name in values}


def is_auto(settings: Mapping[str, object]) -> bool:
    """Tell whether Ultralytics chooses the optimizer, and with it the rate."""
    return str(settings.get("optimizer", "auto")).lower() == "auto"


def carried_over(
    facts: PlanInputs, restore: Candidate | None, in_effect: Mapping[str, object], rows: Sequence[Change]
) -> dict[str, object]:
    """Return what must be written down besides the rows.

    These are decisions of earlier recoveries that an older restore point does not have; the momentum that
    `auto` had chosen, which no argument says; and, beginning again, its rate as well: once the optimizer is
    named, those in the arguments count.
    """
    asked = {**facts.schema.defaults(), **(facts.spec.train if facts.spec else {}), **facts.args}
    own = restore.verdict.train_args if restore else asked
    decided = facts.schema.split(settings_in_force(facts.record))[0]
    if restore is None and is_auto(asked) and "optimizer" in changed(rows):
        chosen = {name: in_effect[name] for name in RESOLVED[1:] if is_number(in_effect.get(name))}
        decided = {**chosen, **decided}
    if restore is not None and not is_auto({**in_effect, **changed(rows)}):
        decided = {"momentum": in_effect.get("momentum"), **decided}
    rest = {name: value for name, value in decided.items() if name not in changed(rows)}
    return {name: value for name, value in rest.items() if not same_value(own.get(name), value)}


def kept_of_auto(
    restore: Candidate | None, in_effect: Mapping[str, object], rows: Sequence[Change]
) -> list[Change]:
    """Return a row for the momentum of `auto` where the restore point's arguments say another."""
    now = in_effect.get("momentum")
    said = restore.verdict.train_args.get("momentum", now) if restore else now
    if same_value(now, said) or any(row.name == "momentum" for row in rows):
        return []
    return [Change("momentum", now, now, f"kept as auto chose it; the arguments say {said}", kept=True)]


def rows_for(
    presets: Sequence[str], facts: PlanInputs, in_effect: Mapping[str, object], *, propose_guard: bool
) -> list[Change]:
    """Return the rows of presets and of what was asked for by name, which has the last word."""
    wanted = find_presets(presets, facts.schema, facts.layout.run)
    rows = apply_all(wanted, in_effect, facts.schema.fields)
    if propose_guard and in_effect.get("guard") != "protect":
        why = "the next bad batch costs one step instead of the run"
        rows = merge(rows, [Change("guard", in_effect.get("guard"), "protect", why)])
    rows = [row for row in rows if row.name not in facts.asked]
    return [*rows, *differences(in_effect, facts.asked)]


def against_overflow(facts: PlanInputs, in_effect: Mapping[str, object]) -> list[Change]:
    """Return amp=False where the newest validation was not finite though the network is sound.

    Ultralytics validates in half precision wherever amp is on, whatever kind of amp.
    """
    if "amp" in facts.asked or not facts.overflowed:
        return []
    if facts.overflowed[-1] != facts.reached.completed or not in_effect.get("amp"):
        return []
    why = "the validation losses are not finite though the network is sound: half precision overflows there"
    return [Change("amp", in_effect.get("amp"), False, why)]


def against_memory(facts: PlanInputs, in_effect: Mapping[str, object]) -> list[Change]:
    """Return half the batch where the newest attempt ran out of memory."""
    batch = in_effect.get("batch")
    if "batch" in facts.asked or not isinstance(batch, int) or batch < 2:
        return []
    if not ran_out_of_memory(facts.record):
        return []
    return [Change("batch", batch, batch // 2, "the last attempt ran out of memory")]


def with_rate(rows: Sequence[Change], in_effect: Mapping[str, object], epoch: int) -> list[Change]:
    """Return the rows with what lr0 amounts to in the next epoch, counted from 0: the schedule lowers it."""
    then = {**in_effect, **changed(rows)}
    rate = lr_at(then, epoch)
    if epoch < 1 or not math.isfinite(rate) or str(then.get("optimizer")).lower() == "auto":
        return list(rows)
    said = f"{rate:.3g} in effect in epoch {epoch + 1}/{then.get('epochs')}"
    return [
        replace(row, why=f"{row.why}; {said}") if row.name == "lr0" and not row.kept else row for row in rows
    ]
