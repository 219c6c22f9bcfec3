"""What a pair of run directories says: alarms, skips, warnings, a rollback's plan, where they differ."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.healthy.cases import Case
from benchmarks.healthy.misses import LOSS_SCALE
from benchmarks.healthy.records import Record, short
from nantui.run.attempts import FINISHED, STOPPED, read_exits
from nantui.run.events import Incident, Placed, Warned, of_kind
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from nantui.run.results import current, read_results
from nantui.run.telemetry import Step, StepFollower

MORE_EPOCHS = 1000
"""Asked for in a dry run of a finished training, which has nothing to go back for otherwise."""
LOST_SHARE, LEARNED, NOTHING = 0.25, 0.05, 0.01


def record_of(case: Case, guarded: Path, off: Path, plain: Path | None) -> Record:
    """Return everything that is kept of a pair."""
    layout = RunLayout(guarded)
    events = [event for attempt in RunRecord(layout).attempts for event in attempt.events()]
    steps = [step for number in layout.attempt_numbers() for step in steps_of(layout, number)]
    table, control = results_table(guarded), results_table(off)
    record: Record = {
        "name": case.name, "part": case.part, "values": dict(case.values), "timed": case.timed,
        "outcome": outcome(layout), "expected": STOPPED if case.cut else FINISHED,
        "control_outcome": outcome(RunLayout(off)), "steps": len(steps),
        "skipped": [[step.epoch, step.step, step.reason or _unnamed(step)] for step in steps if step.skipped],
        "incidents": [_brief(event, event.incident) for event in of_kind(events, Incident)],
        "warnings": [_brief(event, event.warning) for event in of_kind(events, Warned)],
        "other_events": sorted({event.kind for event in events} - USUAL_EVENTS),
        "revalidated": any("valid" in event.kind for event in events),
        "proposal": proposal(guarded, finished=not case.cut), "signs": signs(guarded),
        "unlike_control": unlike(table, control), "lost_by_control": lost(off),
        "control_metric": metrics(off), "results": rounded(table), "rows": [_row(step) for step in steps],
    }  # fmt: skip
    if record["unlike_control"]:
        record["control_results"] = rounded(control)
    if plain is not None:
        record["off_unlike_plain"] = unlike(control, results_table(plain))
    return record


USUAL_EVENTS = frozenset(
    {"registered", "phase", "in_effect", "epoch", "saved", "stopping", "warning", "incident", "autopsy"}
)


def _brief(event: Placed, kind: str) -> list[Any]:
    return [kind, event.epoch, event.step, event.text]


def _unnamed(step: Step) -> str:
    """A loss scale that was too high is a cause, though no incident."""
    norm = step.value("grad_norm")
    scaled = not math.isnan(step.value("loss_scale"))
    return LOSS_SCALE if scaled and not math.isfinite(norm) else ""


def _row(step: Step) -> list[Any]:
    """Return epoch, step, summed losses, gradient norm, loss scale and whether it was skipped."""
    loss = short(sum(step.losses.values()))
    norm, scale = (short(step.value(name)) for name in ("grad_norm", "loss_scale"))
    return [
        step.epoch,
        step.step,
        loss,
        *(None if one == "nan" else one for one in (norm, scale)),
        int(step.skipped),
    ]


def steps_of(layout: RunLayout, number: int) -> list[Step]:
    """Return every step of one attempt."""
    follower = StepFollower(layout.steps(number))
    steps, more = follower.read()
    while more:
        newer, more = follower.read()
        steps += newer
    return steps


def outcome(layout: RunLayout) -> str:
    """Return how the newest attempt ended; "killed" where it left no record."""
    exits = read_exits(layout, layout.newest_attempt())
    return exits[0].outcome if exits else "killed"


def results_table(run: Path) -> list[list[str]]:
    """Return results.csv as it stands, cell by cell, without the column of the time."""
    path = run / "results.csv"
    if not path.exists():
        return []
    rows = [[cell.strip() for cell in row] for row in csv.reader(path.read_text().splitlines())]
    keep = [place for place, name in enumerate(rows[0]) if name != "time"] if rows else []
    return [[row[place] for place in keep] for row in rows]


def unlike(one: list[list[str]], other: list[list[str]]) -> list[Any] | None:
    """Return where two tables first differ: the epoch, the column and both cells; None where they do not."""
    for row, (a, b) in enumerate(zip(one, other, strict=False)):
        for name, cell, control in zip(one[0], a, b, strict=False):
            if cell != control:
                return [row, name, cell, control]
    return (
        None
        if len(one) == len(other)
        else [min(len(one), len(other)), "epochs", len(one) - 1, len(other) - 1]
    )


def rounded(table: list[list[str]]) -> list[list[Any]]:
    """Return a table fit for keeping: the header as it is, numbers with five digits."""
    return [table[0], *([short(float(cell)) for cell in row] for row in table[1:])] if table else []


def proposal(run: Path, finished: bool) -> dict[str, Any]:
    """Return what `nantui rollback --dry-run --json` would go back to, beside the newest epoch there is."""
    from nantui.cli import main

    words = ["rollback", str(run), "--dry-run", "--json"]
    out, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
        status = main([*words, *(["--set", f"epochs={MORE_EPOCHS}"] if finished else [])])
    if status:
        return {"status": status, "said": said.getvalue().strip()}
    plan = json.loads(out.getvalue())
    point = plan["restore_point"] or {}
    newest = max((one["work"] for one in plan["candidates"] if one["work"]), default=None)
    trouble = plan["trouble"] or {}
    why = [trouble.get(name) for name in ("kind", "epoch", "text")] if trouble else None
    return {
        "status": 0,
        "to": point.get("name"),
        "work": point.get("work"),
        "newest": newest,
        "trouble": why,
    }


def signs(run: Path) -> list[Any]:
    """Return the signs of trouble in results.csv as it stood after each epoch: [after, kind, epoch]."""
    from nantui.recovery.trouble import first_trouble

    path = run / "results.csv"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    found = []
    with tempfile.TemporaryDirectory() as folder:
        layout = RunLayout(Path(folder))
        for count in range(2, len(lines) + 1):
            layout.results_csv.write_text("".join(lines[:count]))
            if sign := first_trouble(RunRecord(layout)):
                found.append([count - 1, sign.kind, sign.epoch])
    return found


def metrics(run: Path) -> list[float]:
    """Return the metric that decides about best.pt, epoch by epoch."""
    from nantui.recovery.trouble import quality

    return [float(short(quality(row))) for row in current(read_results(run / "results.csv"))]


def lost(run: Path) -> str:
    """Return why a training itself is no good (numbers or metrics gone, nothing learned), else ""."""
    rows, values = current(read_results(run / "results.csv")), metrics(run)
    if not rows:
        return "no epoch was finished"
    if not rows[-1].finite:
        return "its last epoch is not finite"
    best, end = max(values), max(values[-3:])
    if best >= LEARNED and end < best * LOST_SHARE:
        return f"its metric fell from {best:.3g} to {end:.3g}"
    losses = [sum(row.losses("train").values()) for row in rows]
    if best < NOTHING and min(losses[-3:]) >= losses[0]:
        return "it learned nothing in its epochs"
    return ""
