"""What the journal and the ranks' event files say, as typed events: the one place that knows their keys.

A field of the wrong kind counts as not told, and what this version does not know is kept in `more`, so that
a file of another version, or of somebody who means no good, costs one field and never a traceback.
docs/file-formats.md describes each kind. Over 500 lines, and one file all the same: who looks for a kind, or
adds one, finds all of them here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeVar

from nantui.run.documents import Large, fields_of, parse_json, readers_of
from nantui.run.frozen_record import FrozenRecord, frozen_record


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
class SettingChange:
    """What a recovery made of one setting, and why; a `kept` one stayed as it was."""

    name: str = ""
    now: Any = None
    then: Any = None
    why: str = ""
    kept: bool = False


@dataclass(frozen=True)
class PhaseAdvice:
    """The phase that a remedy advises once the run has finished."""

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


@frozen_record
class Event(FrozenRecord):
    """What every event has: `t` in s since the epoch (0.0: not told), who wrote it (`by`, in the journal),
    and which attempt and rank it is about.
    """

    KIND: ClassVar[str] = ""

    kind: str
    t: float = 0.0
    by: str = ""
    attempt: int | None = None
    rank: int | None = None
    text: str = ""
    more: Mapping[str, Any] = field(default_factory=dict, repr=False)


@frozen_record
class Placed(Event):
    """An event at a place of the training; `epoch` and `step` count from 1."""

    epoch: int | None = None
    step: int | None = None


@frozen_record
class Transacted(Event):
    """An event of the transaction `id`."""

    id: str = ""


@frozen_record
class Created(Event):
    KIND = "created"
    spec: Mapping[str, Any] = field(default_factory=dict)
    cwd: str = ""


@frozen_record
class AttemptStarted(Placed):
    """`command` is the id of what asked for it, `asked` are the settings that a person changed."""

    KIND = "attempt_started"
    command: str = ""
    mode: str = ""
    checkpoint: str | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)
    phase: Place | None = None


@frozen_record
class AttemptEnded(Placed):
    """`cause` is the kind of ending (`nantui.run.endings`), `evidence` what it was told by."""

    KIND = "attempt_ended"
    outcome: str = ""
    cause: str = ""
    evidence: str = ""


@frozen_record
class Incident(Placed):
    """Something that would have spoilt the weights: `incident` is its kind, `action` what was done of it."""

    KIND = "incident"
    incident: str = ""
    action: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
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


@frozen_record
class Warned(Placed):
    """Something that is said and not acted on; `warning` is its kind."""

    KIND = "warning"
    warning: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)


@frozen_record
class InEffect(Event):
    """The settings that the worker read back; `unreported` are names asked for of which it knows nothing.

    `own` are the parts of a script of the user's own, None where nobody looked for them.
    """

    KIND = "in_effect"
    values: Mapping[str, Any] = field(default_factory=dict)
    differences: tuple[Difference, ...] = ()
    unreported: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    guarded: bool | None = None
    own: tuple[str, ...] | None = None


@frozen_record
class CommandReceived(Event):
    KIND = "command"
    command: CommandAsked = CommandAsked()


@frozen_record
class CommandDone(Transacted):
    """How the command `id` ended."""

    KIND = "command_done"
    command_kind: str = ""
    ok: bool = True


@frozen_record
class Stage(Event):
    """Progress of the command with the id `command`."""

    KIND = "stage"
    command: str = ""
    stage: str = ""


@frozen_record
class RollbackBegun(Transacted):
    """`epoch` is that of the restore point, from 1; `steps` are the operations as planned."""

    KIND = "rollback_begun"
    restore_point: str | None = None
    epoch: int | None = None
    epochs_lost: int | None = None
    incident_epoch: int | None = None
    mode: str = ""
    presets: tuple[str, ...] = ()
    images: tuple[str, ...] = ()
    settings: tuple[SettingChange, ...] = ()
    afterwards: PhaseAdvice | None = None
    steps: tuple[Mapping[str, Any], ...] = ()

    @property
    def changed(self) -> dict[str, Any]:
        """The settings that it changed, by name."""
        return {row.name: row.then for row in self.settings if not row.kept}


@frozen_record
class RollbackStep(Transacted):
    """Written before the step `index` is done; of a change of phase and of an undo, too."""

    KIND = "rollback_step"
    index: int = 0


@frozen_record
class RollbackDone(Transacted):
    KIND = "rollback_done"


@frozen_record
class RollbackReverted(Transacted):
    KIND = "rollback_reverted"


@frozen_record
class Kept(Transacted):
    """What a resume may overwrite was copied before it; `epoch`, from 1, was the last one then."""

    KIND = "kept"
    epoch: int | None = None


@frozen_record
class UndoBegun(Transacted):
    """The undo `id` of the transaction `of`."""

    KIND = "undo_begun"
    of: str = ""
    steps: tuple[Mapping[str, Any], ...] = ()


@frozen_record
class UndoDone(Transacted):
    KIND = "undo_done"
    of: str = ""


@frozen_record
class PhaseBegun(Transacted):
    """`phase` is the one that begins, from 1; what the one before left moves to `aside`, inside the run."""

    KIND = "phase_begun"
    phase: int | None = None
    title: str = ""
    aside: str = ""
    steps: tuple[Mapping[str, Any], ...] = ()


@frozen_record
class PhaseDone(Transacted):
    KIND = "phase_done"
    phase: int | None = None


@frozen_record
class Autopsy(Placed):
    """Why a batch went wrong, as far as the worker could tell; `of_rank` is whose batch was looked at."""

    KIND = "autopsy"
    cause: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    of_rank: int | None = None


@frozen_record
class SaveFailed(Event):
    KIND = "save_failed"
    path: str = ""


@frozen_record
class Saved(Placed):
    """`by_the_clock` marks restore points of nantui's own, the only ones that are ever `deleted`.

    `beyond_half` names tensors that the file, which is in fp16, cannot hold as they were validated.
    """

    KIND = "saved"
    paths: tuple[str, ...] = ()
    by_the_clock: bool = False
    deleted: tuple[str, ...] = ()
    beyond_half: tuple[str, ...] = ()


@frozen_record
class Adopted(Event):
    KIND = "adopted"


@frozen_record
class Lost(Event):
    KIND = "lost"


@frozen_record
class Note(Event):
    KIND = "note"
    stacks: Any = None
    quarantine: QuarantineChange | None = None


@frozen_record
class Registered(Event):
    """The process of a rank, which together with boot and pid namespace names it for good."""

    KIND = "registered"
    pid: int | None = None
    created: float = 0.0
    ticks: Large = 0
    host: str = ""
    boot_id: str = ""
    pid_namespace: str = ""
    uuid: str = ""


@frozen_record
class Activity(Event):
    """What a rank is doing from now on; `call` and `run` tell where a script's next train() goes."""

    KIND = "phase"
    phase: str = ""
    call: int | None = None
    run: str = ""


@frozen_record
class EpochEnded(Placed):
    """`validated_in` is "fp32" where half precision had overflowed."""

    KIND = "epoch"
    seconds: float = math.nan
    finite: bool = True
    validated_in: str = ""


@frozen_record
class ValidationPrecision(Placed):
    """From `epoch` on (None: in the final evaluation) validations are done in `precision`."""

    KIND = "validation_precision"
    precision: str = ""


@frozen_record
class Stopping(Placed):
    KIND = "stopping"


@frozen_record
class Continued(Placed):
    """The attempt goes on after batch `step` of `epoch`, from the step point in `path`."""

    KIND = "continued"
    path: str = ""


@frozen_record
class Rewind(Placed):
    """The training, at `epoch` and `step`, goes back in memory to another place for an `incident`, the
    `number`th time in its attempt; `since` is the epoch and step of the first sign.
    """

    to_epoch: int | None = None
    to_step: int | None = None
    since: tuple[int, ...] = ()
    number: int | None = None
    incident: str = ""


@frozen_record
class RewindBegun(Rewind):
    KIND = "rewind_begun"


@frozen_record
class RewindDone(Rewind):
    """It has, in `seconds`; the rates rise again over `eased` steps."""

    KIND = "rewind_done"
    seconds: float = math.nan
    eased: int | None = None


KINDS: Mapping[str, type[Event]] = {
    known.KIND: known
    for known in (
        Created, AttemptStarted, AttemptEnded, Incident, Warned, InEffect, CommandReceived, CommandDone,
        Stage, RollbackBegun, RollbackStep, RollbackDone, RollbackReverted, Kept, UndoBegun, UndoDone,
        PhaseBegun, PhaseDone, Autopsy, SaveFailed, Saved, Adopted, Lost, Note, Registered, Activity,
        EpochEnded, ValidationPrecision, Stopping, Continued, RewindBegun, RewindDone,
    )
}  # fmt: skip
TRANSACTION_BEGINS = (RollbackBegun, UndoBegun, PhaseBegun)
TRANSACTION_ENDS = (RollbackDone, RollbackReverted, UndoDone, PhaseDone)
Found = TypeVar("Found", bound=Event)


def parse_lines(lines: Iterable[str]) -> list[Event]:
    """Return the events among `lines` of JSON, in their order; what is torn or no event is left out."""
    return parse_all(documents(lines))


def parse_all(told: Iterable[object]) -> list[Event]:
    """Return the events among JSON values, in their order; what is no event is left out."""
    return [event for event in map(parse, told) if event is not None]


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
    own = readers_of(known).keys() - {"more"}
    more = {name: value for name, value in document.items() if name not in own}
    event: Event = known(**{**fields_of(known, document), "kind": document["kind"], "more": more})
    return event


def document_of(event: Event) -> dict[str, Any]:
    """Return the object that `parse` makes the same event of; what has its default is left out."""
    told_nothing = type(event)(kind=event.kind)
    document: dict[str, Any] = {"t": event.t, "kind": event.kind}
    for name in (one.name for one in fields(event) if one.name != "more"):
        if (value := getattr(event, name)) != getattr(told_nothing, name):
            document[name] = _plain(value)
    return {**document, **event.more}


def of_kind(events: Iterable[Event], *kinds: type[Found]) -> list[Found]:
    """Return the events of these kinds, in their order."""
    return [event for event in events if isinstance(event, kinds)]


def newest(events: Iterable[Event], *kinds: type[Found]) -> Found | None:
    """Return the last event of one of these kinds, None without one."""
    return next(reversed(of_kind(events, *kinds)), None)


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    if isinstance(value, (Place, Difference, SettingChange, PhaseAdvice, QuarantineChange, CommandAsked)):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value)}
    return dict(value) if isinstance(value, Mapping) else value
