"""What is known of a run's last trouble, read from its files: nothing here is a conclusion.

What is not there stays None or empty, so that no evidence is made of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from nantui.recovery.trouble import overflows
from nantui.run.attempts import Attempt
from nantui.run.events import Autopsy, Event, Incident, InEffect, Warned, newest, of_kind
from nantui.run.incidents import as_incident, is_suspicion
from nantui.run.record import AttemptRecord, RunRecord, in_full
from nantui.run.results import EpochRow
from nantui.run.telemetry import Step, StepFollower

WINDOW = 400
"""Steps before the trouble that are looked at."""
SAME_TROUBLE = 50
"""Incidents at most this many steps apart belong to one trouble."""


@dataclass(frozen=True)
class TroubleFacts:
    """The last trouble of a run.

    `incidents` are those of the attempt, oldest first, suspicions among them where nothing worse came after
    them; `trouble` those that belong to the last trouble, and `first` is the first of them. `autopsy` is what
    was found there. `before` and `after` are the steps around `first`; `settings` are in effect where the
    worker said so, else as asked. `steps_in` counts the steps of the attempt up to `first`. `watched` is
    False where nantui did not look.
    """

    record: RunRecord
    watched: bool = False
    attempt: Attempt | None = None
    incidents: Sequence[Incident] = ()
    trouble: Sequence[Incident] = ()
    autopsy: Autopsy | None = None
    before: Sequence[Step] = ()
    after: Sequence[Step] = ()
    steps_in: int | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    in_effect: bool = False
    earlier_settings: Mapping[str, object] = field(default_factory=dict)
    results: Sequence[EpochRow] = ()

    @property
    def first(self) -> Incident | None:
        """The incident that the trouble began with."""
        return self.trouble[0] if self.trouble else None

    @property
    def kind(self) -> str:
        """The kind of the first incident, empty where there is none."""
        return self.first.incident if self.first else ""

    @property
    def broke_off(self) -> int | None:
        """The epoch in which a run that nobody watched ended before its last, None where it did not.

        Ultralytics (8.4.190, `_handle_nan_recovery`) gives up on a NaN before it writes the epoch's row: of
        such an end results.csv shows nothing.
        """
        epochs = self.settings.get("epochs")
        done = max((row.epoch for row in self.results), default=0)
        early = not self.watched and isinstance(epochs, int) and 0 < done < epochs
        return done + 1 if early else None

    @property
    def bad_row(self) -> EpochRow | None:
        """The first epoch in results.csv that is not finite and whose network is not known to be sound."""
        sound = overflows(self.record)
        return next((row for row in self.results if not row.finite and row.epoch not in sound), None)

    @property
    def resumed(self) -> bool:
        """Whether the attempt went on from a checkpoint."""
        return self.attempt is not None and self.attempt.mode == "resume"


def gather_facts(record: RunRecord) -> TroubleFacts:
    """Return what is known of the last trouble of the run."""
    spec = record.spec
    asked = {**(spec.train if spec else {}), **(spec.ours if spec else {}), **record.args}
    events = {attempt.number: _events(record, attempt) for attempt in record.attempts}
    facts = TroubleFacts(record, bool(events), settings=in_full(record, asked), results=record.epochs)
    bad = [number for number, its in events.items() if of_kind(its, Incident)]
    bad = bad or [number for number, its in events.items() if any(map(is_suspicion, its))]
    if not bad:
        return facts
    attempt, its_events = record.attempt(bad[-1]), _with_suspicions(events[bad[-1]])
    incidents, first = of_kind(its_events, Incident), attempt.steps.first
    trouble = _last_trouble(incidents, first.steps if first else SAME_TROUBLE)
    before, after, steps_in = _around(attempt, trouble[0])
    in_effect, its = _in_effect(its_events), attempt.asked
    own = {**its.train, **its.ours} if its else {}
    return replace(
        facts, attempt=its, incidents=incidents, trouble=trouble, autopsy=_autopsy(its_events, trouble[0]),
        before=before, after=after, steps_in=steps_in,
        settings=in_full(record, {**asked, **own, **in_effect}), in_effect=bool(in_effect),
        earlier_settings=_in_effect(one for other in events if other < bad[-1] for one in events[other]),
    )  # fmt: skip


def _events(record: RunRecord, attempt: AttemptRecord) -> list[Event]:
    """Return what the ranks reported, and the journal's incidents where their own record is gone."""
    own = attempt.all_events
    if any(isinstance(event, Incident) or is_suspicion(event) for event in own):
        return own
    its = [event for event in record.journal if event.attempt == attempt.number]
    return own + [event for event in its if isinstance(event, Incident) or is_suspicion(event)]


def _with_suspicions(events: list[Event]) -> list[Event]:
    """Return the events with suspicions as incidents, those after the last real incident left as they are.

    One that nothing came of must not hide what happened before it.
    """
    last = max((at for at, event in enumerate(events) if isinstance(event, Incident)), default=len(events))
    return [
        as_incident(event) if at < last and isinstance(event, Warned) and is_suspicion(event) else event
        for at, event in enumerate(events)
    ]


def _in_effect(events: Iterable[Event]) -> Mapping[str, object]:
    reported = newest(events, InEffect)
    return reported.values if reported else {}


def _autopsy(events: Sequence[Event], first: Incident) -> Autopsy | None:
    """Return the autopsy of the incident `first`: the last one before it was reported.

    The worker examines a batch before it reports it, and only the first few of an attempt; without one since
    the incident before, the next one (at the end of the attempt) has to do.
    """
    place = next(index for index, event in enumerate(events) if event is first)
    for event in reversed(events[:place]):
        if isinstance(event, Autopsy):
            return event
        if isinstance(event, Incident):
            break
    return next(iter(of_kind(events[place:], Autopsy)), None)


def _last_trouble(incidents: Sequence[Incident], steps_of_epoch: int) -> list[Incident]:
    places = [(one.epoch or 0) * steps_of_epoch + (one.step or 0) for one in incidents]
    begin = len(incidents) - 1
    while begin and places[begin] - places[begin - 1] <= SAME_TROUBLE:
        begin -= 1
    return list(incidents[begin:])


def _around(attempt: AttemptRecord, first: Incident) -> tuple[list[Step], list[Step], int | None]:
    """Return the steps before the incident, those from it on, and how many there were before it."""
    here = (first.epoch or 0, first.step or 0)
    before: deque[Step] = deque(maxlen=WINDOW)
    after: list[Step] = []
    count = 0
    follower = StepFollower(attempt.layout.steps(attempt.number))
    more = True
    while more and len(after) < WINDOW:
        steps, more = follower.read()
        for step in steps:
            if (step.epoch, step.step) < here:
                before.append(step)
                count += 1
            elif len(after) < WINDOW:
                after.append(step)
    return list(before), after, count if before or after else None
