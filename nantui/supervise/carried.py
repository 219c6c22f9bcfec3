"""What an earlier supervisor had done of a command before it died: done once is done.

A command that is taken up again finds its rollback, or its attempt, in the journal; repeating it would stop
a training that has just begun to recover, or go back a second time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nantui.run.journal import Entry, last
from nantui.supervise.keeper import Keeper
from nantui.supervise.launch import way_in


def begun_before(keeper: Keeper, command: str) -> str:
    """Return what to say of the attempt that was started for a command, "" where none came to life.

    The journal is written before the process is made: an attempt without a process or a trace of one was not.
    """
    started = _attempt_of(keeper.journal.entries(), command)
    if started is None:
        return ""
    number = int(started["attempt"])
    lives = keeper.attempt is not None and keeper.attempt.attempt == number
    if not lives and not keeper.layout.ranks(number):
        return ""
    return f"attempt {number} started {way_in(str(started['mode']), started.get('checkpoint'))}"


def rolled_back_before(entries: list[Entry], command: str) -> dict[str, Any] | None:
    """Return the answer of a rollback that was finished for this command and not trained on, else None."""
    others = (entry for entry in entries if entry.get("command") != command)
    done = last(others, "rollback_done", "attempt_started")
    begun = last((entry for entry in entries if entry.get("id") == command), "rollback_begun")
    if done is None or begun is None or done["kind"] != "rollback_done" or done.get("id") != command:
        return None
    asked = {row["name"]: row["then"] for row in begun.get("settings") or [] if not row.get("kept")}
    return {"mode": begun.get("mode"), "asked": asked, "text": begun.get("text")}


def _attempt_of(entries: list[Entry], command: str) -> Mapping[str, Any] | None:
    return last((entry for entry in entries if entry.get("command") == command), "attempt_started")
