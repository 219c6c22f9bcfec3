"""What the demo has to prove, each read from the files of the run and never from our own say-so.

Every function returns a line that says what was found, or None while it is not there yet. A finding that
contradicts the story raises `Failed`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from nantui.checkpoint.catalog import Catalog
from nantui.demo.story import ACT_ONE, ACT_TWO, EPOCHS
from nantui.run import events
from nantui.run.attempts import read_exits
from nantui.run.events import Event, Found, of_kind
from nantui.run.layout import RunLayout
from nantui.run.record import AttemptRecord, RunRecord
from nantui.run.results import current, read_results
from nantui.run.telemetry import read_steps


class Failed(Exception):
    """The files say something else than the story, or a stage did not happen."""


def training_started(layout: RunLayout) -> str | None:
    """The first attempt has made a step."""
    steps = read_steps(layout.steps(1))
    losses = " ".join(f"{name} {value:.3f}" for step in steps[:1] for name, value in step.losses.items())
    return f"first step: losses {losses}" if steps else None


def alarm_raised(layout: RunLayout) -> str | None:
    """The guard saw the NaN in the BatchNorm statistics in the step in which it was planted."""
    incident = _first(AttemptRecord(layout, 1).events(), events.Incident)
    if incident is None:
        return None
    planted = (ACT_ONE["epoch"], ACT_ONE["batch"])
    if incident.incident != "nan_buffer" or (incident.epoch, incident.step) != planted:
        raise Failed(f"planted at epoch and step {planted}, reported: {incident}")
    losses = [step.losses for step in read_steps(layout.steps(1)) if (step.epoch, step.step) == planted]
    if not losses or not all(math.isfinite(value) for value in losses[0].values()):
        return None
    return f"epoch {incident.epoch}, step {incident.step}: {incident.text}; its losses are finite"


def badges_turned(layout: RunLayout) -> str | None:
    """What was saved after the fault is corrupt, what was saved before it is clean."""
    catalog = Catalog(layout.weights)
    ruined = layout.weights / f"epoch{ACT_ONE['epoch'] - 1}.pt"
    whole = layout.weights / f"epoch{ACT_ONE['epoch'] - 2}.pt"
    if not ruined.exists() or not layout.last.exists():
        return None
    badges = {path.name: catalog.verdict(path).badge for path in (whole, ruined, layout.last)}
    if "busy" in badges.values() or badges[layout.last.name] == "unreadable":
        return None
    if list(badges.values()) != ["clean", "corrupt", "corrupt"]:
        raise Failed(f"badges: {badges}")
    return ", ".join(f"{name} {badge}" for name, badge in badges.items())


def recovery_asked(layout: RunLayout) -> str | None:
    """The supervisor has taken the command that `R` left."""
    commands = [event.command for event in of_kind(RunRecord(layout).journal, events.CommandReceived)]
    asked = next((command for command in commands if command.kind == "recover"), None)
    return None if asked is None else f"by {asked.by}: {dict(asked.options)}"


def rolled_back(layout: RunLayout) -> str | None:
    """The ruined checkpoints lie in corrupted_backup and the newest clean epoch was restored."""
    journal = RunRecord(layout).journal
    begun, done = _first(journal, events.RollbackBegun), _first(journal, events.RollbackDone)
    if begun is None or done is None:
        return None
    restored, newest = Path(str(begun.restore_point)).name, ACT_ONE["epoch"] - 1
    if begun.epoch != newest:
        raise Failed(
            f"restored {restored}, epoch {begun.epoch}; the newest before the fault is epoch {newest}"
        )
    moved = sorted(path.name for path in layout.corrupted_backup.glob("*.pt"))
    if not any(name.startswith("last_epoch") and name.endswith("_corrupted.pt") for name in moved):
        raise Failed(f"corrupted_backup holds {moved}")
    return f"restored {restored}, epoch {newest}; moved aside: {', '.join(moved)}"


def settings_in_effect(layout: RunLayout) -> str | None:
    """The resumed worker read the changed settings back from its live optimizer."""
    journal = [event for event in RunRecord(layout).journal if event.attempt == 2]
    reported, started = _first(journal, events.InEffect), _first(journal, events.AttemptStarted)
    if reported is None or started is None:
        return None
    if reported.differences:
        raise Failed(f"asked against in effect: {reported.differences}")
    values = reported.values
    if started.mode != "resume" or values.get("guard") != "protect":
        raise Failed(f"attempt 2 is a {started.mode} with {values}")
    return ", ".join(f"{name} {values[name]}" for name in ("guard", "optimizer", "lr0") if name in values)


def one_step_lost(layout: RunLayout) -> str | None:
    """With the guard on protect, the NaN pixel cost exactly its own step."""
    steps = read_steps(layout.steps(2))
    planted = (ACT_TWO["epoch"], ACT_TWO["batch"])
    if not any((step.epoch, step.step) > planted for step in steps):
        return None
    skipped = [(step.epoch, step.step) for step in steps if step.skipped]
    if skipped != [planted]:
        raise Failed(f"skipped steps {skipped}, planted {planted}")
    return f"epoch {planted[0]}, step {planted[1]} skipped, the next step trained on"


def finished(layout: RunLayout) -> str | None:
    """Every epoch stands in results.csv with finite numbers, and what remains is clean."""
    exits, ended = read_exits(layout, 2), of_kind(RunRecord(layout).journal, events.AttemptEnded)
    if not exits or not any(one.attempt == 2 for one in ended):
        return None
    if exits[0].outcome != "finished":
        raise Failed(f"attempt 2 ended as {exits[0].outcome}: {exits[0].text}")
    rows = current(read_results(layout.results_csv))
    if [row.epoch for row in rows] != list(range(1, EPOCHS + 1)) or not all(row.finite for row in rows):
        raise Failed(f"results.csv holds epochs {[(row.epoch, row.finite) for row in rows]}")
    catalog = Catalog(layout.weights)
    badges = {path.name: catalog.verdict(path, crc=True).badge for path in (layout.last, layout.best)}
    if set(badges.values()) != {"clean"}:
        raise Failed(f"badges at the end: {badges}")
    return f"{len(rows)} finite epochs; last.pt and best.pt clean"


def _first(journal: Iterable[Event], kind: type[Found]) -> Found | None:
    return next(iter(of_kind(journal, kind)), None)
