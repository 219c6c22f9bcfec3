"""Which settings a recovered run trains with: what is in effect, what was decided before, what changes now.

A preset bounds what is *in effect*. With `optimizer=auto` the arguments do not say that; the restore point
does, or any checkpoint of the run, or what the worker read from its live optimizer.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nantui.recovery.history import ran_out_of_memory, settings_in_force
from nantui.recovery.plan_inputs import PlanInputs, ours_of
from nantui.recovery.restore_points import Candidate
from nantui.run.events import InEffect, newest
from nantui.run.spec import divided
from nantui.settings.gpu_memory import fit
from nantui.settings.lint import Known, lr_at
from nantui.settings.presets import apply_all, find_presets
from nantui.settings.values import Change, changed, differences, is_number, merge, same_value

RESOLVED = ("optimizer", "lr0", "momentum")
"""What `optimizer=auto` decides by itself (`BaseTrainer.build_optimizer`)."""
AUTO_MOMENTUM = 0.9


def settings_in_effect(facts: PlanInputs, restore: Candidate | None) -> dict[str, object]:
    """Return every setting in effect: as asked, as in args.yaml, as the restore point has resolved them, and
    as earlier recoveries of this run have decided.
    """
    asked = {**(facts.spec.train if facts.spec else {}), **facts.record.args}
    from_file = restore.verdict.train_args if restore else _resolved_elsewhere(facts)
    decided = {**settings_in_force(facts.record), **ours_of(facts.record)}
    settings = {**facts.schema.defaults(), **asked, **from_file, **decided}
    reported = newest(facts.record.journal, InEffect)
    values = reported.values if reported else {}
    live = {name: values[name] for name in RESOLVED if name in values}
    if values.get("amp") is False:
        settings["amp"] = False  # on a CPU, and where Ultralytics' own check of AMP has failed
    if _is_auto(settings):
        return {**settings, **live}
    if "momentum" not in decided and _is_auto(asked):
        settings["momentum"] = momentum_of_auto(settings, live)
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


def _resolved_elsewhere(facts: PlanInputs) -> dict[str, object]:
    """Return what `auto` chose as another checkpoint of the run tells it, also one that is corrupt."""
    for one in facts.candidates:
        if not one.stranger and one.verdict.train_args and not _is_auto(one.verdict.train_args):
            return {name: one.verdict.train_args[name] for name in RESOLVED if name in one.verdict.train_args}
    return {}


def _is_auto(settings: Mapping[str, object]) -> bool:
    return str(settings.get("optimizer", "auto")).lower() == "auto"


def carried_over(
    facts: PlanInputs, restore: Candidate | None, in_effect: Mapping[str, object], rows: Sequence[Change]
) -> dict[str, object]:
    """Return what must be written down besides the rows.

    These are decisions of earlier recoveries that an older restore point does not have; the momentum that
    `auto` had chosen, which no argument says; and, beginning again, its rate as well: once the optimizer is
    named, those in the arguments count.
    """
    asked = {**facts.schema.defaults(), **(facts.spec.train if facts.spec else {}), **facts.record.args}
    own = restore.verdict.train_args if restore else asked
    decided, changes = divided(settings_in_force(facts.record))[0], changed(rows)
    if restore is None and _is_auto(asked) and "optimizer" in changes:
        chosen = {name: in_effect[name] for name in RESOLVED[1:] if is_number(in_effect.get(name))}
        decided = {**chosen, **decided}
    if restore is not None and not _is_auto({**in_effect, **changes}):
        decided = {"momentum": in_effect.get("momentum"), **decided}
    rest = {name: value for name, value in decided.items() if name not in changes}
    return {name: value for name, value in rest.items() if not same_value(own.get(name), value)}


def rows_for(
    facts: PlanInputs, restore: Candidate | None, in_effect: Mapping[str, object], presets: Sequence[str],
    known: Known, *, guard: bool, remedies: bool,
) -> list[Change]:  # fmt: skip
    """Return a row for each setting that changes: by the presets, then by what was asked for by name, which
    has the last word; by `guard` and `remedies` what is proposed beside them, as memory allows.
    """
    wanted = find_presets(presets, facts.schema, facts.record.run)
    rows = apply_all(wanted, in_effect, facts.schema.fields)
    if guard and in_effect.get("guard") != "protect":
        why = "the next bad batch costs one step instead of the run"
        rows = merge(rows, [Change("guard", in_effect.get("guard"), "protect", why)])
    given = {row.name: row.then for row in rows}  # whose rows say why
    asked = {k: v for k, v in facts.asked.items() if k not in given or not same_value(given[k], v)}
    rows = [row for row in rows if row.name not in asked] + differences(in_effect, asked)
    if remedies:
        rows = merge(rows, _remedies(facts, in_effect))
    rows = with_rate(fit(rows, in_effect, known.measured, known.now), in_effect, known.epoch)
    now = in_effect.get("momentum")
    said = restore.verdict.train_args.get("momentum", now) if restore else now
    if not same_value(now, said) and all(row.name != "momentum" for row in rows):
        why = f"kept as auto chose it; the arguments say {said}"
        rows.append(Change("momentum", now, now, why, kept=True))
    return rows


def _remedies(facts: PlanInputs, in_effect: Mapping[str, object]) -> Iterator[Change]:
    """Yield amp=False where the newest validation was not finite though the network is sound (Ultralytics
    validates in half precision wherever amp is on, whatever kind), half the batch where memory ran out.
    """
    amp, batch, asked = in_effect.get("amp"), in_effect.get("batch"), facts.asked
    if amp and "amp" not in asked and facts.overflowed[-1:] == (facts.reached.completed,):
        why = "the validation losses are not finite, the network is sound: half precision overflows there"
        yield Change("amp", amp, False, why)
    if "batch" not in asked and isinstance(batch, int) and batch > 1 and ran_out_of_memory(facts.record):
        yield Change("batch", batch, batch // 2, "the last attempt ran out of memory")


def with_rate(rows: Sequence[Change], in_effect: Mapping[str, object], epoch: int) -> list[Change]:
    """Return the rows with what lr0 amounts to in the next epoch, counted from 0: the schedule lowers it."""
    then = {**in_effect, **changed(rows)}
    rate = lr_at(then, epoch)
    if epoch < 1 or not math.isfinite(rate) or _is_auto(then):
        return list(rows)
    said = f"; {rate:.3g} in effect in epoch {epoch + 1}/{then.get('epochs')}"
    return [replace(one, why=one.why + said) if one.name == "lr0" and not one.kept else one for one in rows]
