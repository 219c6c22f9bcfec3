"""The settings of a run as the editor shows them: what the newest attempt really uses, what was saved for the
next one, and what that one would use.

What was asked is not what is in effect: `optimizer=auto` ignores `lr0` and `momentum`, and AMP is switched
off where it does not work. Only the worker's own report tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nantui.run.attempts import Attempt, read_attempt
from nantui.run.edits import pending_edits
from nantui.run.journal import Entry
from nantui.run.layout import RunLayout
from nantui.run.spec import read_args, read_spec
from nantui.ui.data.snapshot import RunSnapshot

CHOSEN_BY_AUTO = ("lr0", "momentum", "optimizer")


@dataclass(frozen=True)
class SettingsNow:
    """`next_start` is asked for from the next start on, `in_effect` is what the newest attempt uses,
    `saved` waits for the next start, `chosen` are names that `optimizer=auto` chose a value for.
    """

    next_start: Mapping[str, Any] = field(default_factory=dict)
    in_effect: Mapping[str, Any] = field(default_factory=dict)
    saved: Mapping[str, Any] = field(default_factory=dict)
    chosen: frozenset[str] = frozenset()


def read_settings(run: RunLayout, schema: Any, snapshot: RunSnapshot | None) -> SettingsNow:
    """Return what is known about the settings of `run`; reads files, for a thread.
    Raises UserError for a spec that makes no sense.
    """
    journal = snapshot.journal if snapshot is not None else ()
    args, spec, edits = read_args(run.args_yaml), read_spec(run.spec), pending_edits(journal)
    attempt = read_attempt(run, run.newest_attempt() or 0)
    train, ours = (spec.train, spec.ours) if spec is not None else ({}, {})
    asked = {**schema.defaults(), **train, **args, **ours}
    reported = reported_values(journal)
    used = asked if attempt is None else {**schema.defaults(), **_used(attempt, args, reported)}
    automatic = str(asked.get("optimizer", "")).lower() == "auto"
    return SettingsNow(
        _known({**asked, **edits}, schema),
        _known(used, schema),
        _known(edits, schema),
        frozenset(name for name in CHOSEN_BY_AUTO if automatic and name in reported),
    )


def reported_values(journal: Iterable[Entry]) -> dict[str, Any]:
    """Return what the worker of the newest attempt has reported to be in effect, empty before it has."""
    values: dict[str, Any] = {}
    for entry in journal:
        if entry["kind"] == "attempt_started":
            values = {}
        elif entry["kind"] == "in_effect" and isinstance(entry.get("values"), dict):
            values = entry["values"]
    return values


def newest_change(journal: Iterable[Entry]) -> Entry | None:
    """Return the newest entry after which other settings may be in effect, None without one."""
    found = [entry for entry in journal if entry["kind"] in ("attempt_started", "in_effect")]
    return found[-1] if found else None


def _used(attempt: Attempt, args: Mapping[str, Any], reported: Mapping[str, Any]) -> dict[str, Any]:
    """What an attempt uses, without the spec, which may have been edited since. args.yaml is written anew
    before the worker reports; until then it may be that of the attempt before.
    """
    if reported:
        return {**attempt.train, **attempt.asked, **args, **attempt.ours, **reported}
    return {**attempt.train, **args, **attempt.ours, **attempt.asked}


def _known(values: Mapping[str, Any], schema: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name in schema.fields}
