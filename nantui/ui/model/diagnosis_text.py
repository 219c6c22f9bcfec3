"""Why it happened, from what there is: the verdict of the diagnosis, the autopsies, and what was recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath

from nantui.run.documents import JsonObject
from nantui.run.events import Autopsy, Incident, Warned, of_kind, parse
from nantui.run.incidents import WARNED, as_incident
from nantui.run.status import ACTIVE, FAILED, LOST
from nantui.ui.format import WORDS, clean, number
from nantui.ui.glyphs import Glyphs, meter
from nantui.ui.model.reasons import why_not
from nantui.ui.model.snapshot import RunSnapshot
from nantui.ui.model.timeline import action_text, incident_sentence, incident_text, where
from nantui.ui.styled_text import Line, column, fit, hanging, wrap

MOST_EVIDENCE, SHOWN = 12, 0.01
LOOK_AT_DATA, GO_BACK = "data", "contaminated_checkpoint"
"""Causes, as the diagnosis calls them, whose remedy needs no preset."""
UNNAMED = {LOOK_AT_DATA: "look at the data", GO_BACK: "an older checkpoint"}


def incidents(snapshot: RunSnapshot) -> list[Incident]:
    """Return the run's incidents, newest first: the journal's, then those that only the worker reported."""
    journal, reported = of_kind(snapshot.journal, Incident), of_kind(snapshot.events, Incident)
    known = {(one.incident, one.epoch, one.step) for one in journal}
    fresh = (one for one in reported if (one.incident, one.epoch, one.step) not in known)
    return [*journal, *fresh][::-1]


def warnings(snapshot: RunSnapshot) -> list[Incident]:
    """Return what was warned of, newest first, each once."""
    told = of_kind((*snapshot.journal, *snapshot.events), Warned)
    return list({(one.warning, one.epoch, one.step): as_incident(one) for one in told}.values())[::-1]


def describe(
    snapshot: RunSnapshot, diagnosis: JsonObject | None, problem: str, glyphs: Glyphs, width: int
) -> list[Line]:
    """Return everything as lines; `diagnosis` is None until it has been made."""
    found, lines = incidents(snapshot), _died(snapshot, width)
    told, title = (found, "incidents") if found else (warnings(snapshot), "warnings")
    whole = [line for one in told[:20] for line in _incident(one, glyphs, width)]
    listed = _section(title, whole, f"{len(told)}, newest first")
    if not found and not (diagnosis and diagnosis["causes"]):
        lines += _nothing(diagnosis, problem, bool(told or lines), width)
        return [*lines, *listed, *wrap(what_r_does(snapshot), width, "muted")]
    explained = parse(diagnosis["incident"]) if diagnosis else None
    about = explained if isinstance(explained, Incident) else next(iter(found), None)
    lines += _what(about, snapshot.status.attempt, width)
    if diagnosis:
        lines += _causes(diagnosis, glyphs, width) + _advice(diagnosis, width)
        lines += _reasons(diagnosis, width) + _notes(diagnosis, width) + _unknown(diagnosis, width)
    elif problem:
        lines += [*wrap(clean(problem, 400), width, "warn"), []]
    return [*lines, *_autopsies(snapshot, width), *listed]


def _nothing(diagnosis: JsonObject | None, problem: str, odd: bool, width: int) -> list[Line]:
    """What is said of a run without an incident: it may have died, or been warned of."""
    if problem:
        return [*wrap(clean(problem, 400), width, "warn"), []]
    if diagnosis is None:
        return [[("looking for signs of trouble..", "muted")], []]
    notes = _notes(diagnosis, width)
    if odd:
        text = "No NaN or other incident was recorded, so no cause is named."
        return [*wrap(text, width), [], *notes, *_unknown(diagnosis, width)]
    return notes or [[("no sign of trouble is recorded", "good")], []]


def what_r_does(snapshot: RunSnapshot) -> str:
    """Say in one sentence what a recovery would do now."""
    if reason := why_not("recover", snapshot, False):
        return f"R does nothing now: {reason}."
    stops = "stop it, " if snapshot.status.state in ACTIVE else ""
    return (
        f"R would {stops}go back to the newest clean checkpoint and resume; it shows its plan first and asks."
    )


def _died(snapshot: RunSnapshot, width: int) -> list[Line]:
    """How the newest attempt ended, where nobody asked it to; empty for any other."""
    status = snapshot.status
    if status.state not in (FAILED, LOST):
        return []
    attempt = f"attempt {status.attempt}: " if status.attempt else ""
    place = where(status.epoch, status.step)
    lines = wrap(f"{attempt}{incident_text(status.state)}{f', {place}' if place else ''}", width, "bad")
    lines += wrap(clean(status.text, 600), width) if status.text else []
    return [*lines, *wrap("On the run's screen, o shows its last output and s resumes.", width, "muted"), []]


def _what(incident: Incident | None, newest: int | None, width: int) -> list[Line]:
    """Return in one sentence what is being explained, and in which attempt where that is not the newest."""
    if incident is None:
        return []
    head: Line = [("what happened", "title")]
    if newest is not None and incident.attempt is not None and incident.attempt != newest:
        older = f"   in attempt {incident.attempt}; attempt {newest}, the newest, has had no incident"
        head.append((older, "warn"))
    return [fit(head, width), *wrap(incident_sentence(incident), width, _ink_of(incident)), []]


def _ink_of(incident: Incident) -> str:
    return "warn" if incident.harmless or incident.action == WARNED else "bad"


def _section(title: str, lines: list[Line], note: str = "") -> list[Line]:
    """Return lines below their heading, nothing for none."""
    return [[(title, "title"), (f"   {note}" if note else "", "muted")], *lines, []] if lines else []


def _below(text: str, room: int, width: int, ink: str = "muted", indent: str = "") -> list[Line]:
    """Return a text `room` cells from the left."""
    return hanging([(" " * room, "text")], clean(text, 500), width, ink, indent)


def _causes(diagnosis: JsonObject, glyphs: Glyphs, width: int) -> list[Line]:
    """Return the causes, a line each: what helps must not be pushed off the screen by the evidence."""
    lines: list[Line] = []
    for cause in _likely(diagnosis):
        share: Line = [(f"{cause['probability']:4.0%} ", "strong"), *meter(cause["probability"], 12, glyphs)]
        before = (f"   {cause['prior']:.0%} before any evidence", "faint")
        lines.append(fit([*share, (f"  {cause['title']}", "strong"), before], width))
    return _section("causes", lines, "the likeliest first")


def _reasons(diagnosis: JsonObject, width: int) -> list[Line]:
    """Return the evidence of each cause."""
    lines: list[Line] = []
    for cause in _likely(diagnosis):
        lines += [[(f"  {cause['title']}", "strong")]] if cause["evidence"] else []
        lines += [line for text in cause["evidence"] for line in _below(text, 4, width, indent="  ")]
    return _section("evidence", lines)


def _likely(diagnosis: JsonObject) -> list[JsonObject]:
    return [cause for cause in diagnosis["causes"] if cause["probability"] >= SHOWN]


def _advice(diagnosis: JsonObject, width: int) -> list[Line]:
    keys = {id(one): str(digit) for digit, one in enumerate(with_a_key(diagnosis["advice"]), 1)}
    lines: list[Line] = []
    for one in (one for one in diagnosis["advice"][:9] if one["why"] or id(one) in keys):
        lines.append(fit([(f"  {keys.get(id(one), ' ')} ", "key"), (remedy_name(one), "strong")], width))
        lines += _below(one["why"], 6, width - 2)
        lines += _below(one["cost"], 6, width - 2, "faint") if one["cost"] else []
    return _section("what helps", lines, "press its number to see what would change")


def with_a_key(advice: Sequence[JsonObject]) -> list[JsonObject]:
    """Return the pieces of advice that 1, 2, 3 and so on open: those that a recovery can apply, and those
    about images and labels, which have a screen of their own. The others are for a person.
    """
    return [one for one in advice[:9] if can_be_done(one) or one["cause"] == LOOK_AT_DATA]


def can_be_done(advice: JsonObject) -> bool:
    """Tell whether a recovery can apply a piece of advice: a preset, an older file, images to leave out."""
    return bool(advice["preset"] or advice["cause"] == GO_BACK or advice.get("images"))


def remedy_name(advice: JsonObject) -> str:
    """Return a piece of advice in a few words."""
    images = ", ".join(PurePosixPath(image).name for image in advice.get("images") or ())
    unnamed = f"leave out {images}" if images else UNNAMED.get(advice["cause"], "by hand")
    return clean(advice["preset"] or unnamed, 120)


def _notes(diagnosis: JsonObject, width: int) -> list[Line]:
    """What is no sign of trouble by itself: a judgement on finite numbers, a validation that overflowed."""
    lines = [line for text in diagnosis["notes"] for line in wrap(clean(text, 400), width, "warn")]
    return [*lines, []] if lines else []


def _unknown(diagnosis: JsonObject, width: int) -> list[Line]:
    """Return what was not measured: it speaks for no cause and against none."""
    return _section("not known", [line for text in diagnosis["unknown"] for line in _below(text, 2, width)])


def _autopsies(snapshot: RunSnapshot, width: int) -> list[Line]:
    seen: dict[tuple[str, str], Autopsy] = {}
    for autopsy in of_kind((*snapshot.journal, *snapshot.events), Autopsy):
        seen.setdefault((autopsy.cause, autopsy.text), autopsy)
    lines: list[Line] = []
    for autopsy in seen.values():
        lines += [*wrap(clean(autopsy.text, 600), width, "warn"), *_evidence(autopsy.evidence, width)]
    return _section("autopsy", lines, "done by the worker with the guilty batch still in memory")


def _incident(incident: Incident, glyphs: Glyphs, width: int) -> list[Line]:
    ink = _ink_of(incident)
    head: Line = [
        (f"{glyphs.skip if incident.harmless else glyphs.warn if ink == 'warn' else glyphs.bad} ", ink),
        (incident_text(incident.incident), ink),
        (f"   {where(incident.epoch, incident.step)}", "strong"),
        (f"   attempt {incident.attempt}" if incident.attempt is not None else "", "muted"),
    ]
    lines: list[Line] = [fit([*head, (f"   {action_text(incident.action)}", "muted")], width)]
    lines += _below(incident.text, 2, width, "text") if incident.text else []
    return [*lines, *_evidence(incident.evidence, width), []]


def _evidence(evidence: Mapping[str, object], width: int) -> list[Line]:
    """Return the evidence as name and value, nested values on one line."""
    lines: list[Line] = []
    for name, value in list(evidence.items())[:MOST_EVIDENCE]:
        head: Line = [(column(f"  {clean(_measure(name), 40)}", 24), "faint")]
        lines += hanging(head, clean(_shown(value), 500), width, "muted")
    return lines


def _measure(name: str) -> str:
    return WORDS["measures"].get(name, name.replace("_", " "))


def _shown(value: object) -> str:
    if value is None:
        return "not measured"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{_measure(name)} {_shown(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_shown(item) for item in value[:8]) + (" .." if len(value) > 8 else "")
    return str(value)
