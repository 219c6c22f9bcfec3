"""One reading of a run: each file once an operation, and afresh only in a new record."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import pytest

from nantui.errors import UserError
from nantui.recovery.plan import make_plan
from nantui.run import atomic_files
from nantui.run.atomic_files import to_json
from nantui.run.attempts import Attempt, write_attempt
from nantui.run.binding import bind
from nantui.run.events import AttemptStarted, InEffect, Registered
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord, read_run
from nantui.run.spec import Spec, write_spec
from nantui.run.telemetry import AFTER_LOSSES, BEFORE_LOSSES


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    layout = RunLayout(tmp_path / "run")
    layout.weights.mkdir(parents=True)
    layout.args_yaml.write_text("task: detect\nmodel: yolov8n.yaml\nepochs: 9\nlr0: 0.01\n")
    layout.results_csv.write_text("epoch,time,train/box_loss\n1,10,1\n2,20,nan\n2,30,2\n")
    write_spec(layout.spec, Spec({"epochs": 9}, python="/opt/python"))
    bind(layout.run)
    write_attempt(layout, Attempt(1, "u", 100.0, "start", None, {}, {"guard": "protect"}, "python"))
    Journal(layout.journal).append("attempt_started", attempt=1)
    events = [{"t": 2.0, "kind": "in_effect", "values": {"lr0": 0.1}}, {"t": 1.0, "kind": "registered"}]
    layout.events(1, 0).write_text("".join(to_json(event) + "\n" for event in events))
    layout.events(1, 1).write_text(to_json({"t": 1.5, "kind": "registered"}) + "\n")
    return layout


def test_everything_that_a_run_says_is_in_its_record(layout: RunLayout) -> None:
    record = read_run(layout.run)
    assert [type(event) for event in record.journal] == [AttemptStarted]
    assert record.spec is not None and record.spec.train == {"epochs": 9}
    assert record.args["lr0"] == 0.01
    assert len(record.results) == 3 and [row.seconds for row in record.epochs] == [10, 30]
    attempt = record.newest
    assert attempt.number == 1 and attempt.asked is not None and attempt.asked.ours == {"guard": "protect"}
    assert [type(event) for event in attempt.all_events] == [Registered, Registered, InEffect]
    assert attempt.in_effect is not None and attempt.in_effect.values == {"lr0": 0.1}
    assert record.attempt(1) is attempt and record.attempt(1).events() is attempt.events()


def test_of_an_attempt_that_is_not_there_nothing_is_known(layout: RunLayout) -> None:
    record = RunRecord(layout)
    gone = record.attempt(7)
    assert (gone.asked, gone.exits, gone.ranks, gone.all_events, gone.in_effect) == (None, [], [], [], None)
    assert gone.steps.newest is None
    layout.attempt(1).unlink()
    assert RunRecord(layout).newest.number == 0


def test_a_record_stays_as_it_was_read_and_a_new_one_sees_what_came_after(layout: RunLayout) -> None:
    record = RunRecord(layout)
    assert len(record.journal) == 1 and record.newest.number == 1
    Journal(layout.journal).append("attempt_ended", attempt=1, outcome="failed")
    write_attempt(layout, Attempt(2, "v", 200.0, "resume", None, {}, {}, "python"))
    assert len(record.journal) == 1 and record.newest.number == 1
    assert len(RunRecord(layout).journal) == 2 and RunRecord(layout).newest.number == 2


def test_a_plan_reads_no_file_twice(layout: RunLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []
    real = atomic_files.open_regular

    def counted(path: Path, flags: int = 0) -> Any:
        opened.append(path)
        return real(path, flags)

    for module in ("atomic_files", "telemetry"):
        monkeypatch.setattr(f"nantui.run.{module}.open_regular", counted)
    make_plan(layout.run, restart=True, python=sys.executable)
    once = {layout.journal, layout.args_yaml, layout.results_csv, layout.spec, layout.events(1, 0)}
    assert once <= set(opened)
    assert {path for path in once if opened.count(path) > 1} == set()


def test_only_who_is_trusted_says_which_program_runs(
    layout: RunLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = layout.spec.read_bytes()
    monkeypatch.setattr("nantui.run.spec.read_owned", lambda path, largest: (said, 12345))
    told, trusted = RunRecord(layout).spec, RunRecord(layout, trusted=[12345]).spec
    assert told is not None and told.python == ""
    assert trusted is not None and trusted.python == "/opt/python"


def test_no_run_is_a_plain_refusal(tmp_path: Path) -> None:
    with pytest.raises(UserError):
        read_run(tmp_path)


def test_the_telling_steps_are_found_also_after_the_losses_have_changed(layout: RunLayout) -> None:
    rest = ",".join(["1.0"] * len(AFTER_LOSSES))

    def part(losses: str, *rows: str) -> str:
        return "".join(f"{line}\n" for line in (",".join((*BEFORE_LOSSES, losses, *AFTER_LOSSES)), *rows))

    layout.steps(1).write_text(
        part("box_loss", f"1.0,1,1,2,0,,0.5,{rest}", f"1.0,1,2,2,1,nan_loss,nan,{rest}")
        + part("box_loss,cls_loss", f"1.0,2,1,2,0,,nan,0.5,{rest}", f"1.0,2,2,2,0,,0.25,0.5,{rest}")
        + f"1.0,3,1,2,0,,0.5,0.5,{rest}"
    )
    steps = RunRecord(layout).newest.steps
    assert steps.first is not None and (steps.first.epoch, steps.first.step) == (1, 1)
    assert steps.broken is not None and (steps.broken.epoch, steps.broken.step) == (2, 1)
    assert math.isnan(steps.broken.losses["box_loss"]) and steps.broken.losses["cls_loss"] == 0.5
    assert steps.newest is not None and (steps.newest.epoch, steps.newest.step) == (2, 2), "the rest is torn"
