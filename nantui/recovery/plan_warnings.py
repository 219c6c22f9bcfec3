"""What a person should know before saying yes to a plan, and when there is nothing to go back for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nantui.errors import NO, UserError
from nantui.recovery.history import Earlier, repeats
from nantui.recovery.plan_inputs import PlanInputs
from nantui.recovery.restore_points import Candidate, choose_before, why_again
from nantui.recovery.trouble import overflow_words
from nantui.run.record import RunRecord
from nantui.run.spec import OURS_DEFAULTS
from nantui.settings.lint import more_epochs
from nantui.settings.schema import Schema
from nantui.settings.values import Change, changed, show_value


def warnings_for(
    facts: PlanInputs,
    restore: Candidate | None,
    rows: Sequence[Change],
    earlier: Sequence[Earlier],
    carried: Mapping[str, object],
) -> list[str]:
    """Return what the person should know before saying yes."""
    found = []
    if restore is None:
        found.append(f"{why_again(facts.candidates)}: it begins again from the model's own weights")
    elif names := restore.verdict.names_to_allow:
        found.append(f"loading {restore.name} runs code of {', '.join(names)}: allow it by name")
    if facts.overflowed:
        found.append(f"{overflow_words(facts.overflowed)}; metrics or later epochs show a sound network")
    if busy := [one.name for one in facts.candidates if one.verdict.badge == "busy"]:
        found.append(f"{', '.join(busy)}: being written now, judged again once the training has stopped")
    if facts.spec is not None and facts.spec.kind == "exec":
        found.append(
            "trained by its own script, which goes on with it: arguments in the script win over ours"
        )
    if facts.spec is None:
        found += [f"nantui's own runner goes on without {one}" for one in lost_with_our_runner(facts.record)]
    if facts.record.results_unread:
        found.append("results.csv cannot be read: how far it came, and whether it holds NaN, is not known")
    if not facts.args:
        found.append("args.yaml is missing: the settings are those in the checkpoint")
    if restore and restore.verdict.repairable and not restore.verdict.resumable:
        found.append(f"{restore.name}: optimizer or scaler state is not finite and begins anew")
    if carried:
        words = ", ".join(f"{name}={show_value(value)}" for name, value in carried.items())
        found.append(f"decided before (asked, recovered or optimizer=auto), stays in force: {words}")
    if stock := [row.name for row in rows if row.name in OURS_DEFAULTS and not row.kept]:
        found.append(
            f"{', '.join(stock)}: nantui's own, of no effect if you resume with plain `yolo` instead"
        )
    if restore and (repeat := repeats(earlier, restore.place, changed(rows))):
        found.append(repeat)
    return found


def refuse_finished(facts: PlanInputs, restore: Candidate | None) -> None:
    """Raise UserError (NO) when every epoch was trained: going back would only repeat the last ones."""
    done = next((one for one in facts.candidates if one.finished), None)
    if done is not None and (restore is None or (done.epoch or 0) > (restore.epoch or 0)):
        raise UserError(finished_words(facts, done, restore), NO)


def refuse_nothing_to_begin(facts: PlanInputs) -> None:
    """Raise UserError (NO) where nothing can be restored, nor begun again: no file says what was trained."""
    if not facts.args and facts.spec is None:
        why = "; ".join(f"{one.name}: {one.why_not}" for one in facts.candidates[:3]) or "no checkpoint"
        said = f"nothing can be restored ({why}), nor begun again without args.yaml"
        raise UserError(f"{said}; nothing moved", NO)


def finished_words(facts: PlanInputs, done: Candidate, older: Candidate | None) -> str:
    """Return that a run is finished and how one goes on all the same, in the shell and in the cockpit."""
    work, run = done.work or 0, facts.layout.run
    text = f"{run.name} is finished, all {work} epochs are trained; to train longer raise epochs, "
    text += f"e.g. --set epochs={more_epochs(work)} (in the cockpit: epochs in c, then s)"
    if facts.judgement is not None:
        text += f"; {facts.judgement.in_words}"
        older = choose_before(facts.candidates, facts.judgement.epoch) or older
    if older is None:
        return text
    return f"{text}; to train on from an older epoch: nantui rollback {run} --to {older.name}, then resume"


UNKNOWN = "whatever its script adds: a trainer class, callbacks, loggers, changes to data set or model"


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
