"""A user loses the story of a run where an event is misread: each kind survives the way to disk and back."""

from __future__ import annotations

import json
import math
from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nantui.run import events
from nantui.run.atomic_files import to_json
from nantui.run.documents import types_of
from nantui.run.events import (
    KINDS,
    AttemptEnded,
    AttemptStarted,
    Change,
    CommandAsked,
    CommandReceived,
    Difference,
    EpochEnded,
    Event,
    Incident,
    InEffect,
    Place,
    RollbackBegun,
    document_of,
    newest,
    of_kind,
    parse,
    parse_lines,
)
from nantui.run.journal import Journal

JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def test_every_kind_in_the_file_formats_has_its_type():
    assert set(KINDS) == {
        "created", "attempt_started", "attempt_ended", "incident", "warning", "in_effect", "command",
        "command_done", "stage", "rollback_begun", "rollback_step", "rollback_done", "rollback_reverted",
        "undo_begun", "undo_done", "phase_begun", "phase_done", "autopsy", "save_failed", "saved", "adopted",
        "lost", "note", "registered", "phase", "epoch", "kept", "validation_precision",
        "stopping", "continued", "rewind_begun", "rewind_done",
    }  # fmt: skip


def test_an_event_comes_back_from_the_journal_as_it_was(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    place = {"number": 2, "of": 3, "title": "large"}
    journal.append("attempt_started", attempt=2, mode="resume", asked={"lr0": 0.003}, phase=place)
    journal.append("incident", incident="nan_loss", epoch=4, step=7, action="skipped", hosts=["a"], rank=0)
    started, incident = parse_lines(journal.path.read_text().splitlines())
    assert isinstance(started, AttemptStarted) and isinstance(incident, Incident)
    assert (started.attempt, started.mode, started.phase) == (2, "resume", Place(2, 3, "large"))
    assert dict(started.asked) == {"lr0": 0.003}
    assert (incident.epoch, incident.step, incident.harmless, incident.hosts) == (4, 7, True, ("a",))


@pytest.mark.parametrize(
    "event",
    [
        RollbackBegun(kind="rollback_begun", t=1.0, id="r", restore_point="weights/epoch3.pt", epoch=4,
                      settings=(Change("lr0", 0.01, 0.003, "why"), Change("imgsz", 64, 64)),
                      steps=({"kind": "move", "source": "a", "target": "b"},)),
        InEffect(kind="in_effect", differences=(Difference("lr0", 0.1, 0.2),), notes=("mosaic is closed",)),
        CommandReceived(kind="command", command=CommandAsked("c", "set", "me@here", {"set": {"lr0": 1}})),
        Event(kind="of_a_later_version", t=3.0, more={"colour": "blue"}),
    ],
)  # fmt: skip
def test_nothing_is_lost_on_the_way_to_disk_and_back(event):
    assert parse(json.loads(to_json(document_of(event)))) == event


def test_a_process_is_known_by_its_ticks_however_long_the_machine_is_up():
    assert parse({"kind": "registered", "pid": 1, "ticks": 2_000_000_000}).ticks == 2_000_000_000
    assert parse({"kind": "registered", "pid": 2_000_000_000}).pid is None


def test_what_a_rollback_changed_leaves_out_what_it_kept():
    rows = (Change("lr0", 0.01, 0.003), Change("imgsz", 64, 64, kept=True))
    assert RollbackBegun(kind="rollback_begun", settings=rows).changed == {"lr0": 0.003}


def test_a_field_of_the_wrong_kind_counts_as_not_told():
    event = parse(
        {"kind": "incident", "t": "yesterday", "epoch": True, "step": 1e30, "evidence": [1], "text": 5}
    )
    assert event == Incident(kind="incident")


def test_an_absurd_epoch_is_not_believed():
    assert parse({"kind": "epoch", "epoch": 10**30, "seconds": "nan"}).epoch is None


def test_numbers_that_are_not_finite_are_read_by_name():
    event = parse({"kind": "epoch", "seconds": "inf"})
    assert isinstance(event, EpochEnded) and math.isinf(event.seconds)


def test_fields_of_a_later_version_are_kept():
    event = parse({"kind": "incident", "incident": "nan_loss", "severity": 3})
    assert event.more == {"severity": 3} and document_of(event)["severity"] == 3


def test_torn_lines_and_lines_that_are_no_event_cost_only_themselves():
    lines = [
        '{"kind": "lost", "t": 1',
        "[]",
        "5",
        '{"kind": 3}',
        "[" * 100_000,
        '{"kind": "lost", "text": "gone"}',
    ]
    assert [event.text for event in parse_lines(lines)] == ["gone"]


def test_the_newest_of_several_kinds_is_found_in_the_order_of_the_file():
    found = parse_lines(
        ['{"kind": "lost", "t": 1}', '{"kind": "adopted", "t": 2}', '{"kind": "lost", "t": 3}']
    )
    assert newest(found, events.Lost, events.Adopted).t == 3
    assert [event.t for event in of_kind(found, events.Lost)] == [1, 3]
    assert newest(found, events.Note) is None


@given(st.sampled_from(sorted(KINDS)), st.dictionaries(st.text(max_size=8), JUNK, max_size=4), st.data())
def test_whatever_stands_in_the_fields_it_is_an_event(kind, other, data):
    names = [name for name in types_of(KINDS[kind]) if name not in ("kind", "more")]
    told = {name: data.draw(JUNK) for name in data.draw(st.sets(st.sampled_from(names), max_size=6))}
    event = parse({**other, **told, "kind": kind})
    assert isinstance(event, KINDS[kind])
    assert parse(json.loads(to_json(document_of(event)))).kind == kind


def test_an_event_is_compared_by_its_fields_and_never_changed():
    one = AttemptStarted(attempt=2, mode="resume")
    assert one == AttemptStarted(kind="attempt_started", attempt=2, mode="resume", text="")
    assert one != AttemptStarted(attempt=3, mode="resume") and one.kind == "attempt_started"
    assert one != AttemptEnded(kind="attempt_started", attempt=2) and "'mode': 'resume'" in repr(one)
    with pytest.raises(FrozenInstanceError):
        one.mode = "start"
