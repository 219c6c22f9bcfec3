"""What is known of a run's last trouble, read from its files: nothing here is a conclusion.

What is not there stays None or empty, so that no evidence is made of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from nantui.run.attempts import Attempt, read_attempt, read_events
from nantui.run.journal import Entry, Journal
from nantui.run.layout import RunLayout
from nantui.run.results import EpochRow, current, read_results
from nantui.run.spec import read_args, read_spec
from nantui.run.suspicions import as_incident, is_suspicion
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
    worker said so, else as asked. `steps_in` counts the steps of the attempt up to `first`. `attempts` is how
    many there are; `watched` is False where nantui did not look.
    """

    layout: RunLayout
    watched: bool = False
    attempt: Attempt | None = None
    incidents: Sequence[Entry] = ()
    trouble: Sequence[Entry] = ()
    autopsy: Entry | None = None
    before: Sequence[Step] = ()
    after: Sequence[Step] = ()
    steps_in: int | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    in_effect: bool = False
    earlier_settings: dict[str, Any] = field(default_factory=dict)
    results: Sequence[EpochRow] = ()

    @property
    def first(self) -> Entry | None:
        """Return the incident that the trouble began with."""
        return self.trouble[0] if self.trouble else None

    @property
    def kind(self) -> str:
        """Return the kind of the first incident, empty where there is none."""
        return str(self.first.get("incident", "")) if self.first else ""

    @property
    def broke_off(self) -> int | None:
        """Return the epoch in which a run that nobody watched ended before its last, None where it did not.

        Ultralytics (8.4.190, `_handle_nan_recovery`) gives up on a NaN before it writes the epoch's row: of
        such an end results.csv shows nothing.
        """
        epochs = self.settings.get("epochs")
        done = max((row.epoch for row in self.results), default=0)
        early = not self.watched and isinstance(epochs, int) and 0 < done < epochs
        return done + 1 if early else None

    @property
    def resumed(self) -> bool:
        """Tell whether the attempt went on from a checkpoint."""
        return self.attempt is not None and self.attempt.mode == "resume"


def gather_facts(layout: RunLayout) -> TroubleFacts:
    """Return what is known of the last trouble of the run."""
    results = current(read_results(layout.results_csv))
    spec = read_spec(layout.spec)
    asked = {**(spec.train if spec else {}), **(spec.ours if spec else {}), **read_args(layout.args_yaml)}
    numbers = layout.attempt_numbers()
    events = {number: _events(layout, number) for number in numbers}
    _add_journal(layout, events)
    troubled = _with(numbers, events, _is_incident) or _with(numbers, events, is_suspicion)
    if not troubled:
        return TroubleFacts(layout, watched=bool(numbers), settings=asked, results=results)
    number = troubled[-1]
    earlier = _in_effect([event for other in numbers if other < number for event in events[other]])
    return _of_attempt(layout, number, events[number], asked, earlier, results)


def _of_attempt(
    layout: RunLayout,
    number: int,
    events: list[Entry],
    asked: dict[str, Any],
    earlier: dict[str, Any],
    results: Sequence[EpochRow],
) -> TroubleFacts:
    attempt = read_attempt(layout, number)
    events = _with_suspicions(events)
    incidents = [event for event in events if _is_incident(event)]
    steps_of_epoch = _steps_of_epoch(layout, number)
    trouble = _last_trouble(incidents, steps_of_epoch)
    before, after, steps_in = _around(layout, number, trouble[0])
    in_effect = _in_effect(events)
    ours = attempt.ours if attempt else {}
    return TroubleFacts(
        layout=layout,
        watched=True,
        attempt=attempt,
        incidents=incidents,
        trouble=trouble,
        autopsy=_autopsy(events, trouble[0]),
        before=before,
        after=after,
        steps_in=steps_in,
        settings={**asked, **(attempt.train if attempt else {}), **ours, **in_effect},
        in_effect=bool(in_effect),
        earlier_settings=earlier,
        results=results,
    )


def _events(layout: RunLayout, number: int) -> list[Entry]:
    """Return the events of all ranks, oldest first."""
    found = [event for rank in layout.ranks(number) for event in read_events(layout.events(number, rank))]
    return sorted(found, key=lambda event: event.get("t", 0.0))


def _add_journal(layout: RunLayout, events: dict[int, list[Entry]]) -> None:
    """Add the journal's incidents and suspicions of attempts whose own record of them is gone."""
    journaled = [e for e in Journal(layout.journal).entries() if _is_incident(e) or is_suspicion(e)]
    for number, known in events.items():
        if not any(_is_incident(event) or is_suspicion(event) for event in known):
            known += [entry for entry in journaled if entry.get("attempt") == number]


def _is_incident(event: Entry) -> bool:
    return event["kind"] == "incident"


def _with(
    numbers: Sequence[int], events: dict[int, list[Entry]], is_one: Callable[[Entry], bool]
) -> list[int]:
    return [number for number in numbers if any(is_one(event) for event in events[number])]


def _with_suspicions(events: list[Entry]) -> list[Entry]:
    """Return the events with suspicions as incidents, those after the last real incident left as they are.

    One that nothing came of must not hide what happened before it.
    """
    last = max((at for at, event in enumerate(events) if _is_incident(event)), default=len(events))
    return [
        as_incident(event) if at < last and is_suspicion(event) else event for at, event in enumerate(events)
    ]


def _in_effect(events: Sequence[Entry]) -> dict[str, Any]:
    """Return the newest settings in effect among `events`."""
    values: dict[str, Any] = {}
    for event in events:
        if event["kind"] == "in_effect" and isinstance(event.get("values"), dict):
            values = event["values"]
    return values


def _autopsy(events: Sequence[Entry], first: Entry) -> Entry | None:
    """Return the autopsy of the incident `first`: the last one before it was reported.

    The worker examines a batch before it reports it, and only the first few of an attempt; without one since
    the incident before, the next one (at the end of the attempt) has to do.
    """
    place = next(index for index, event in enumerate(events) if event is first)
    for event in reversed(events[:place]):
        if event["kind"] == "autopsy":
            return event
        if event["kind"] == "incident":
            break
    return next((event for event in events[place:] if event["kind"] == "autopsy"), None)


def _last_trouble(incidents: Sequence[Entry], steps_of_epoch: int) -> list[Entry]:
    """Return the incidents at the end of the list that lie close together."""
    trouble = [incidents[-1]]
    for incident in reversed(incidents[:-1]):
        if _place(trouble[0], steps_of_epoch) - _place(incident, steps_of_epoch) > SAME_TROUBLE:
            break
        trouble.insert(0, incident)
    return trouble


def _place(incident: Entry, steps_of_epoch: int) -> int:
    return int(incident.get("epoch") or 0) * steps_of_epoch + int(incident.get("step") or 0)


def _steps_of_epoch(layout: RunLayout, number: int) -> int:
    steps, _ = StepFollower(layout.steps(number)).read(1 << 16)
    return steps[0].steps if steps else SAME_TROUBLE


def _around(layout: RunLayout, number: int, first: Entry) -> tuple[list[Step], list[Step], int | None]:
    """Return the steps before the incident, those from it on, and how many there were before it."""
    here = (int(first.get("epoch") or 0), int(first.get("step") or 0))
    before: deque[Step] = deque(maxlen=WINDOW)
    after: list[Step] = []
    count = 0
    follower = StepFollower(layout.steps(number))
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
