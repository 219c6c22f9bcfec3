"""What became of a command, from the journal: its stages, its outcome, and what is in effect afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nantui.ui.data.snapshot import RunSnapshot


@dataclass(frozen=True)
class Progress:
    """`ok` is None while it runs. `in_effect` are the journal's differences, None until they are known."""

    command: str
    kind: str
    stages: tuple[tuple[float, str, str], ...] = ()
    ok: bool | None = None
    text: str = ""
    t: float = 0.0
    asked: tuple[tuple[str, Any], ...] = ()
    values: tuple[tuple[str, Any], ...] | None = None


def follow(command: str, kind: str, snapshot: RunSnapshot) -> Progress:
    """Return what the journal says about `command`."""
    stages: list[tuple[float, str, str]] = []
    done: dict[str, Any] = {}
    seen = False
    asked: dict[str, Any] = {}
    values: dict[str, Any] | None = None
    for entry in snapshot.journal:
        if entry["kind"] == "command" and _id_of(entry) == command:
            seen = True
        if entry["kind"] == "stage" and entry.get("command") == command:
            seen = True
            stages.append((float(entry.get("t", 0)), str(entry.get("stage", "")), str(entry.get("text", ""))))
        if entry["kind"] == "command_done" and entry.get("id") == command:
            done = entry
        if seen and entry["kind"] == "attempt_started" and isinstance(entry.get("asked"), dict):
            asked, values = entry["asked"], None
        if seen and entry["kind"] == "in_effect" and isinstance(entry.get("values"), dict):
            values = entry["values"]
    effects = None if values is None else tuple((name, values.get(name)) for name in asked)
    return Progress(
        command,
        kind,
        tuple(stages),
        None if not done else done.get("ok") is not False,
        str(done.get("text", "")),
        float(done.get("t", 0)),
        tuple(asked.items()),
        effects,
    )


def _id_of(entry: dict[str, Any]) -> str:
    command = entry.get("command")
    return str(command.get("id", "")) if isinstance(command, dict) else str(command or "")
