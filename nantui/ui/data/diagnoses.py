"""Why it happened, from what there is: the verdict of the diagnosis room, the autopsies, and what was recorded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nantui.ui.data.sentences import action_text, incident_text, where
from nantui.ui.data.snapshot import RunSnapshot
from nantui.ui.format import clean, number
from nantui.ui.glyphs import Glyphs, meter
from nantui.ui.ink import Line, column, fit, wrap

MOST_EVIDENCE = 12


def incidents(snapshot: RunSnapshot) -> list[dict[str, Any]]:
    """Return the incidents of the run, newest first; those of the journal, then those only the worker reported."""
    journal = [entry for entry in snapshot.journal if entry["kind"] == "incident"]
    known = {(entry.get("incident"), entry.get("epoch"), entry.get("step")) for entry in journal}
    fresh = [
        entry
        for entry in snapshot.events
        if entry["kind"] == "incident"
        and (entry.get("incident"), entry.get("epoch"), entry.get("step")) not in known
    ]
    return list(reversed([*journal, *fresh]))


def describe(
    snapshot: RunSnapshot, diagnosis: Mapping[str, Any] | None, problem: str, glyphs: Glyphs, width: int
) -> list[Line]:
    """Return everything as lines."""
    found = incidents(snapshot)
    if not found and not diagnosis:
        return [
            [("nothing has gone wrong in this run", "good")], [],
            *wrap("When something does, this page tells what it was, which batch and images it came from, how likely each "
                  "cause is and what helps.", width, "muted"),
        ]  # fmt: skip
    lines: list[Line] = []
    if diagnosis:
        lines += _causes(diagnosis, glyphs, width) + _advice(diagnosis, glyphs, width)
    elif problem:
        lines += [*wrap(clean(problem, 400), width, "warn"), []]
    lines += _autopsies(snapshot, width)
    lines += [[("incidents", "title"), (f"   {len(found)}, newest first", "muted")]]
    for entry in found[:20]:
        lines += _incident(entry, glyphs, width)
    return lines


def _causes(diagnosis: Mapping[str, Any], glyphs: Glyphs, width: int) -> list[Line]:
    causes = diagnosis.get("causes") or []
    lines: list[Line] = [[("causes", "title"), ("   by evidence; what is likeliest comes first", "muted")]]
    for cause in causes:
        share = float(cause.get("probability") or 0.0)
        filled, empty = meter(share, 12, glyphs)
        name = clean(str(cause.get("cause", "")).replace("_", " "), 60)
        lines.append(
            fit(
                [(f"{share:4.0%} ", "strong"), (filled, "accent"), (empty, "faint"), (f"  {name}", "strong")],
                width,
            )
        )
        for text in cause.get("evidence") or []:
            lines += [
                [("                   ", "text"), *line]
                for line in wrap(clean(text, 400), max(10, width - 20), "muted")
            ]
    return [*lines, []]


def _advice(diagnosis: Mapping[str, Any], glyphs: Glyphs, width: int) -> list[Line]:
    advice = diagnosis.get("advice") or []
    if not advice:
        return []
    lines: list[Line] = [[("what helps", "title"), ("   the digit opens the recovery with it", "muted")]]
    for index, one in enumerate(advice[:9], 1):
        line: Line = [(f"  {index} ", "key"), (column(clean(one.get("preset", ""), 30), 18), "strong")]
        reason = wrap(clean(one.get("why", ""), 300), max(10, width - 24), "muted")
        lines += [[*line, *reason[0]], *([(" " * 22, "text"), *more] for more in reason[1:])]
    return [*lines, []]


def _autopsies(snapshot: RunSnapshot, width: int) -> list[Line]:
    seen: dict[tuple[Any, Any], dict[str, Any]] = {}
    for entry in (*snapshot.journal, *snapshot.events):
        if entry["kind"] == "autopsy":
            seen.setdefault((entry.get("cause"), entry.get("text")), entry)
    if not seen:
        return []
    lines: list[Line] = [
        [("autopsy", "title"), ("   done by the worker with the guilty batch still in memory", "muted")]
    ]
    for entry in seen.values():
        lines += wrap(clean(entry.get("text", ""), 600), width, "warn")
        lines += _evidence(entry.get("evidence"), width)
    return [*lines, []]


def _incident(entry: Mapping[str, Any], glyphs: Glyphs, width: int) -> list[Line]:
    skipped = entry.get("action") == "skipped"
    sign = (glyphs.skip, "warn") if skipped else (glyphs.bad, "bad")
    head: Line = [
        (f"{sign[0]} ", sign[1]),
        (incident_text(dict(entry)), sign[1]),
        (f"   {where(dict(entry))}", "strong"),
    ]
    lines: list[Line] = [fit([*head, (f"   {action_text(dict(entry))}", "muted")], width)]
    if entry.get("text"):
        lines += [[("  ", "text"), *line] for line in wrap(clean(entry["text"], 500), width - 2)]
    return [*lines, *_evidence(entry.get("evidence"), width), []]


def _evidence(evidence: Any, width: int) -> list[Line]:
    """Return the evidence as name and value, nested values on one line."""
    if not isinstance(evidence, Mapping):
        return []
    lines: list[Line] = []
    for name, value in list(evidence.items())[:MOST_EVIDENCE]:
        words = wrap(clean(_shown(value), 500), max(10, width - 20), "muted")
        lines += [
            [(column(f"  {clean(name, 40)}" if first else "", 20), "faint"), *line]
            for first, line in _first(words)
        ]
    return lines


def _first(lines: list[Line]) -> Iterable[tuple[bool, Line]]:
    return ((index == 0, line) for index, line in enumerate(lines))


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_shown(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_shown(item) for item in value[:8]) + (" .." if len(value) > 8 else "")
    return str(value)
