"""Settings that were edited and wait for the next attempt, as the journal tells."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from nantui.run.journal import Entry


def pending_edits(entries: Iterable[Entry]) -> dict[str, Any]:
    """Return what was set since the last attempt started; `entries` is the run's journal."""
    edits: dict[str, Any] = {}
    for entry in entries:
        command = entry.get("command")
        if entry["kind"] == "attempt_started":
            edits = {}
        elif entry["kind"] == "command" and isinstance(command, dict) and command.get("kind") == "set":
            values = (command.get("options") or {}).get("set")
            edits.update(values if isinstance(values, dict) else {})
    return edits
