"""A run's plan: phases one after another in one run directory, where the run stands in it, and its phases
shown as one training.

The plan lies in the spec, so taking a phase back takes the spec back with it; whether a phase is finished
follows from the journal alone. A finished phase lies in nantui/phases/NN with a results.csv of its own, in
which epochs count from 1. Whoever shows the run puts them behind each other here, so that 150 + 50 epochs
are one curve and not two.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from nantui.errors import UserError
from nantui.run import events as kinds
from nantui.run.attempts import FINISHED as FINISHED_OUTCOME
from nantui.run.documents import JsonObject, Settings
from nantui.run.events import Event, PlanPhase, of_kind
from nantui.run.journal import in_force
from nantui.run.layout import RunLayout
from nantui.run.results import EpochRow, current, median_epoch_s, read_results
from nantui.run.spec import Spec, read_spec

FINISHED, CURRENT, WAITING = "finished", "current", "waiting"
NO_TIME = frozenset({
    "epochs", "patience", "save_period", "seed", "nbs", "lr0", "lrf", "cos_lr", "momentum", "weight_decay",
    "warmup_epochs", "warmup_momentum", "warmup_bias_lr", "box", "cls", "dfl", "pose", "kobj",
    "hsv_h", "hsv_s", "hsv_v", "degrees", "translate", "scale", "shear", "perspective", "flipud", "fliplr",
    "close_mosaic", "model", "pretrained", "name", "project", "save_dir", "exist_ok", "resume",
})  # fmt: skip
"""Settings that do not change how long an epoch takes. Any other that differs makes a time unknown: twice the
image side was 2.5 times the step on one H200 and not four times, so the area is no rule."""


def new_plan(
    name: str, phases: Sequence[PlanPhase], train: Mapping[str, object], ours: Mapping[str, object]
) -> JsonObject:
    """Return a plan as the spec keeps it; `train` and `ours` are the run's own settings, no phase's."""
    base = {"train": dict(train), "ours": dict(ours)}
    return {"name": name, "phase": 1, "phases": [*map(asdict, phases)], "base": base}


def with_phase(plan: JsonObject | None, phase: PlanPhase, train: Settings, ours: Settings) -> JsonObject:
    """Return `plan` with one more phase at its end; a run without a plan is its own first phase."""
    known = dict(plan) if plan else new_plan("", [PlanPhase("the training", {})], train, ours)
    return {**known, "phases": [*known["phases"], asdict(phase)]}


def phases_of(plan: JsonObject | None) -> list[PlanPhase]:
    """Return the plan's phases, none without a plan."""
    listed = plan.get("phases") or [] if plan else []
    return [PlanPhase(str(one.get("title") or ""), dict(one.get("settings") or {})) for one in listed]


def place_of(plan: JsonObject | None) -> kinds.Place | None:
    """Return where the run is in its plan, None without one."""
    phases = phases_of(plan)
    number = int((plan or {}).get("phase") or 1)
    return kinds.Place(number, len(phases), phases[number - 1].title) if 0 < number <= len(phases) else None


def next_waits(plan: JsonObject | None, events: Iterable[Event]) -> bool:
    """Tell whether the plan's current phase is finished and another one is to follow."""
    place = place_of(plan)
    return place is not None and place.number < place.of and standing(events) == (place.number, True)


def standing(events: Iterable[Event]) -> tuple[int, bool]:
    """Return the phase, from 1, that the journal says the run is in, and whether it is finished."""
    return [(1, False), *standings(events)][-1]


def standings(events: Iterable[Event]) -> Iterator[tuple[int, bool]]:
    """Yield the same as it was after each event.

    What a rollback, a change of phase or a resume did to this, its undo gives back.
    """
    now, before = (1, False), dict[str, tuple[int, bool]]()
    for event in events:
        if isinstance(event, kinds.AttemptStarted):
            now = (event.phase.number if event.phase else now[0], False)
        elif isinstance(event, kinds.AttemptEnded):
            now = (now[0], event.outcome == FINISHED_OUTCOME)
        elif isinstance(event, (kinds.RollbackBegun, kinds.PhaseBegun, kinds.Kept)):
            before[event.id] = now
        elif isinstance(event, kinds.RollbackDone):
            now = (now[0], False)
        elif isinstance(event, kinds.PhaseDone):
            now = (event.phase or now[0] + 1, False)
        elif isinstance(event, kinds.UndoDone):
            now = before.get(event.of, now)
        yield now


def next_step(events: Sequence[Event]) -> str:
    """Return what a remedy in force advises once the run has finished, "" when it advises nothing."""
    phase: PlanPhase | None = None
    for begun in in_force(events):
        if isinstance(begun, kinds.PhaseBegun):
            phase = None
        elif isinstance(begun, kinds.RollbackBegun):
            phase = begun.afterwards or phase
    if phase is None:
        return ""
    words = " ".join(f"{name}={value}" for name, value in phase.settings.items())
    return f"next: {phase.title}, with nantui resume RUN --phase {words}"


def after_the_end(spec: Path, events: Sequence[Event]) -> tuple[bool, str]:
    """Return whether another phase follows the attempt that has just ended, and what to say of that, or of
    what a remedy advises now; (False, "") after any other end, and where the spec cannot be read.
    """
    try:
        found = read_spec(spec)
    except UserError:
        return False, ""
    place = place_of(found.plan) if found and next_waits(found.plan, events) else None
    if place is not None:
        return True, f"phase {place.number} of {place.of} is finished; the next begins"
    return False, next_step(events) if standing(events)[1] else ""


@dataclass(frozen=True)
class Part:
    """One phase. `begins` is the number of epochs before it (None: not known), so its epoch E is `begins` + E
    of the run; `epochs` are those it trained, or is asked to train; `epoch_s` is what one takes, in s, NaN
    where nothing alike was timed. `rows` are in file order, superseded ones marked; a waiting phase has none.
    """

    number: int
    title: str
    state: str
    begins: int | None
    epochs: int | None
    epoch_s: float
    rows: tuple[EpochRow, ...] = ()
    results: Path | None = None


def read_parts(
    layout: RunLayout, spec: Spec, events: Sequence[Event], epochs: int | None = None
) -> list[Part]:
    """Return the phases of the run's plan, none without a plan; `events` is its journal.

    `epochs` are those of the current phase where the caller knows them better than the spec (args.yaml).
    """
    place, phases = place_of(spec.plan), phases_of(spec.plan)
    if place is None:
        return []
    folders = finished_folders(layout, events)
    parts: list[Part] = []
    begins: int | None = 0
    for number, phase in enumerate(phases, 1):
        state = FINISHED if number < place.number else CURRENT if number == place.number else WAITING
        results = folders.get(number) if state == FINISHED else layout.results_csv
        rows = tuple(read_results(results)) if results and state != WAITING else ()
        asked = settings_of(spec, number).get("epochs")
        if state == CURRENT:
            asked = epochs or asked
        took = asked if isinstance(asked, int) else None
        if state == FINISHED:  # early stopping may have ended it
            took = max((row.epoch for row in current(rows)), default=None)
        epoch_s = median_epoch_s(rows, from_the_start=True)
        kept = results if rows else None
        parts.append(Part(number, phase.title, state, begins, took, epoch_s, rows, kept))
        begins = None if begins is None or took is None else begins + took
    return [_with_time(part, parts, spec) for part in parts]


def finished_folders(layout: RunLayout, events: Sequence[Event]) -> dict[int, Path]:
    """Return {phase: its results.csv} of the phases that were put aside, what was undone left out."""
    begun = [event for event in of_kind(in_force(events), kinds.PhaseBegun) if event.phase is not None]
    return {(event.phase or 0) - 1: layout.run / event.aside / "results.csv" for event in begun}


def settings_of(spec: Spec, number: int) -> JsonObject:
    """Return the arguments that a phase has or will have, as far as they were named: the run's own, what
    recoveries and edits have decided by now, the phase's own.
    """
    plan, place = spec.plan or {}, place_of(spec.plan)
    phases = phases_of(plan)
    base = dict((plan.get("base") or {}).get("train") or {})
    own = phases[number - 1].settings
    if place is None or number < place.number:
        return {**base, **own}
    if number == place.number:
        return dict(spec.train)
    now = phases[place.number - 1].settings
    decided = {name: value for name, value in spec.train.items() if name not in now or now[name] != value}
    return {**base, **decided, **own}


def _with_time(part: Part, parts: Sequence[Part], spec: Spec) -> Part:
    """Return the phase with the time of one that trains alike, where it has none of its own yet."""
    if math.isfinite(part.epoch_s):
        return part
    alike = (
        other.epoch_s
        for other in reversed(parts)
        if math.isfinite(other.epoch_s) and _costs(spec, other.number) == _costs(spec, part.number)
    )
    return replace(part, epoch_s=next(alike, math.nan))


def _costs(spec: Spec, number: int) -> JsonObject:
    return {name: value for name, value in settings_of(spec, number).items() if name not in NO_TIME}


def epochs_in_all(parts: Sequence[Part]) -> int | None:
    """Return the epochs of all phases together, None where one does not say how many it has."""
    known = [part.epochs for part in parts if part.epochs is not None]
    return sum(known) if len(known) == len(parts) else None


def waiting_seconds(parts: Iterable[Part]) -> tuple[float, str]:
    """Return the seconds that the phases after the current one will take, and which of them are left out of
    that because nothing alike was timed yet, "" for none.
    """
    waiting = [part for part in parts if part.state == WAITING]
    known = [part for part in waiting if part.epochs is not None and math.isfinite(part.epoch_s)]
    unknown = [part for part in waiting if part not in known]
    names = ", ".join(f"phase {part.number} ({part.epochs or '?'} epochs)" for part in unknown)
    return math.fsum((part.epochs or 0) * part.epoch_s for part in known), names
