"""Where a run stands in its plan: phases one after another in one run directory, as spec.yaml keeps them.

The plan lies in the spec, so taking a phase back takes the spec back with it; whether a phase is finished
follows from the journal alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nantui.errors import UserError
from nantui.run.attempts import FINISHED
from nantui.run.journal import Entry
from nantui.run.spec import read_spec


@dataclass(frozen=True)
class Phase:
    """One phase: `settings` on top of the run's own."""

    title: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Place:
    """The phase that a run is in: `number` from 1, how many there are, its title."""

    number: int
    of: int
    title: str


def new_plan(
    name: str, phases: Sequence[Phase], train: Mapping[str, Any], ours: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a plan as the spec keeps it; `train` and `ours` are the run's own settings, no phase's."""
    listed = [{"title": phase.title, "settings": dict(phase.settings)} for phase in phases]
    return {"name": name, "phase": 1, "phases": listed, "base": {"train": dict(train), "ours": dict(ours)}}


def with_phase(plan: Mapping[str, Any] | None, phase: Phase, train: Any, ours: Any) -> dict[str, Any]:
    """Return `plan` with one more phase at its end; a run without a plan is its own first phase."""
    known = dict(plan) if plan else new_plan("", [Phase("the training", {})], train, ours)
    return {**known, "phases": [*known["phases"], {"title": phase.title, "settings": dict(phase.settings)}]}


def phases_of(plan: Mapping[str, Any] | None) -> list[Phase]:
    """Return the plan's phases, none without a plan."""
    listed = plan.get("phases") or [] if plan else []
    return [Phase(str(one.get("title") or ""), dict(one.get("settings") or {})) for one in listed]


def place_of(plan: Mapping[str, Any] | None) -> Place | None:
    """Return where the run is in its plan, None without one."""
    phases = phases_of(plan)
    number = int((plan or {}).get("phase") or 1)
    return Place(number, len(phases), phases[number - 1].title) if 0 < number <= len(phases) else None


def place_document(plan: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the same as attempts and the journal record it."""
    place = place_of(plan)
    return asdict(place) if place else None


def next_waits(plan: Mapping[str, Any] | None, entries: Iterable[Entry]) -> bool:
    """Tell whether the plan's current phase is finished and another one is to follow."""
    place = place_of(plan)
    return place is not None and place.number < place.of and standing(entries) == (place.number, True)


def standing(entries: Iterable[Entry]) -> tuple[int, bool]:
    """Return the phase, from 1, that the journal says the run is in, and whether it is finished."""
    return [(1, False), *standings(entries)][-1]


def standings(entries: Iterable[Entry]) -> Iterator[tuple[int, bool]]:
    """Yield the same as it was after each entry.

    What a rollback or a change of phase did to this, its undo gives back.
    """
    now, before = (1, False), dict[str, tuple[int, bool]]()
    for entry in entries:
        kind, id = entry["kind"], str(entry.get("id"))
        if kind == "attempt_started":
            now = (int((entry.get("phase") or {}).get("number") or now[0]), False)
        elif kind == "attempt_ended":
            now = (now[0], entry.get("outcome") == FINISHED)
        elif kind in ("rollback_begun", "phase_begun"):
            before[id] = now
        elif kind == "rollback_done":
            now = (now[0], False)
        elif kind == "phase_done":
            now = (int(entry.get("phase") or now[0] + 1), False)
        elif kind == "undo_done":
            now = before.get(str(entry.get("of")), now)
        yield now


def next_step(entries: Iterable[Entry]) -> str:
    """Return what a remedy in force advises once the run has finished, "" when it advises nothing."""
    advised: dict[str, Any] = {}
    for entry in entries:
        if entry["kind"] == "rollback_begun" and entry.get("afterwards"):
            advised[str(entry["id"])] = entry["afterwards"]
        elif entry["kind"] == "phase_done":
            advised = {}
        elif entry["kind"] in ("rollback_reverted", "undo_done"):
            advised.pop(str(entry.get("of") or entry.get("id")), None)
    if not advised:
        return ""
    phase = list(advised.values())[-1]
    words = " ".join(f"{name}={value}" for name, value in phase["settings"].items())
    return f"next: {phase['title']}, with nantui resume RUN --phase {words}"


def after_the_end(spec: Path, entries: list[Entry]) -> tuple[bool, str]:
    """Return whether another phase follows the attempt that has just ended, and what to say of that, or of
    what a remedy advises now; (False, "") after any other end, and where the spec cannot be read.
    """
    try:
        found = read_spec(spec)
    except UserError:
        return False, ""
    place = place_of(found.plan) if found and next_waits(found.plan, entries) else None
    if place is not None:
        return True, f"phase {place.number} of {place.of} is finished; the next begins"
    return False, next_step(entries) if standing(entries)[1] else ""
