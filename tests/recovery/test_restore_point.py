"""The choice of the restore point, with its costs counted as the guide counts them; pure, no torch."""

from __future__ import annotations

import math
import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nantui.checkpoint.verdict import Finding, Verdict
from nantui.errors import UserError
from nantui.recovery.plan import checkpoints_aside, choose_restore, finished_words, put_together, warnings_for
from nantui.recovery.plan_inputs import LOOKS, PlanInputs, settled
from nantui.recovery.restore_points import (
    Candidate,
    RestoreCriteria,
    best_at,
    choose,
    find_strangers,
    list_candidates,
)
from nantui.recovery.resume_settings import with_rate
from nantui.recovery.rollback import summary, trimmed
from nantui.recovery.trouble import Trouble, first_trouble, vouched_for
from nantui.run.attempts import Attempt, write_attempt
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.record import Reached, RunRecord
from nantui.run.results import EpochRow, current, read_results
from nantui.run.telemetry import AFTER_LOSSES, BEFORE_LOSSES
from nantui.settings.lint import Known
from nantui.settings.schema import Schema
from nantui.settings.values import Change
from tests.recovery import fakes

NAN = Trouble(134, 21, "nan_loss", "", "guard")
REACHED = Reached(133, 21 / 500, 360.0)


def candidates(
    files: dict[str, tuple[int | None, str, float | None]], judge: RestoreCriteria, **fields: Any
) -> list[Candidate]:
    """Return candidates from {name: (epoch, badge, fitness)}, in a run of 200 epochs."""
    args = {"epochs": 200}
    verdicts = [
        fakes.verdict(Path("/run/weights") / name, epoch, badge, fitness, train_args=args, **fields)
        for name, (epoch, badge, fitness) in files.items()
    ]
    return list_candidates(verdicts, judge)


GUIDE = {
    "epoch120.pt": (120, "clean", 0.55), "epoch130.pt": (130, "clean", 0.6), "best.pt": (127, "clean", 0.62),
    "last.pt": (132, "corrupt", None),
}  # fmt: skip


def test_the_guides_own_case_is_counted_right() -> None:
    found = candidates(GUIDE, RestoreCriteria(NAN, REACHED, 200))
    restore = choose(found)
    assert restore is not None and restore.name == "epoch130.pt"
    assert (restore.work, restore.epochs_lost, restore.lost_text) == (131, 3, "132, 133 and part of 134")
    assert restore.hours_lost == pytest.approx((2 + 21 / 500) / 10)
    assert restore.hours_remaining == pytest.approx(69 / 10)
    costs = {one.name: (one.usable, one.epochs_lost, one.lost_text) for one in found}
    assert costs["best.pt"] == (True, 6, "129 to 133 and part of 134")
    assert not costs["last.pt"][0]
    assert best_at(found, restore).name == "best.pt"


def test_back_ups_are_named_as_the_guides_owner_named_them(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    found = candidates(GUIDE, RestoreCriteria(NAN, REACHED, 200))
    facts = PlanInputs(RunRecord(layout), Schema.load(), {}, found, NAN, REACHED)
    moves = checkpoints_aside(facts, "id", choose(found), best_at(found, found[0]))
    assert [(move.source, move.target) for move in moves] == [
        ("weights/last.pt", "weights/corrupted_backup/last_epoch134_corrupted.pt")
    ]
    layout.corrupted_backup.mkdir(parents=True)
    (layout.corrupted_backup / "last_epoch134_corrupted.pt").write_bytes(b"an older back-up")
    assert checkpoints_aside(facts, "id", choose(found), None)[-1].target.endswith(
        "last_epoch134_corrupted-2.pt"
    )


def test_a_clean_looking_file_from_after_the_first_sign_is_no_restore_point() -> None:
    early = Trouble(130, 3, "nan_buffer", "", "guard")
    found = candidates(GUIDE, RestoreCriteria(early, REACHED, 200))
    assert choose(found).name == "best.pt"  # type: ignore[union-attr]
    late = next(one for one in found if one.name == "epoch130.pt")
    assert late.why_not == "saved after the first sign of trouble (nan_buffer in epoch 130)"


def test_an_agreed_stop_counts_as_inside_the_next_epoch_and_is_preferred_when_nothing_happened() -> None:
    files = {
        "last.pt": (9, "clean", 0.1),
        "nantui_stop.pt": (9, "clean", None),
        "epoch9.pt": (9, "clean", 0.1),
    }
    assert (
        choose(candidates(files, RestoreCriteria(None, Reached(10, 0.5, 1.0), 20))).name == "nantui_stop.pt"
    )  # type: ignore[union-attr]
    inside = RestoreCriteria(Trouble(11, 2, "nan_loss", "", ""), Reached(10, 0.5, 1.0), 20)
    assert choose(candidates(files, inside)).name == "last.pt"  # type: ignore[union-attr]


def test_while_it_trains_a_file_that_stays_is_preferred_to_last() -> None:
    """A plan is read for a minute: last.pt was another file by then, and the training stopped for nothing."""
    files = {"last.pt": (9, "clean", 0.1), "epoch9.pt": (9, "clean", 0.1), "best.pt": (9, "clean", 0.1)}
    reached = Reached(10, 0.5, 1.0)
    names = [
        [one.name for one in candidates(files, RestoreCriteria(None, reached, 20, trains=trains))]
        for trains in (False, True)
    ]
    assert names == [["last.pt", "epoch9.pt", "best.pt"], ["epoch9.pt", "best.pt", "last.pt"]]


def test_reasons_against_are_told() -> None:
    torn = Finding("torn", "file", "")
    files = {"epoch1.pt": (1, "unreadable", None)}
    (one,) = candidates(files, RestoreCriteria(None, Reached(5, 0, 1.0), 9), findings=(torn, torn))
    assert one.why_not == "unreadable (torn)" and choose([one]) is None
    (repaired,) = candidates(
        {"last.pt": (1, "clean", None)},
        RestoreCriteria(None, Reached(2, 0, 1.0), 9),
        why_not_resumable="it has no optimizer state",
        repairable=True,
    )
    assert repaired.usable and repaired.to_json()["repair"]


def test_a_file_that_is_being_written_is_no_corrupt_one(tmp_path: Path) -> None:
    files = {"epoch3.pt": (3, "clean", 0.1), "last.pt": (4, "busy", None)}
    found = candidates(files, RestoreCriteria(None, Reached(5, 0.5, 1.0), 9))
    assert [(one.name, one.why_not) for one in found] == [("epoch3.pt", ""), ("last.pt", "being written now")]
    facts = PlanInputs(RunRecord(RunLayout(tmp_path)), Schema.load(), {}, found, None, Reached(5, 0.5, 1.0))
    (move,) = checkpoints_aside(facts, "id", found[0], None)
    assert (move.target, move.why) == ("weights/corrupted_backup/last_epoch6_aside.pt", "being written now")
    warnings = warnings_for(facts, found[0], [], [], {})
    assert "last.pt: being written now, judged again once the training has stopped" in warnings


def test_a_file_that_is_being_written_gets_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    said = [fakes.verdict(Path("last.pt"), 4, badge) for badge in ("busy", "busy", "clean", "busy")]
    catalog: Any = SimpleNamespace(verdict=lambda path: said.pop(0))
    assert settled(catalog, Path("last.pt")).badge == "clean" and len(waits) == 2
    catalog = SimpleNamespace(verdict=lambda path: fakes.verdict(path, 4, "busy"))
    assert settled(catalog, Path("last.pt")).badge == "busy" and len(waits) == 2 + LOOKS - 1


@pytest.mark.parametrize(
    ("badge", "epochs", "says"),
    [
        ("clean", 200, "a restart was asked for"),
        ("clean", 4, "a restart was asked for"),
        ("corrupt", 200, "no clean checkpoint is left"),
    ],
)
def test_beginning_again_says_why(tmp_path: Path, badge: str, epochs: int, says: str) -> None:
    found = candidates({"epoch3.pt": (3, badge, 0.1)}, RestoreCriteria(None, Reached(4, 0, 1.0), epochs))
    facts = PlanInputs(RunRecord(RunLayout(tmp_path)), Schema.load(), {}, found, None, Reached(4, 0, 1.0))
    plan = put_together(facts, None, {"epochs": epochs}, [], (), Known(), "id")
    assert plan.headline == f"Plan B: {says}, the training begins again"
    assert f"{says}: it begins again from the model's own weights" in plan.warnings
    assert summary(plan) == f"{says}: everything moved aside, the training begins again"


@pytest.mark.parametrize(("done", "more"), [(3, 13), (60, 90), (100, 150), (300, 450)])
def test_a_finished_run_says_how_many_epochs_would_make_sense(done: int, more: int) -> None:
    args = {"epochs": done}
    last = fakes.verdict(Path("/run/weights/last.pt"), done - 1, train_args=args)
    (one,) = list_candidates([last], RestoreCriteria(None, Reached(done, 0, 1.0), done))
    assert one.finished and one.why_not == f"finished: raise epochs, e.g. to {more}"


def test_a_finished_run_names_an_older_epoch_to_train_on_from(tmp_path: Path) -> None:
    files = {"last.pt": (59, "clean", 0.3), "epoch40.pt": (40, "clean", 0.2)}
    found = candidates(files, RestoreCriteria(None, Reached(60, 0, 1.0), 60))
    facts = PlanInputs(
        RunRecord(RunLayout(tmp_path / "auto")), Schema.load(), {}, found, None, Reached(60, 0, 1.0)
    )
    with pytest.raises(UserError) as caught:
        choose_restore(facts, None, restart=False)
    assert str(caught.value) == (
        "auto is finished, all 60 epochs are trained; to train longer raise epochs, e.g. --set epochs=90 (in "
        "the cockpit: epochs in c, w, then R); to begin again, all of it moved aside: nantui recover "
        f"{tmp_path}/auto --restart (in the cockpit: R, then b); to train on from an older epoch: nantui "
        f"rollback {tmp_path}/auto --to epoch40.pt, then resume"
    )
    assert "older" not in finished_words(facts, found[1], None)


def test_fewer_epochs_than_are_trained_are_no_finished_run(tmp_path: Path) -> None:
    (tmp_path / "args.yaml").write_text("epochs: 3000\n")
    found = candidates({"last.pt": (503, "clean", 0.3)}, RestoreCriteria(None, Reached(504, 0, 1.0), 10))
    record = RunRecord(RunLayout(tmp_path))
    facts = PlanInputs(record, Schema.load(), {"epochs": 10}, found, None, Reached(504, 0, 1.0))
    with pytest.raises(UserError, match=r"^epochs=10: 504 are trained already; leave it out to go on"):
        choose_restore(facts, None, restart=False)


def test_without_any_fitness_the_best_is_the_restore_point() -> None:
    found = candidates(
        {"epoch3.pt": (3, "clean", None), "epoch2.pt": (2, "clean", math.nan)},
        RestoreCriteria(None, REACHED, 200),
    )
    assert best_at(found, found[0]) is found[0]


@pytest.mark.parametrize(
    ("bad_loss", "skipped", "incident", "action", "expected"),
    [
        ("nan", 0, None, "", ("nan_loss", 3, 2)),
        ("nan", 1, None, "", None),
        ("1.0", 0, "nan_buffer", "observed", ("nan_buffer", 2, 1)),
        ("nan", 0, "nan_gradient", "skipped", ("nan_loss", 3, 2)),
        ("1.0", 1, "too_many_skips", "ended", ("too_many_skips", 2, 1)),
        ("1.0", 0, None, "", None),
    ],
)
def test_the_first_sign_is_looked_for_everywhere(
    tmp_path: Path,
    bad_loss: str,
    skipped: int,
    incident: str | None,
    action: str,
    expected: tuple[str, int, int] | None,
) -> None:
    layout = RunLayout(tmp_path)
    write_attempt(layout, Attempt(1, "u", 100.0, "start", None, {}, {}, "python"))
    header = ",".join((*BEFORE_LOSSES, "box_loss", *AFTER_LOSSES))
    rest = ",".join(["1.0"] * len(AFTER_LOSSES))
    rows = [f"1.0,1,1,4,0,,1.0,{rest}", f"1.0,3,2,4,{skipped},,{bad_loss},{rest}", f"1.0,3,3,4,0,,1.0,{rest}"]
    layout.steps(1).write_text("\n".join([header, *rows]) + "\n1.0,3,4,4,0,,na")
    layout.results_csv.write_text("epoch,time,train/box_loss\n1,5,1.0\n2,11,1.0\n")
    if incident:
        fields = {"epoch": 2, "step": 1, "action": action, "text": ""}
        Journal(layout.journal).append("incident", attempt=1, incident=incident, **fields)
    sign = first_trouble(RunRecord(layout))
    assert (None if sign is None else (sign.kind, sign.epoch, sign.step)) == expected
    assert RunRecord(layout).reached == Reached(2, 0.75, 6.0)
    layout.results_csv.unlink()
    assert RunRecord(layout).reached.epochs_done == 0, "it begins again: its checkpoints are gone, too"
    layout.last.parent.mkdir()
    layout.last.touch()
    assert RunRecord(layout).reached.epochs_done == 2.75, "results.csv alone is lost"


def test_a_foreign_run_shows_its_trouble_in_results_csv_and_in_its_checkpoints(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    layout.results_csv.write_text("epoch,time,train/box_loss,val/box_loss\n1,5,1.0,1.0\n2,9,1.0,nan\n")
    sign = first_trouble(RunRecord(layout))
    assert sign is not None and (sign.epoch, sign.kind) == (2, "nan_validation")
    layout.results_csv.write_text("epoch,time,train/box_loss\n1,5,1.0\n2,9,1.0\n")
    assert first_trouble(RunRecord(layout)) is None
    sign = first_trouble(RunRecord(layout), corrupt_epochs=[2, 3])
    assert sign is not None and (sign.epoch, sign.kind) == (2, "corrupt")


VALIDATED = "epoch,time,train/box_loss,metrics/mAP50-95(B),val/box_loss\n"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("1,5,1,0.4,1\n2,9,1,0.4,nan\n", None),
        ("1,5,1,0,1\n2,9,1,0,nan\n3,13,1,0,2\n", None),
        ("1,5,1,0,1\n2,9,1,0,nan\n", ("nan_validation", 2)),
        ("1,5,1,0,1\n2,9,1,0,nan\n3,3,1,0,2\n", ("nan_validation", 2)),
        ("1,5,1,0.4,1\n2,9,nan,0.4,nan\n3,13,1,0.4,2\n", ("nan_loss", 2)),
        ("1,5,1,0.4,1\n2,9,1,nan,nan\n3,13,1,0.4,2\n", ("nan_validation", 2)),
    ],
    ids=[
        "metrics",
        "finite later",
        "neither",
        "finite after a resume",
        "training loss",
        "metrics not finite",
    ],
)
def test_a_validation_that_overflowed_is_no_trouble(
    tmp_path: Path, lines: str, expected: tuple[str, int] | None
) -> None:
    """NaN in a network leaves metrics of 0 and does not go away by itself; a resume may begin from a washed
    file.
    """
    layout = RunLayout(tmp_path)
    layout.results_csv.write_text(VALIDATED + lines)
    journal = Journal(layout.journal)
    if expected is None:
        journal.append("incident", incident="nan_validation", epoch=2, step=4, action="observed", text="")
    sign = first_trouble(RunRecord(layout))
    assert (sign and (sign.kind, sign.epoch)) == expected
    rows = current(read_results(layout.results_csv))
    assert (2 in vouched_for(rows)) == (expected is None)


def test_what_did_no_harm_is_no_sign(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    journal = Journal(layout.journal)
    fields = {"epoch": 2, "step": 1, "text": "", "attempt": 1}
    write_attempt(layout, Attempt(1, "u", 100.0, "start", None, {}, {}, "python"))
    journal.append("warning", warning="loss_exploded", **fields)
    journal.append("incident", incident="nan_loss", action="skipped", **fields)
    journal.append("incident", incident="nan_loss", action="only said", **fields)
    for kind in ("zero_loss", "loss_exploded", "scale_collapsed"):
        journal.append("incident", incident=kind, action="observed", **fields)
    assert first_trouble(RunRecord(layout)) is None
    journal.append("incident", incident="loss_exploded", action="ended", **fields)
    sign = first_trouble(RunRecord(layout))
    assert sign is not None and sign.kind == "loss_exploded", "it ended the training, as was asked for"
    write_attempt(layout, Attempt(2, "v", 200.0, "resume", None, {}, {}, "python"))
    assert first_trouble(RunRecord(layout)) is None, "which has gone on since"


def test_what_a_later_attempt_left_behind_is_no_sign(tmp_path: Path) -> None:
    """It began before the NaN, from a file that holds nothing of it; one that began later carries it."""
    layout = RunLayout(tmp_path)
    header = ",".join((*BEFORE_LOSSES, "box_loss", *AFTER_LOSSES))
    rest = ",".join(["1.0"] * len(AFTER_LOSSES))

    def attempt(number: int, *steps: tuple[int, str]) -> None:
        write_attempt(layout, Attempt(number, f"u{number}", 100.0 * number, "resume", None, {}, {}, "python"))
        rows = [f"1.0,{epoch},1,4,0,,{loss},{rest}" for epoch, loss in steps]
        layout.steps(number).write_text("\n".join([header, *rows]) + "\n")

    attempt(1, (2, "1.0"), (3, "nan"))
    journal = Journal(layout.journal)
    journal.append("incident", incident="nan_weight", epoch=3, step=1, action="ended", text="", attempt=1)
    attempt(2, (4, "1.0"))
    sign = first_trouble(RunRecord(layout))
    assert sign is not None and sign.epoch == 3
    attempt(3, (3, "1.0"), (4, "1.0"))
    assert first_trouble(RunRecord(layout)) is None
    journal.append("undo_done", id="b", of="a")
    assert first_trouble(RunRecord(layout)) is not None, "an undo brings the work of earlier attempts back"


def test_signs_from_before_the_last_rollback_are_dealt_with(tmp_path: Path) -> None:
    layout = RunLayout(tmp_path)
    journal = Journal(layout.journal)
    journal.append("incident", incident="nan_loss", epoch=2, step=1, action="observed", text="")
    assert first_trouble(RunRecord(layout)) is not None
    journal.append("rollback_begun", id="a", steps=[], restore_point="weights/epoch0.pt")
    journal.append("rollback_done", id="a")
    assert first_trouble(RunRecord(layout)) is None
    journal.append("undo_done", id="b", of="a")
    assert first_trouble(RunRecord(layout)) is not None


HEADER = "epoch,time,a\n"


@given(st.lists(st.integers(1, 12), max_size=30), st.integers(0, 12))
def test_trimming_keeps_what_counts_and_is_stable(epochs: list[int], work: int) -> None:
    text = HEADER + "".join(f"{epoch},{index}.0,{index}\n" for index, epoch in enumerate(epochs))
    after = trimmed(text, work)
    assert trimmed(after, work) == after and after.startswith(HEADER)
    lines = after.splitlines()[1:]
    kept = [int(line.split(",")[0]) for line in lines]
    assert kept == sorted(set(kept)) and all(epoch <= work for epoch in kept)
    assert all(line + "\n" in text for line in lines)
    for epoch, line in zip(kept, lines, strict=True):
        last = max(index for index, seen in enumerate(epochs) if seen == epoch)
        assert line == f"{epoch},{last}.0,{last}"


def test_trimming_agrees_with_the_reader_and_drops_a_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    path.write_text(HEADER + "1,1,1\n2,2,2\n3,3,3\n4,4,4\n3,5,5\n4,6,6\n5,7")
    before = [(row.epoch, row.seconds) for row in current(read_results(path)) if row.epoch <= 4]
    path.write_text(trimmed(path.read_text(), 4))
    assert [(row.epoch, row.seconds) for row in read_results(path)] == before
    assert path.read_text() == HEADER + "1,1,1\n2,2,2\n3,5,5\n4,6,6\n"


def test_the_difference_says_what_lr0_amounts_to_in_the_next_epoch() -> None:
    """The guide's example: 0.005 at 130/200 is about 0.00175."""
    guide = {"lr0": 0.01, "lrf": 0.0001, "epochs": 200, "optimizer": "SGD"}
    rows = [Change("lr0", 0.01, 0.005, "asked for"), Change("amp", True, False, "overflow")]
    rate, other = with_rate(rows, guide, 130)
    assert rate.why == "asked for; 0.00175 in effect in epoch 131/200" and other == rows[1]
    assert with_rate(rows, guide, 0) == rows
    assert with_rate(rows, {**guide, "optimizer": "auto"}, 130) == rows, "auto ignores lr0"


def saved(tmp_path: Path, name: str, epoch: int, at: int, loss: float, **fields: Any) -> Verdict:
    """Return the verdict on a file that was saved `at` a minute, with a validation loss."""
    path = tmp_path / name
    path.touch()
    os.utime(path, (at * 60, at * 60))
    fields = {"train_metrics": {"val/box_loss": loss, "fitness": 0.1}, **fields}
    return fakes.verdict(path, epoch, date=f"2026-11-29T10:{at:02d}:00", **fields)


def test_what_an_earlier_training_left_in_the_directory_is_no_candidate(tmp_path: Path) -> None:
    rows = [EpochRow(epoch, 0.0, {"val/box_loss": 5.0 - epoch}, 0) for epoch in (1, 2, 3, 4)]
    old = [saved(tmp_path, f"epoch{n}.pt", n, at=n, loss=9.0 - n, fitness=0.9) for n in (2, 8)]
    now = [saved(tmp_path, name, n, at=20 + n, loss=4.0 - n) for name, n in (("last.pt", 3), ("best.pt", 2))]
    strangers = find_strangers([*old, *now], rows)
    assert {path.name for path in strangers} == {"epoch2.pt", "epoch8.pt"}
    found = list_candidates(
        [*old, *now], RestoreCriteria(None, Reached(4, 0.0, 60.0), 9, strangers=strangers)
    )
    restore = choose(found)
    assert restore is not None and restore.name == "last.pt" and not any(one.finished for one in found)
    assert best_at(found, restore).name in ("last.pt", "best.pt"), "not the old one with the best fitness"
    assert find_strangers(now, rows) == {} and find_strangers([*old, *now], []).keys() == {old[1].path}
    same = [replace(one, train_metrics={}) for one in (*old, *now)]
    assert find_strangers(same, rows).keys() == {one.path for one in old}, "older than a left-over one"
    went_back = [*rows, *(replace(row, epoch=row.epoch - 1, segment=1) for row in rows[2:])]
    assert find_strangers(same, went_back).keys() == {old[1].path}, "the same training from an older point"


def test_rounded_results_and_turned_clocks_make_no_strangers(tmp_path: Path) -> None:
    files = [saved(tmp_path, f"epoch{n}.pt", n, at=n, loss=3.14159 - n) for n in (0, 1, 2)]
    rounded = [EpochRow(n + 1, 0.0, {"val/box_loss": round(3.14159 - n, 1)}, 0) for n in (0, 1, 2)]
    assert find_strangers(files, rounded) == {}
    summer_time_ended = [files[0], replace(files[1], date="2026-11-29T09:01:00")]
    assert find_strangers(summer_time_ended, []) == {}


def test_a_file_that_a_person_put_there_is_no_sign_of_trouble_and_stays(tmp_path: Path) -> None:
    pruned = saved(tmp_path, "pruned.pt", 3, at=9, loss=1.0, badge="corrupt")
    strangers = find_strangers([pruned], [])
    (found,) = list_candidates([pruned], RestoreCriteria(None, REACHED, 200, strangers=strangers))
    assert not found.usable and "no training writes" in found.why_not
    facts = PlanInputs(RunRecord(RunLayout(tmp_path)), Schema.load(), {}, [found], NAN, REACHED)
    restore = candidates(GUIDE, RestoreCriteria(NAN, REACHED, 200))[0]
    assert checkpoints_aside(facts, "id", restore, restore) == []
