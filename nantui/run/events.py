"""What the journal and the ranks' event files say, as typed events: the one place that knows their keys.

A field of the wrong kind counts as not told, and what this version does not know is kept in `more`, so that
a file of another version, or of somebody who means no good, costs one field and never a traceback.
docs/file-formats.md describes each kind.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import FrozenInstanceError, asdict, dataclass, field, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from nantui.run.documents import Large, fields_of, parse_json, types_of

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**options):
        return lambda decorated: decorated


KINDS: dict[str, type[Event]] = {}
"""The events that this version knows, by the `kind` that a file tells."""
NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Place:
    """The phase of a plan that a run is in: `number` from 1, how many there are, its title."""

    number: int = 1
    of: int = 1
    title: str = ""


@dataclass(frozen=True)
class Difference:
    """A setting that is not in effect as it was asked for."""

    name: str = ""
    asked: Any = None
    in_effect: Any = None


@dataclass(frozen=True)
class Change:
    """A setting that changes, and why; a `kept` one stays as it is, `why` says what it would be."""

    name: str = ""
    now: Any = None
    then: Any = None
    why: str = ""
    kept: bool = False


@dataclass(frozen=True)
class PlanPhase:
    """One phase of a plan: `settings` on top of the run's own."""

    title: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class QuarantineChange:
    """What was put on the quarantine list and taken off it, by path; `undo` takes the change before back."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    undo: bool = False


@dataclass(frozen=True)
class CommandAsked:
    """A command as the journal keeps it."""

    id: str = ""
    kind: str = ""
    by: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Record:
    """A frozen class of keyword fields that costs next to nothing to define, to a type checker a dataclass.

    `dataclass(frozen=True)` compiles six functions for each class: for the kinds of events 45 ms at every
    start of the cockpit, of a command and of a supervisor (Python 3.11), a tenth of the first frame.
    """

    def __init__(self, **given: Any) -> None:
        self.__dict__.update(given)

    def __setattr__(self, name: str, value: object) -> None:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and told(self) == told(other)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({told(self)})"


class Event(Record):
    """What every event has: `t` in s since the epoch (0.0: not told), who wrote it (`by`, in the journal),
    and which attempt and rank it is about.
    """

    kind: str = ""
    t: float = 0.0
    by: str = ""
    attempt: int | None = None
    rank: int | None = None
    text: str = ""
    more: Mapping[str, Any] = NOTHING

    def __init_subclass__(cls, kind: str = "") -> None:
        if kind:
            cls.kind = kind
            KINDS[kind] = cls


class Placed(Event):
    """An event at a place of the training; `epoch` and `step` count from 1."""

    epoch: int | None = None
    step: int | None = None


class Transacted(Event):
    """An event of the transaction `id`."""

    id: str = ""


class Created(Event, kind="created"):
    """`command` is the id of the recovery that made the run beside another one."""

    command: str = ""
    spec: Mapping[str, Any] = NOTHING
    cwd: str = ""


class AttemptStarted(Placed, kind="attempt_started"):
    """`command` is the id of what asked for it, `asked` are the settings that a person changed."""

    command: str = ""
    mode: str = ""
    checkpoint: str | None = None
    asked: Mapping[str, Any] = NOTHING
    phase: Place | None = None


class AttemptEnded(Placed, kind="attempt_ended"):
    """`cause` is the kind of ending (`nantui.run.endings`), `evidence` what it was told by."""

    outcome: str = ""
    cause: str = ""
    evidence: str = ""


class Incident(Placed, kind="incident"):
    """Something that would have spoilt the weights: `incident` is its kind, `action` what was done of it."""

    incident: str = ""
    action: str = ""
    evidence: Mapping[str, Any] = NOTHING
    hosts: tuple[str, ...] = ()

    @property
    def harmless(self) -> bool:
        """Whether its step was skipped, so that it cost one step and ruined nothing."""
        return self.action == "skipped"

    @property
    def ranks(self) -> tuple[int, ...]:
        """The ranks whose batches were bad, none where it is not told."""
        told = self.evidence.get("ranks")
        return tuple(rank for rank in told if isinstance(rank, int)) if isinstance(told, list) else ()


class Warned(Placed, kind="warning"):
    """Something that is said and not acted on; `warning` is its kind."""

    warning: str = ""
    evidence: Mapping[str, Any] = NOTHING


class InEffect(Event, kind="in_effect"):
    """The settings that the worker read back; `unreported` are names asked for of which it knows nothing.

    `own` are the parts of a script of the user's own, None where nobody looked for them.
    """

    values: Mapping[str, Any] = NOTHING
    differences: tuple[Difference, ...] = ()
    unreported: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    guarded: bool | None = None
    own: tuple[str, ...] | None = None


class CommandReceived(Event, kind="command"):
    command: CommandAsked = CommandAsked()


class CommandDone(Transacted, kind="command_done"):
    """How the command `id` ended."""

    command_kind: str = ""
    ok: bool = True


class Stage(Event, kind="stage"):
    """Progress of the command with the id `command`."""

    command: str = ""
    stage: str = ""


class RollbackBegun(Transacted, kind="rollback_begun"):
    """`epoch` is that of the restore point, from 1; `steps` are the operations as planned."""

    restore_point: str | None = None
    epoch: int | None = None
    epochs_lost: int | None = None
    incident_epoch: int | None = None
    mode: str = ""
    presets: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    settings: tuple[Change, ...] = ()
    afterwards: PlanPhase | None = None
    steps: tuple[Mapping[str, Any], ...] = ()

    @property
    def changed(self) -> dict[str, Any]:
        """The settings that it changed, by name."""
        return {row.name: row.then for row in self.settings if not row.kept}


class RollbackStep(Transacted, kind="rollback_step"):
    """Written before the step `index` is done; of a change of phase and of an undo, too."""

    index: int = 0


class RollbackDone(Transacted, kind="rollback_done"):
    pass


class RollbackReverted(Transacted, kind="rollback_reverted"):
    pass


class Kept(Transacted, kind="kept"):
    """What a resume may overwrite was copied before it; `epoch`, from 1, was the last one then."""

    epoch: int | None = None


class UndoBegun(Transacted, kind="undo_begun"):
    """The undo `id` of the transaction `of`."""

    of: str = ""
    steps: tuple[Mapping[str, Any], ...] = ()


class UndoDone(Transacted, kind="undo_done"):
    of: str = ""


class PhaseBegun(Transacted, kind="phase_begun"):
    """`phase` is the one that begins, from 1; what the one before left moves to `aside`, inside the run."""

    phase: int | None = None
    title: str = ""
    aside: str = ""
    steps: tuple[Mapping[str, Any], ...] = ()


class PhaseDone(Transacted, kind="phase_done"):
    phase: int | None = None


class Autopsy(Placed, kind="autopsy"):
    """Why a batch went wrong, as far as the worker could tell; `of_rank` is whose batch was looked at."""

    cause: str = ""
    evidence: Mapping[str, Any] = NOTHING
    of_rank: int | None = None


class SaveFailed(Event, kind="save_failed"):
    path: str = ""


class Saved(Placed, kind="saved"):
    """`by_the_clock` marks restore points of nantui's own, the only ones that are ever `deleted`."""

    paths: tuple[str, ...] = ()
    by_the_clock: bool = False
    deleted: tuple[str, ...] = ()


class Adopted(Event, kind="adopted"):
    pass


class Lost(Event, kind="lost"):
    pass


class Note(Event, kind="note"):
    stacks: Any = None
    quarantine: QuarantineChange | None = None


class Registered(Event, kind="registered"):
    """The process of a rank, which together with boot and pid namespace names it for good."""

    pid: int | None = None
    created: float = 0.0
    ticks: Large = 0
    host: str = ""
    boot_id: str = ""
    pid_namespace: str = ""
    uuid: str = ""


class Activity(Event, kind="phase"):
    """What a rank is doing from now on; `call` and `run` tell where a script's next train() goes."""

    phase: str = ""
    call: int | None = None
    run: str = ""


class EpochEnded(Placed, kind="epoch"):
    """`validated_in` is "fp32" where half precision had overflowed."""

    seconds: float = math.nan
    finite: bool = True
    validated_in: str = ""


class ValidationPrecision(Placed, kind="validation_precision"):
    """From `epoch` on (None: in the final evaluation) validations are done in `precision`."""

    precision: str = ""


class Stopping(Placed, kind="stopping"):
    pass


class Continued(Placed, kind="continued"):
    """The attempt goes on after batch `step` of `epoch`, from the step point in `path`."""

    path: str = ""


class Rewind(Placed):
    """The training, at `epoch` and `step`, goes back in memory to another place for an `incident`, the
    `number`th time in its attempt; `since` is the epoch and step of the first sign.
    """

    to_epoch: int | None = None
    to_step: int | None = None
    since: tuple[int, ...] = ()
    number: int | None = None
    incident: str = ""


class RewindBegun(Rewind, kind="rewind_begun"):
    pass


class RewindDone(Rewind, kind="rewind_done"):
    """It has, in `seconds`; the rates rise again over `eased` steps."""

    seconds: float = math.nan
    eased: int | None = None


TRANSACTION_BEGINS = (RollbackBegun, UndoBegun, PhaseBegun)
TRANSACTION_ENDS = (RollbackDone, RollbackReverted, UndoDone, PhaseDone)
Found = TypeVar("Found", bound=Event)


def parse_lines(lines: Iterable[str]) -> list[Event]:
    """Return the events among `lines` of JSON, in their order; what is torn or no event is left out."""
    return parse_all(documents(lines))


def parse_all(values: Iterable[object]) -> list[Event]:
    """Return the events among JSON values, in their order; what is no event is left out."""
    return [event for event in map(parse, values) if event is not None]


def documents(lines: Iterable[str]) -> Iterator[Any]:
    """Yield the JSON values among `lines`, whatever they are; what is torn is left out."""
    for line in lines:
        try:
            yield parse_json(line)
        except ValueError:
            continue


def relayed(document: Mapping[str, Any], **about: object) -> dict[str, Any]:
    """Return the fields under which the journal keeps what a rank wrote, `about` added: also those that this
    version does not know, and as they were written.
    """
    return {**{name: value for name, value in document.items() if name not in ("kind", "by")}, **about}


def parse(document: object) -> Event | None:
    """Return one event; a kind that this version does not know is a plain Event, what is none is None."""
    if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
        return None
    known: Any = KINDS.get(document["kind"], Event)
    own = types_of(known).keys() - {"more"}
    more = {name: value for name, value in document.items() if name not in own}
    event: Event = known(**{**fields_of(known, document), "more": more})
    return event


def told(event: Record) -> dict[str, Any]:
    """Return all fields of an event by name."""
    kind: Any = type(event)
    return {name: getattr(event, name) for name in types_of(kind)}


def document_of(event: Event) -> dict[str, Any]:
    """Return the object that `parse` makes the same event of; what has its default is left out."""
    found = {
        name: _plain(value)
        for name, value in told(event).items()
        if name != "more" and value != getattr(type(event), name)
    }
    return {"t": event.t, "kind": event.kind, **found, **event.more}


def of_kind(events: Iterable[Event], *kinds: type[Found]) -> list[Found]:
    """Return the events of these kinds, in their order."""
    return [event for event in events if isinstance(event, kinds)]


def newest(events: Iterable[Event], *kinds: type[Found]) -> Found | None:
    """Return the last event of one of these kinds, None without one."""
    return next(reversed(of_kind(events, *kinds)), None)


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value
