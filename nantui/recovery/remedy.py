"""The first remedy: the smallest that the evidence supports; without evidence the guide's whole.

Also what was tried before, so that the same step is not taken twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nantui.recovery.candidates import Candidate
from nantui.recovery.signs import Trouble
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout

WHOLE, AGAIN = "nan-safe", "restart"
OVERFLOW = frozenset({"fp16_overflow", "overflow", "scale_collapsed"})
RATE = frozenset({"gradient_explosion", "explosion", "loss_exploded", "learning_rate"})


@dataclass(frozen=True)
class Earlier:
    """An earlier recovery: what it restored and changed, and where the attempt after it failed, if it did."""

    id: str
    restore_point: str
    settings: Mapping[str, Any]
    failed_at: int | None
    text: str


def first(
    layout: RunLayout, restart: bool, trouble: Trouble, in_effect: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return the presets to propose; `restart` means that nothing clean is left (plan B)."""
    if restart:
        return (AGAIN,)
    causes = {*proven_causes(layout), trouble.kind}
    if causes & OVERFLOW and on_gpu(in_effect) and in_effect.get("amp") in (True, "fp16"):
        return ("bf16",)
    return (WHOLE,)


def proven_causes(layout: RunLayout) -> set[str]:
    """Return what the newest attempt's autopsy proved."""
    numbers = layout.attempt_numbers()
    entries = Journal(layout.journal).entries()
    return {
        str(entry.get("cause"))
        for entry in entries
        if entry["kind"] == "autopsy" and numbers and entry.get("attempt") == numbers[-1]
    }


def on_gpu(settings: Mapping[str, Any]) -> bool:
    """Tell whether the run trains on a GPU as far as its settings say; a run that says nothing may."""
    return str(settings.get("device")) not in ("cpu", "mps")


def earlier_recoveries(layout: RunLayout) -> list[Earlier]:
    """Return the recoveries of this run, oldest first."""
    found: list[Earlier] = []
    for entry in Journal(layout.journal).entries():
        if entry["kind"] == "rollback_begun":
            rows = entry.get("settings") or []
            settings = {row["name"]: row["then"] for row in rows if not row.get("kept")}
            found.append(Earlier(str(entry["id"]), str(entry.get("restore_point")), settings, None, ""))
        elif entry["kind"] == "rollback_reverted":
            found = [one for one in found if one.id != entry.get("id")]
        elif entry["kind"] == "undo_done":
            found = [one for one in found if one.id != entry.get("of")]
        elif entry["kind"] == "attempt_ended" and found and entry.get("outcome") in ("diverged", "failed"):
            last, text = found[-1], str(entry.get("text", ""))
            found[-1] = Earlier(last.id, last.restore_point, last.settings, entry.get("epoch"), text)
    return found


def repeats(earlier: Sequence[Earlier], restore: Candidate | None, settings: Mapping[str, Any]) -> str:
    """Return a warning when the same restore point with the same settings has failed before, else ""."""
    if restore is None:
        return ""
    for one in earlier:
        same_point = one.restore_point.endswith(restore.name)
        if one.failed_at is not None and same_point and dict(one.settings) == dict(settings):
            return f"the same restore point with the same settings failed before, in epoch {one.failed_at}"
    return ""
