"""The phases of a plan as one training: running epochs, totals, and only such times as are known."""

from __future__ import annotations

import math

import pytest

from nantui.commands.watching import describe
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.plan import PlanPhase, epochs_in_all, new_plan, read_parts, waiting_seconds
from nantui.run.spec import Spec, read_spec, write_spec
from nantui.run.status import RUNNING, RunStatus
from nantui.supervisor import status as run_status
from nantui.supervisor.status import with_plan


def results(path, epochs, seconds):
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = "".join(f"{n},{n * seconds},{1 / n}\n" for n in epochs)
    path.write_text(f"epoch,time,train/box_loss\n{rows}")


@pytest.fixture
def three(tmp_path):
    """Phase 1 ended early after 3 of 150 epochs (10 s each), 2 has done 2 of 50 (40 s), 3 waits."""

    def make(third, train=None):
        layout = RunLayout(tmp_path / "run")
        base = {"epochs": 9, "batch": 8}
        small, large = {"epochs": 150, "imgsz": 64}, {"epochs": 50, "imgsz": 128}
        phases = [PlanPhase("small", small), PlanPhase("large", large), PlanPhase("last", third)]
        plan = {**new_plan("three", phases, base, {}), "phase": 2}
        write_spec(layout.spec, Spec(train or {**base, **phases[1].settings}, plan=plan))
        journal = Journal(layout.journal)
        for id, aside in (("undone", "nantui/phases/01"), ("kept", "nantui/phases/01-2")):
            journal.append("phase_begun", id=id, phase=2, aside=aside)
            journal.append("phase_done", id=id, phase=2)
            if id == "undone":
                journal.append("undo_done", of=id)
        results(layout.home / "phases/01/results.csv", range(1, 9), 1.0)
        results(layout.home / "phases/01-2/results.csv", range(1, 4), 10.0)
        results(layout.results_csv, (1, 2, 2), 40.0)
        return layout

    return make


def parts_of(layout):
    return read_parts(layout, read_spec(layout.spec), Journal(layout.journal).events())


def test_epochs_of_all_phases_count_on_from_one_to_the_next(three):
    parts = parts_of(three({"epochs": 20, "imgsz": 256}))
    assert [[row.epoch for row in part.rows if not row.superseded] for part in parts] == [
        [1, 2, 3],
        [1, 2],
        [],
    ]
    assert [(part.state, part.begins, part.epochs) for part in parts] == [
        ("finished", 0, 3), ("current", 3, 50), ("waiting", 53, 20),
    ]  # fmt: skip
    assert epochs_in_all(parts) == 73


@pytest.mark.parametrize(
    ("third", "seconds", "unknown"),
    [
        ({"epochs": 20, "imgsz": 256}, 0, "phase 3 (20 epochs)"),
        ({"epochs": 20, "imgsz": 128, "lr0": 0.001}, 20 * 40, ""),
        ({"epochs": 20, "imgsz": 64}, 20 * 10, ""),
        ({"epochs": 20, "imgsz": 64, "amp": False}, 0, "phase 3 (20 epochs)"),
    ],
)
def test_a_phase_takes_as_long_as_one_that_trained_alike_and_otherwise_nobody_knows(
    three, third, seconds, unknown
):
    assert waiting_seconds(parts_of(three(third))) == (seconds, unknown)


def test_what_a_recovery_has_decided_holds_for_later_phases_and_makes_old_times_unknown(three):
    parts = parts_of(three({"imgsz": 64}, {"epochs": 30, "imgsz": 128, "batch": 4}))
    assert (parts[2].epochs, math.isnan(parts[2].epoch_s)) == (30, True)


def test_the_status_says_the_phase_and_all_epochs_and_the_time_only_where_it_is_known(three, tmp_path):
    status = RunStatus(
        tmp_path, RUNNING, 2, 50, 1, 9, eta_s=100.0, phase={"number": 2, "of": 3, "title": "large"}
    )
    known = with_plan(three({"epochs": 20, "imgsz": 128}), status)
    assert known.eta_s == 100 + 20 * 40 and known.to_json()["phase"] == {
        "number": 2, "of": 3, "title": "large", "epochs_before": 3, "epochs_in_all": 73,
        "eta_s": 100.0, "unknown": "",
    }  # fmt: skip
    assert "phase 2 of 3  epoch 2/50 (5/73 of all phases)  step 1/9  15 min 00 s to go" in describe(known)[0]
    unknown = with_plan(three({"epochs": 20, "imgsz": 256}), status)
    assert unknown.eta_s is None
    assert describe(unknown)[0].endswith("1 min 40 s to go in this phase, unknown for phase 3 (20 epochs)")


def test_a_plan_is_read_again_only_when_its_files_have_changed(three, tmp_path, monkeypatch):
    layout, reads = three({"epochs": 20, "imgsz": 128}), []
    monkeypatch.setattr(run_status, "read_parts", lambda *given: reads.append(1) or read_parts(*given))
    status = RunStatus(tmp_path, RUNNING, 2, 50, eta_s=1.0, phase={"number": 2, "of": 3, "title": "large"})
    assert [with_plan(layout, status).eta_s for _ in range(3)] == [801.0] * 3 and len(reads) == 1
    results(layout.results_csv, range(1, 4), 10.0)
    assert with_plan(layout, status).eta_s == 201.0 and len(reads) == 2


def test_a_spec_that_cannot_be_read_or_is_one_phase_further_leaves_the_status_as_it_was(three, tmp_path):
    layout = three({"epochs": 20})
    status = RunStatus(tmp_path, RUNNING, 2, 50, phase={"number": 1, "of": 3, "title": "small"})
    assert with_plan(layout, status) == status
    layout.spec.write_text("[")
    assert with_plan(layout, status) == status
