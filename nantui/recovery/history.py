"""The recoveries of a run so far: what each restored and changed, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nantui.run.attempts import read_exits
from nantui.run.journal import Entry, Journal
from nantui.run.layout import RunLayout

QUARANTINE = "quarantine"
BAD_ENDS = ("diverged", "failed")
OUT_OF_MEMORY = ("out of memory", "cublas_status_alloc_failed", "unable to find an engine")


@dataclass(frozen=True)
class Earlier:
    """An earlier recovery.

    `restore_point` is relative to the run, `work` its epoch from 1 (None: plan B); `failed_at` is the epoch,
    from 1, in which the attempt after it got into trouble, None when it did not; `out_of_memory` tells that
    it ended for that reason.
    """

    id: str
    restore_point: str
    settings: Mapping[str, Any]
    failed_at: int | None = None
    text: str = ""
    work: int | None = None
    presets: tuple[str, ...] = ()
    out_of_memory: bool = False


def earlier_recoveries(layout: RunLayout) -> list[Earlier]:
    """Return the recoveries that are in force, oldest first; each phase of a plan has its own."""
    found: list[Earlier] = []
    phases: dict[str, list[Earlier]] = {}
    attempt = 0
    for entry in Journal(layout.journal).entries():
        kind = entry["kind"]
        if kind == "attempt_started":
            attempt = int(entry.get("attempt") or 0)
        elif kind == "rollback_begun":
            found = [*_in_trouble(found, entry.get("incident_epoch"), "trouble came back"), _begun(entry)]
        elif kind == "phase_done":
            phases[str(entry.get("id"))], found = found, []
        elif kind == "undo_done" and str(entry.get("of")) in phases:
            found = phases[str(entry["of"])]
        elif kind in ("rollback_reverted", "undo_done"):
            gone = entry.get("id") if kind == "rollback_reverted" else entry.get("of")
            found = [one for one in found if one.id != gone]
        elif kind == "attempt_ended" and entry.get("outcome") in BAD_ENDS:
            found = _in_trouble(
                found, entry.get("epoch"), str(entry.get("text", "")), _memory(layout, attempt, entry)
            )
    return found


def settings_in_force(layout: RunLayout) -> dict[str, Any]:
    """Return what the recoveries of this run have changed so far.

    An older restore point was saved before some of them; what was decided stays in force all the same.
    """
    return {name: value for one in earlier_recoveries(layout) for name, value in one.settings.items()}


def repeats(earlier: Sequence[Earlier], restore_point: str, settings: Mapping[str, Any]) -> str:
    """Return a warning when the same restore point with the same settings has failed before, else ""."""
    for one in earlier:
        same = one.restore_point == restore_point and dict(one.settings) == dict(settings)
        if one.failed_at is not None and same:
            return f"the same restore point with the same settings failed before, in epoch {one.failed_at}"
    return ""


def newest_end(layout: RunLayout) -> Entry | None:
    """Return the `attempt_ended` of the newest attempt where nothing was done since, however it ended."""
    found: Entry | None = None
    for entry in Journal(layout.journal).entries():
        if entry["kind"] in ("attempt_started", "rollback_done", "phase_done"):
            found = None
        elif entry["kind"] == "attempt_ended":
            found = entry
    return found


def _begun(entry: Entry) -> Earlier:
    rows = entry.get("settings") or []
    settings = {row["name"]: row["then"] for row in rows if not row.get("kept")}
    point, presets = str(entry.get("restore_point")), tuple(entry.get("presets") or ())
    presets += (QUARANTINE,) if entry.get("images") else ()
    return Earlier(str(entry["id"]), point, settings, work=entry.get("epoch"), presets=presets)


def _in_trouble(found: list[Earlier], epoch: Any, text: str, memory: bool = False) -> list[Earlier]:
    """Note that the attempt after the last recovery got into trouble, unless that is known already."""
    if not found or found[-1].failed_at is not None or not isinstance(epoch, int):
        return found
    return [*found[:-1], replace(found[-1], failed_at=epoch, text=text, out_of_memory=memory)]


def _memory(layout: RunLayout, attempt: int, entry: Entry) -> bool:
    said = [str(entry.get("text", "")), *(ending.text for ending in read_exits(layout, attempt))]
    return entry.get("outcome") == "failed" and any(
        words in text.lower() for words in OUT_OF_MEMORY for text in said
    )
