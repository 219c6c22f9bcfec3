"""What is about to be done to a run, as text: the plan of a recovery with what moves, what it costs, what
changes and the answers people ask for; and what a stop or an undo would do, in the words of the question
that is asked before.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from itertools import takewhile
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from nantui.recovery.history import Undoable
from nantui.run import status as run_status
from nantui.run.events import CommandReceived, Kept, PhaseBegun, RollbackBegun, SettingChange, newest
from nantui.run.points import in_words
from nantui.run.spec import OURS_DEFAULTS
from nantui.ui.format import clean, duration, number
from nantui.ui.glyphs import Glyphs
from nantui.ui.model.alarms import open_alarm
from nantui.ui.model.command_progress import CommandProgress
from nantui.ui.model.snapshot import RunSnapshot
from nantui.ui.model.timeline import incident_text
from nantui.ui.styled_text import Line, column, fit, hanging, wrap
from nantui.words import count

if TYPE_CHECKING:
    from nantui.recovery.plan import Plan
    from nantui.recovery.restore_points import Costs
    from nantui.settings.values import Change

BEFORE_TRAINING = ("", "importing", "setup")
"""Activities of a worker that has not begun its first step."""


def options(plan: Plan, edits: dict[str, object]) -> dict[str, object]:
    """Return the options of the command that does exactly what the plan shows."""
    rows = [row for row in plan.settings if not row.kept and (row.name in edits or row.name in OURS_DEFAULTS)]
    settings = {**edits, **{row.name: row.then for row in rows}}
    target = {"to": plan.restore.name} if plan.restore is not None else {"force_restart": True}
    return {"presets": list(plan.presets), "set": settings, **target}


def describe(plan: Plan, kind: str, snapshot: RunSnapshot | None, glyphs: Glyphs, width: int) -> list[Line]:
    """Return the whole plan as lines."""
    sections = [
        _what(plan, kind, snapshot, width),
        _settings(plan, glyphs, width),
        _warnings(plan, glyphs, width),
        _left(plan, width),
        _afterwards(plan, width),
        _moves(plan, glyphs, width),
        _earlier(plan, width),
        _questions(plan, width),
    ]
    lines: list[Line] = []
    for section in sections:
        lines += ([[]] if lines and section else []) + section
    return lines


def _what(plan: Plan, kind: str, snapshot: RunSnapshot | None, width: int) -> list[Line]:
    lines: list[Line] = wrap(clean(plan.headline), width, "strong")
    status = snapshot.status if snapshot is not None else None
    if kind == "recover" and status is not None and status.state in run_status.ACTIVE:
        place = f" in epoch {status.epoch}/{status.epochs or '?'}" if status.epoch else ""
        text = f"the running attempt{place}, at the next batch boundary, then verifies that none is left"
        lines += _fact("stops", text, width)
    lines += _fact("costs", _cost(plan.costs), width)
    if plan.trouble is not None:
        because = f"{incident_text(plan.trouble.kind)} in epoch {plan.trouble.epoch}"
        lines += _fact("because", because, width)
    if plan.second is not None:
        lines += _fact("or, with b", f"{plan.second_words}; yours to decide", width)
    elif plan.judgement is not None:
        lines += _fact("judged", plan.judgement.in_words, width)
    return lines


def _left(plan: Plan, width: int) -> list[Line]:
    """What is known of the training that follows."""
    lines: list[Line] = []
    remaining = plan.costs.hours_remaining
    if math.isfinite(remaining):
        text, factor = f"about {duration(remaining * 3600)}", plan.costs.factor
        if abs(factor - 1) > 0.02:
            text += f", an epoch takes {factor:.2g}x as long with these settings"
        lines += _fact("still to go", text, width)
    return lines + _fact("final mAP", "unknown: nobody can know it before it is trained", width)


def _cost(costs: Costs) -> str:
    hours = f", about {duration(costs.hours_lost * 3600)}" if math.isfinite(costs.hours_lost) else ""
    return f"{costs.again}{hours}" if costs.again else "no epoch is lost"


def _fact(name: str, text: str, width: int) -> list[Line]:
    return hanging((column(name, 11), "muted"), wrap(clean(text, 500), max(10, width - 11)))


def _warnings(plan: Plan, glyphs: Glyphs, width: int) -> list[Line]:
    lines: list[Line] = []
    for text in plan.warnings:
        lines += _bullet(glyphs.warn, clean(text, 500), width, "warn")
    for finding in plan.findings:
        if finding.severity == "warning":
            lines += _bullet(glyphs.warn, f"{finding.name}: {clean(finding.text, 400)}", width, "warn")
    return lines


def _bullet(mark: str, text: str, width: int, ink: str) -> list[Line]:
    return hanging((f"{mark} ", ink), wrap(text, max(10, width - 2), ink))


def _settings(plan: Plan, glyphs: Glyphs, width: int) -> list[Line]:
    names = f"   from {', '.join(plan.presets)}" if plan.presets else ""
    head: Line = [("settings", "title"), (names, "info"), ("   p changes the presets", "faint")]
    changes = [row for row in plan.settings if not row.kept]
    # What changes must be seen before it is confirmed; what stays is one sentence.
    kept: dict[str, list[str]] = {}
    for row in plan.settings:
        if row.kept:
            kept.setdefault(row.why, []).append(row.name)
    told = "; ".join(f"{', '.join(names)} ({why})" for why, names in kept.items())
    stays = wrap(clean(f"as they are: {told}", 600), width, "muted") if kept else []
    return [head, *(setting_rows(changes, glyphs, width) or [[("no setting changes", "muted")]]), *stays]


def setting_rows(rows: Iterable[Change], glyphs: Glyphs, width: int) -> list[Line]:
    """Return rows of name, now, then and why; the reason goes below where the line is too short."""
    lines: list[Line] = []
    for row in rows:
        name, now, then, why = (clean(cell, 300) for cell in row.cells())
        change: Line = [(column(name, 15), "strong"), (column(now, 10, right=True), "muted")]
        change += [(f" {glyphs.then} ", "accent"), (column(then, 10), "accent")]
        room = width - 40
        reason = wrap(why, room if room > 20 else width - 4, "muted")
        if room > 20:
            first: Line = reason[0] if reason else []
            lines.append(fit([*change, ("  ", "text"), *first], width))
            lines += [[(" " * 40, "text"), *line] for line in reason[1:]]
        else:
            lines += [fit(change, width), *hanging(("    ", "text"), reason)]
    return lines


def _afterwards(plan: Plan, width: int) -> list[Line]:
    """What a remedy asks for at the end of the run."""
    if plan.afterwards is None:
        return []
    from nantui.recovery.plan_text import afterwards

    lines = [line for text in afterwards(plan) for line in wrap(clean(text, 500), width)]
    return [[("afterwards", "title")], *lines]


def _moves(plan: Plan, glyphs: Glyphs, width: int) -> list[Line]:
    if not plan.moves:
        return []
    lines: list[Line] = [[("moved aside, nothing is deleted", "title"), (f"   {len(plan.moves)}", "muted")]]
    for move in plan.moves:
        source = clean(move.source.removeprefix("weights/"), 80)
        target = clean(move.target.removeprefix("weights/"), 160)
        spans = [(column(source, 15), "text"), (f" {glyphs.then} ", "muted"), (target, "text")]
        lines.append(fit([*spans, (f"   {clean(move.why)}", "muted")], width))
    return lines


def _earlier(plan: Plan, width: int) -> list[Line]:
    lines: list[Line] = []
    for one in plan.earlier:
        end = f", trouble again in epoch {one.failed_at}" if one.failed_at else ""
        changes = ", ".join(f"{name}={value}" for name, value in one.settings.items()) or "no setting changed"
        lines += wrap(f"{clean(one.restore_point)}: {clean(changes)}{end}", width)
    return [[("tried before", "title")], *lines] if lines else []


def _questions(plan: Plan, width: int) -> list[Line]:
    lines: list[Line] = [[("what people ask", "title")]]
    for question, answer in questions(plan):
        lines += [[(question, "strong")], *hanging(("  ", "text"), wrap(answer, width - 2, "muted"))]
    return lines


def questions(plan: Plan) -> list[tuple[str, str]]:
    """Return the questions of that moment with answers that are true for this plan."""
    asked = [
        (
            "What if it goes wrong?",
            "Every step is journaled before it is done; a crash is finished or taken back at the next "
            "start, and u takes the whole rollback back.",
        )
    ]
    rate = next((row for row in plan.settings if row.name == "lr0"), None)
    if rate is not None and not rate.kept and isinstance(rate.now, (int, float)):
        asked.append(
            (
                "Why not keep my learning rate?",
                f"It was {number(rate.now)} when it happened; {clean(rate.why, 200)}. "
                "To keep it, choose other presets with p.",
            )
        )
    best = next((one for one in plan.candidates if one.name == "best.pt"), None)
    if best is not None and plan.restore is not None and best.name != plan.restore.name:
        why = best.why_not or f"{plan.restore.name} is at least as new and costs less"
        asked.append(("Why not best.pt?", f"{clean(why, 200)}."))
    asked.append(
        (
            "Does a resume really use these settings?",
            "Yes: they are written into the checkpoint, and the worker reports "
            "what is in effect at its first step, shown here.",
        )
    )
    return asked


def describe_problem(problem: str, width: int) -> list[Line]:
    """Return why there is no plan, and that nothing was done."""
    return [*wrap(clean(problem, 800), width, "bad"), [], [("Nothing was changed. Esc goes back.", "muted")]]


def describe_progress(progress: CommandProgress, glyphs: Glyphs, width: int) -> list[Line]:
    """Return the stages so far, the outcome, and asked against in effect."""
    lines: list[Line] = []
    for index, (stage, text) in enumerate(progress.stages):
        going = index == len(progress.stages) - 1 and progress.ok is None
        mark, ink = (glyphs.busy, "info") if going else (glyphs.good, "good")
        lines.append([(f"{mark} ", ink), (column(stage, 12), "strong"), *wrap(clean(text), width - 14)[0]])
    if progress.ok is None:
        waiting = "waiting for the supervisor.." if not progress.stages else ""
        return [*lines, [(waiting, "muted")]]
    mark, ink = (glyphs.good, "good") if progress.ok else (glyphs.bad, "bad")
    lines += [[], *_bullet(mark, clean(progress.text or "done", 600), width, ink)]
    if not progress.ok:
        advice = (
            "Nothing is lost: what was moved is journaled. R tries again, u takes a finished rollback back."
        )
        return [*lines, [], *wrap(advice, width, "muted")]
    return [*lines, *_in_effect(progress, glyphs, width)]


def _in_effect(progress: CommandProgress, glyphs: Glyphs, width: int) -> list[Line]:
    if progress.kind != "recover" or not progress.asked:
        return []
    lines: list[Line] = [[], [("asked", "title"), (" against ", "muted"), ("in effect", "title")]]
    if progress.values is None:
        return [*lines, [("the worker reports at its first step..", "muted")]]
    effect = dict(progress.values)
    lines += [_confirmed(name, asked, effect, glyphs, width) for name, asked in progress.asked]
    return lines + [line for note in progress.notes for line in wrap(clean(note, 200), width, "muted")]


def _confirmed(name: str, asked: object, effect: dict[str, object], glyphs: Glyphs, width: int) -> Line:
    """Return a line of asked against in effect; what the worker cannot report now contradicts nothing."""
    from nantui.settings.values import same_value

    same = name in effect and same_value(effect[name], asked)
    mark, ink = (glyphs.good, "good") if same else (glyphs.warn, "warn")
    if name not in effect:
        mark, ink = " ", "muted"
    said = clean(effect.get(name, "not reported in this phase"), 60)
    spans = [
        (f"{mark} ", ink),
        (column(name, 15), "strong"),
        (column(clean(asked, 40), 12), "text"),
        (said, "text" if same else ink),
    ]
    return fit(spans, width)


def stop_words(snapshot: RunSnapshot) -> list[str]:
    """Say when it ends and what can be resumed afterwards: inside the first epoch only from a step point."""
    status = snapshot.status
    has_last = any(file.name == "last.pt" for file in snapshot.checkpoints)
    if status.state == run_status.STARTING or (status.step is None and snapshot.activity in BEFORE_TRAINING):
        if has_last:
            return ["It has not made a step yet; s resumes from what was there before, weights/last.pt."]
        return ["It has not made a step yet, so there is nothing to keep: s starts it from the beginning."]
    lines = ["It ends at the next batch boundary, on all ranks at the same step."]
    inside = any(file.point for file in snapshot.checkpoints)
    if not (has_last or inside) and (status.epoch or 1) <= 1:
        return [
            *lines,
            "It is in its first epoch and has no step point yet: without one s cannot go on from here, "
            "R begins again from the start.",
            "The weights so far are kept in weights/nantui_stop.pt.",
        ]
    lines.append("What it has learned is kept in weights/nantui_stop.pt; s resumes from there.")
    if open_alarm(snapshot, 0.0) is not None:
        lines.append("If its weights are NaN by now nothing is kept: R goes back to a clean checkpoint.")
    return lines


def kill_words(snapshot: RunSnapshot) -> list[str]:
    """Say what is lost when everything is killed now, at most."""
    newest = max(snapshot.checkpoints, key=lambda one: one.modified, default=None)
    point, status = newest.point if newest else None, snapshot.status
    lost = "What was learned since the last checkpoint is lost."
    if newest is not None and point is not None and status.step is not None:
        since = status.step - point.batch + ((status.epoch or 0) - point.epoch) * point.batches
        ago = duration(max(0.0, snapshot.taken - newest.modified))
        place = in_words(point.label, None)
        lost = f"About {count(max(since, 0), 'step')} since the point of {place}, {ago} ago, are lost."
    return [lost, "Prefer x, which stops at a batch boundary and loses nothing."]


def undo_words(snapshot: RunSnapshot, begun: Undoable) -> list[str]:
    """Say what `begun` was, which settings go back and what goes aside."""
    since = epochs_since(snapshot, begun)
    trained = f"{count(since, 'epoch')} trained since" if since else "What was made since"
    lost = begun.epochs_lost if isinstance(begun, RollbackBegun) else None
    back = f", with the {count(lost, 'epoch')} that it gave up" if lost else ""
    return [
        f"{what_it_was(snapshot, begun)}.",
        f"Checkpoints and results.csv come back as they were before it{back}.",
        _settings_back(begun),
        f"{trained}: moved aside to nantui/backups/undo-…, nothing is deleted.",
    ]


def what_it_was(snapshot: RunSnapshot, begun: Undoable) -> str:
    """Return which rollback it is: what asked for it, when, and where it went."""
    when = ""
    if begun.t:
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(begun.t))
        when = f"at {clock}, {duration(max(0.0, snapshot.taken - begun.t))} ago, "
    if isinstance(begun, Kept):
        return f"The resume {when}after epoch {begun.epoch}"
    if isinstance(begun, PhaseBegun):
        return f"The change {when}to phase {begun.phase or '?'} of the plan"
    place = clean(in_words(PurePosixPath(str(begun.restore_point)).name, begun.epoch), 90)
    if _asked_by(snapshot, begun) in ("start", "resume"):
        return f"The resume with changed settings {when}from {place}"
    return f"The rollback {when}to {place}"


def epochs_since(snapshot: RunSnapshot, begun: Undoable) -> int:
    """Return how many epochs in force were trained after `begun`."""
    kept = snapshot.phases.begins.get(snapshot.phases.now, 0)
    if not isinstance(begun, PhaseBegun):
        kept += begun.epoch or 0
    return sum(not row.superseded and row.epoch > kept for row in snapshot.rows)


def _settings_back(begun: Undoable) -> str:
    rows = begun.settings if isinstance(begun, RollbackBegun) else ()
    changed = [change for row in rows if (change := _change(row))]
    return f"Settings go back: {', '.join(changed)}." if changed else "It changed no setting."


def _change(row: SettingChange) -> str:
    name, now, then = (clean(cell, 40) for cell in (row.name, row.now, row.then))
    return f"{name} from {then} to {now}" if now != then else ""


def _asked_by(snapshot: RunSnapshot, begun: RollbackBegun) -> str:
    """Return the kind of the command that a rollback was part of: the last one before it."""
    before = takewhile(lambda event: event is not begun, snapshot.journal)
    asked = newest(before, CommandReceived)
    return asked.command.kind if asked is not None else ""
