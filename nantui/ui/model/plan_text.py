"""What is about to be done to a run, as text: the plan of a recovery with what moves, what it costs, what
changes and the answers people ask for; and what a stop or an undo would do, in the words of the question
that is asked before.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from nantui.run import status as run_status
from nantui.run.events import Change, PhaseBegun, RollbackBegun
from nantui.run.journal import Undoable
from nantui.run.points import in_words
from nantui.ui.format import clean, duration, number
from nantui.ui.glyphs import Glyphs
from nantui.ui.model.command_progress import CommandProgress
from nantui.ui.model.reasons import open_alarm
from nantui.ui.model.snapshot import RunSnapshot
from nantui.ui.model.timeline import incident_text
from nantui.ui.styled_text import Line, column, fit, hanging, wrap
from nantui.words import count

if TYPE_CHECKING:
    from nantui.recovery.plan import Plan
AGAIN = ["It diverged with them, and may do so again.", "R goes back and proposes what may cure it."]


def may_rewind(kind: str, snapshot: RunSnapshot | None) -> bool:
    """Tell whether a training runs that has step points, the newest of which are in its memory, too, and
    something went wrong in it.
    """
    if kind != "recover" or snapshot is None or snapshot.status.state != run_status.RUNNING:
        return False
    went_wrong = snapshot.suspicious or open_alarm(snapshot, 0.0) is not None
    return went_wrong and any(file.point for file in snapshot.checkpoints)


def describe(plan: Plan, kind: str, snapshot: RunSnapshot | None, glyphs: Glyphs, width: int) -> list[Line]:
    """Return the whole plan as lines."""
    sections = [
        _what(plan, kind, snapshot, width), _settings(plan, glyphs, width), _warnings(plan, glyphs, width),
        _left(plan, width), _afterwards(plan, width), _moves(plan, glyphs, width), _earlier(plan, width),
        _questions(plan, width),
    ]  # fmt: skip
    return [line for section in sections if section for line in ([], *section)][1:]


def _what(plan: Plan, kind: str, snapshot: RunSnapshot | None, width: int) -> list[Line]:
    status, facts, costs = snapshot.status if snapshot else None, dict[str, str](), plan.costs
    if kind == "recover" and status is not None and status.state in run_status.ACTIVE:
        place = f" in epoch {status.epoch}/{status.epochs or '?'}" if status.epoch else ""
        facts["stops"] = f"the running attempt{place}, at the next batch boundary; verifies that none is left"
    hours = f", about {duration(costs.hours_lost * 3600)}" if math.isfinite(costs.hours_lost) else ""
    facts["costs"] = f"{costs.again}{hours}" if costs.again else "no epoch is lost"
    if plan.trouble is not None:
        facts["because"] = f"{incident_text(plan.trouble.kind)} in epoch {plan.trouble.epoch}"
    if plan.measured:
        facts["measured"] = plan.measured
    if may_rewind(kind, snapshot):
        facts["or, with m"] = (
            "in the process that trains, in about a second: back to the newest step point from before the "
            "trouble, settings as they are; cannot be undone"
        )
    if plan.second is not None:
        facts["or, with b"] = f"{plan.second_words}; yours to decide"
    elif plan.judgement is not None:
        facts["judged"] = plan.judgement.in_words
    aside = "" if plan.restore else "; all that it has made moves aside, u takes it back"
    return [*wrap(clean(plan.headline + aside), width, "strong"), *_facts(facts, width)]


def _left(plan: Plan, width: int) -> list[Line]:
    """What is known of the training that follows."""
    facts, factor = dict[str, str](), plan.costs.factor
    if math.isfinite(plan.costs.hours_remaining):
        changes = abs(factor - 1) > 0.02
        slower = f", an epoch takes {factor:.2g}x as long with these settings" if changes else ""
        facts["still to go"] = f"about {duration(plan.costs.hours_remaining * 3600)}{slower}"
    facts["final mAP"] = "unknown: nobody can know it before it is trained"
    return _facts(facts, width)


def _facts(facts: Mapping[str, str], width: int) -> list[Line]:
    return [
        line
        for name, text in facts.items()
        for line in hanging([(column(name, 12), "muted")], clean(text, 500), width)
    ]


def _warnings(plan: Plan, glyphs: Glyphs, width: int) -> list[Line]:
    found = (f"{one.name}: {one.text}" for one in plan.findings if one.severity == "warning")
    warnings = (clean(text, 500) for text in (*plan.warnings, *found))
    return [line for text in warnings for line in hanging([(f"{glyphs.warn} ", "warn")], text, width, "warn")]


def _settings(plan: Plan, glyphs: Glyphs, width: int) -> list[Line]:
    """What changes must be seen before it is confirmed; what stays is one sentence."""
    names = f"   from {', '.join(plan.presets)}" if plan.presets else ""
    head: Line = [("settings", "title"), (names, "info"), ("   p changes the presets", "faint")]
    changes = setting_rows((row for row in plan.settings if not row.kept), glyphs, width)
    kept: dict[str, list[str]] = {}
    for row in plan.settings:
        if row.kept:
            kept.setdefault(row.why, []).append(row.name)
    told = "; ".join(f"{', '.join(names)} ({why})" for why, names in kept.items())
    stays = wrap(clean(f"as they are: {told}", 600), width, "muted") if kept else []
    images = _images(plan, width) if plan.guilty else []
    return [head, *images, *(changes or [[("no setting changes", "muted")]]), *stays]


def _images(plan: Plan, width: int) -> list[Line]:
    """The images that the autopsy has proven guilty, whether they are left out or not."""
    names = clean(", ".join(PurePosixPath(image).name for image in plan.guilty), 200)
    it = "it" if len(plan.guilty) == 1 else "them"
    what, key = ("leave out", f"i keeps {it}") if plan.images else ("keep", f"i leaves {it} out")
    said = f"{what} {count(len(plan.guilty), 'image')} ({names}, proven by the autopsy): {key}"
    return wrap(said, width, "strong" if plan.images else "muted")


def setting_rows(rows: Iterable[Change], glyphs: Glyphs, width: int) -> list[Line]:
    """Return rows of name, now, then and why; the reason goes below where the line is too short."""
    from nantui.settings.values import cells

    lines: list[Line] = []
    for row in rows:
        name, now, then, why = (clean(cell, 300) for cell in cells(row))
        change: Line = [(column(name, 15), "strong"), (column(now, 10, right=True), "muted")]
        change += [(f" {glyphs.then} ", "accent"), (column(then, 10), "accent")]
        if width > 60:
            lines += hanging([*change, ("  ", "text")], why, width, "muted")
        else:
            lines += [fit(change, width), *hanging([("    ", "text")], why, width, "muted")]
    return lines


def _afterwards(plan: Plan, width: int) -> list[Line]:
    """What a remedy asks for at the end of the run."""
    if plan.afterwards is None:
        return []
    from nantui.recovery.plan import afterwards

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
    """The questions of that moment, with answers that are true for this plan."""
    answers = {
        "What if it goes wrong?": "Every step is journaled before it is done; a crash is finished or taken "
        "back at the next start, and u takes the whole rollback back."
    }
    rate = next((row for row in plan.settings if row.name == "lr0" and not row.kept), None)
    if rate is not None and isinstance(rate.now, (int, float)):
        answers["Why not keep my learning rate?"] = (
            f"It was {number(rate.now)} when it happened; {clean(rate.why, 200)}. To keep it, choose other "
            "presets with p."
        )
    best = next((one for one in plan.candidates if one.name == "best.pt"), None)
    if best is not None and plan.restore is not None and best.name != plan.restore.name:
        why = best.why_not or f"{plan.restore.name} is at least as new and costs less"
        answers["Why not best.pt?"] = f"{clean(why, 200)}."
    answers["Does a resume really use these settings?"] = (
        "Yes: they are written into the checkpoint, and the worker reports what is in effect at its first "
        "step, shown here."
    )
    lines: list[Line] = [[("what people ask", "title")]]
    for question, answer in answers.items():
        lines += [[(question, "strong")], *hanging([("  ", "text")], answer, width, "muted")]
    return lines


def describe_progress(progress: CommandProgress, kind: str, glyphs: Glyphs, width: int) -> list[Line]:
    """Return the stages so far, the outcome, and asked against in effect."""
    lines: list[Line] = []
    done = progress.done
    for stage in progress.stages:
        going = stage is progress.stages[-1] and done is None
        mark, ink = (glyphs.busy, "info") if going else (glyphs.good, "good")
        text = wrap(clean(stage.text), width - 14)[0]
        lines.append([(f"{mark} ", ink), (column(stage.stage, 12), "strong"), *text])
    if done is None:
        waiting = "waiting for the supervisor.." if not progress.stages else ""
        return [*lines, [(waiting, "muted")]]
    mark, ink = (glyphs.good, "good") if done.ok else (glyphs.bad, "bad")
    lines += [[], *hanging([(f"{mark} ", ink)], clean(done.text or "done", 600), width, ink)]
    if not done.ok:
        moved = "what was moved is journaled. R tries again, u takes a finished rollback back."
        advice = f"Nothing is lost: {moved if kind != 'rewind' else 'it trains on. R can recover it.'}"
        return [*lines, [], *wrap(advice, width, "muted")]
    if kind != "recover" or not progress.asked:
        return lines
    lines += [[], [("asked", "title"), (" against ", "muted"), ("in effect", "title")]]
    effect = progress.effect
    if effect is None:
        return [*lines, [("the worker reports at its first step..", "muted")]]
    lines += [_confirmed(name, asked, effect.values, glyphs, width) for name, asked in progress.asked.items()]
    return lines + [line for note in effect.notes for line in wrap(clean(note, 200), width, "muted")]


def _confirmed(name: str, asked: object, effect: Mapping[str, object], glyphs: Glyphs, width: int) -> Line:
    """Return a line of asked against in effect; what the worker cannot report now contradicts nothing."""
    from nantui.settings.values import same_value

    same = name in effect and same_value(effect[name], asked)
    mark, ink = (glyphs.good, "good") if same else (glyphs.warn, "warn")
    if name not in effect:
        mark, ink = " ", "muted"
    said = clean(effect.get(name, "not reported in this phase"), 60)
    line: Line = [(f"{mark} ", ink), (column(name, 15), "strong"), (column(clean(asked, 40), 12), "text")]
    return fit([*line, (said, "text" if same else ink)], width)


def stop_question(snapshot: RunSnapshot) -> tuple[str, str, list[str]]:
    """Return what x does, asks, and says before: once it is stopping, whether to wait no longer."""
    if snapshot.status.state == run_status.STOPPING:
        return "kill", "Wait no longer and kill every process of it?", kill_words(snapshot)
    return "stop", "Stop the training?", stop_words(snapshot)


def stop_words(snapshot: RunSnapshot) -> list[str]:
    """Say when it ends and what can be resumed afterwards: inside the first epoch only from a step point."""
    status = snapshot.status
    has_last = any(file.name == "last.pt" for file in snapshot.checkpoints)
    begins = status.step is None and snapshot.activity in ("", "importing", "setup")
    if begins or status.state == run_status.STARTING:
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
    if status.state == run_status.STOPPING:
        return [clean((status.doing or {}).get("text") or "It is stopping.", 400), lost]
    return [lost, "Prefer x, which stops at a batch boundary and loses nothing."]


def undo_words(snapshot: RunSnapshot, begun: Undoable) -> list[str]:
    """Say when it was, which settings go back and what goes aside."""
    clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(begun.t))
    ago = duration(max(0.0, snapshot.taken - begun.t))
    before = snapshot.phases.begins.get(snapshot.phases.now, 0)
    kept = before if isinstance(begun, PhaseBegun) else before + (begun.epoch or 0)
    since = sum(not row.superseded and row.epoch > kept for row in snapshot.rows)
    trained = f"{count(since, 'epoch')} trained since" if since else "What was made since"
    lost = begun.epochs_lost if isinstance(begun, RollbackBegun) else None
    back = f", with the {count(lost, 'epoch')} that it gave up" if lost else ""
    rows = begun.settings if isinstance(begun, RollbackBegun) else ()
    changes = [tuple(clean(cell, 40) for cell in (row.name, row.then, row.now)) for row in rows]
    changed = [f"{name} from {then} to {now}" for name, then, now in changes if now != then]
    return [
        *([f"It was done at {clock}, {ago} ago."] if begun.t else []),
        f"Checkpoints and results.csv come back as they were before it{back}.",
        f"Settings go back: {', '.join(changed)}." if changed else "It changed no setting.",
        f"{trained}: moved aside to nantui/backups/undo-…, nothing is deleted.",
    ]
