"""What a stop or an undo would do to this run, in the words of the question that is asked before."""

from __future__ import annotations

import time
from pathlib import PurePosixPath
from typing import Any

from nantui.run import status as words
from nantui.run.journal import Entry
from nantui.ui.data.alarms import open_alarm
from nantui.ui.data.snapshot import RunSnapshot
from nantui.ui.format import clean, count, duration

BEFORE_TRAINING = ("", "importing", "setup")
"""Phases of a worker that has not begun its first step."""


def stop_words(snapshot: RunSnapshot) -> list[str]:
    """Say when it ends and what can be resumed afterwards: nothing inside the first epoch."""
    status = snapshot.status
    has_last = any(file.name == "last.pt" for file in snapshot.checkpoints)
    if status.state == words.STARTING or (status.step is None and snapshot.phase in BEFORE_TRAINING):
        if has_last:
            return ["It has not made a step yet; s resumes from what was there before, weights/last.pt."]
        return ["It has not made a step yet, so there is nothing to keep: s starts it from the beginning."]
    lines = ["It ends at the next batch boundary, on all ranks at the same step."]
    if not has_last and (status.epoch or 1) <= 1:
        return [
            *lines,
            "It is in its first epoch, and only a completed epoch can be resumed: s cannot go on from here, "
            "R begins again from the start.",
            "The weights so far are kept in weights/nantui_stop.pt, for a start from them.",
        ]
    lines.append("What it has learned is kept in weights/nantui_stop.pt; s resumes from there.")
    if open_alarm(snapshot, 0.0) is not None:
        lines.append("If its weights are NaN by now nothing is kept: R goes back to a clean checkpoint.")
    return lines


def undo_words(snapshot: RunSnapshot, begun: Entry) -> list[str]:
    """Say what `begun` (a rollback or a change of phase) was, which settings go back and what goes aside."""
    since = epochs_since(snapshot, begun)
    trained = f"{count(since, 'epoch')} trained since" if since else "What was made since"
    lost = begun.get("epochs_lost")
    back = f", with the {count(lost, 'epoch')} that it gave up" if isinstance(lost, int) and lost else ""
    return [
        f"{what_it_was(snapshot, begun)}.",
        f"Checkpoints and results.csv come back as they were before it{back}.",
        _settings_back(begun),
        f"{trained}: moved aside to nantui/backups/undo-…, nothing is deleted.",
    ]


def what_it_was(snapshot: RunSnapshot, begun: Entry) -> str:
    """Return which rollback it is: what asked for it, when, and where it went."""
    t = begun.get("t")
    when = ""
    if isinstance(t, (int, float)):
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(t))
        when = f"at {clock}, {duration(max(0.0, snapshot.taken - t))} ago, "
    if begun["kind"] == "phase_begun":
        return f"The change {when}to phase {begun.get('phase', '?')} of the plan"
    point = clean(PurePosixPath(str(begun.get("restore_point"))).name, 80)
    place = f"{point} (epoch {begun.get('epoch', '?')})"
    if _asked_by(snapshot, begun) in ("start", "resume"):
        return f"The resume with changed settings {when}from {place}"
    return f"The rollback {when}to {place}"


def epochs_since(snapshot: RunSnapshot, begun: Entry) -> int:
    """Return how many epochs in force were trained after `begun`."""
    before = snapshot.phases.begins.get(snapshot.phases.now, 0)
    epoch = begun.get("epoch") if begun["kind"] == "rollback_begun" else 0
    kept = before + (epoch if isinstance(epoch, int) else 0)
    return sum(not row.superseded and row.epoch > kept for row in snapshot.rows)


def _settings_back(begun: Entry) -> str:
    rows = begun.get("settings")
    changes = [_change(row) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    changed = [change for change in changes if change]
    return f"Settings go back: {', '.join(changed)}." if changed else "It changed no setting."


def _change(row: dict[str, Any]) -> str:
    name, now, then = (clean(row.get(key), 40) for key in ("name", "now", "then"))
    return f"{name} from {then} to {now}" if now != then else ""


def _asked_by(snapshot: RunSnapshot, begun: Entry) -> str:
    """Return the kind of the command that a rollback was part of: the last one before it."""
    kind = ""
    for entry in snapshot.journal:
        command = entry.get("command")
        if entry["kind"] == "command" and isinstance(command, dict):
            kind = str(command.get("kind", ""))
        if entry is begun:
            return kind
    return ""
