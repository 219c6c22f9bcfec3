"""results.csv is awkward: torn, appended after rollbacks, full of NaN."""

import math

import pytest

from nantui.recovery.rollback import trimmed
from nantui.run.growing_files import LineFollower
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord
from nantui.run.results import (
    Metric,
    Results,
    current,
    epoch_seconds,
    last_epochs,
    median_epoch_s,
    read_metric,
    read_results,
)
from nantui.run.spec import epochs_asked

HEADER = "epoch,time,train/box_loss,val/box_loss,lr/pg0\n"


def rows_of(tmp_path, *lines):
    path = tmp_path / "results.csv"
    path.write_text("".join(lines))
    return read_results(path)


def test_a_later_segment_supersedes_what_it_repeats(tmp_path):
    lines = [f"{epoch},{epoch},1,1,0.1\n" for epoch in (1, 2, 3, 4, 3, 4)]
    rows = rows_of(tmp_path, HEADER, *lines)
    assert [row.superseded for row in rows] == [False, False, True, True, False, False]
    assert [(row.epoch, row.segment) for row in current(rows)] == [(1, 0), (2, 0), (3, 1), (4, 1)]


def test_the_metric_that_people_train_for_has_its_best_among_what_still_counts(tmp_path):
    path = tmp_path / "results.csv"
    head = "epoch,time,train/box_loss,metrics/mAP50(B),metrics/mAP50-95(B)\n"
    rows = [(1, 0.1), (2, 0.9), (3, 0.8), (2, 0.41), (3, math.nan), (4, 0.392)]
    path.write_text(head + "".join(f"{epoch},{epoch},1,0.99,{value}\n" for epoch, value in rows) + "5,5,1,1")
    metric = read_metric(path)
    assert metric == Metric("mAP50-95", 0.392, 0.41, 2), "0.9 was rolled back"
    assert metric.words == "mAP50-95 0.392, best 0.410 at 2"


@pytest.mark.parametrize(("column", "name"), [
    ("metrics/accuracy_top1", "top1"), ("    metrics/mIoU", "mIoU"), ("metrics/delta1", "delta1"),
    ("lr/pg0", None),
])  # fmt: skip
def test_each_task_has_its_metric(tmp_path, column, name):
    path = tmp_path / "results.csv"
    path.write_text(f"epoch,time,{column}\n1,1,0.5\n")
    metric = read_metric(path)
    assert (metric and metric.name) == name


def test_the_half_written_last_line_is_not_yet_there(tmp_path):
    rows = rows_of(tmp_path, HEADER, "1,1,1,1,0.1\n", "2,2,1,1,0.1")
    assert [row.epoch for row in rows] == [1]


def test_nan_is_a_value_and_is_said(tmp_path):
    (row,) = rows_of(tmp_path, HEADER, "1,2.5,nan,inf,0.1\n")
    assert math.isnan(row.losses("train")["box_loss"])
    assert row.losses("val") == {"box_loss": math.inf}
    assert not row.finite


NO_ROWS = (
    "garbage\n", "1,2,3\n", ",,,,\n", "x,1,1,1,1\n", "nan,1,1,1,1\n", '"1,1,1\n',
    "\0\0\0\n", "\0,1,1,1,1\n", "9" * 200_000 + "\n",
)  # fmt: skip


@pytest.mark.parametrize("line", NO_ROWS, ids=range(len(NO_ROWS)))
def test_lines_that_make_no_sense_are_left_out(tmp_path, line):
    assert [row.epoch for row in rows_of(tmp_path, HEADER, line, "2,2,1,1,0.1\n")] == [2]


def test_a_missing_file_has_no_epochs(tmp_path):
    assert read_results(tmp_path / "results.csv") == []


def test_seconds_of_an_epoch_are_differences_inside_a_segment(tmp_path):
    rows = rows_of(tmp_path, HEADER, *(f"{e},{t},1,1,0.1\n" for e, t in ((1, 10), (2, 13), (2, 20), (3, 24))))
    assert epoch_seconds(rows) == [3.0, 4.0]


def test_what_an_epoch_takes_is_the_median_of_the_last_ones(tmp_path):
    ends = (10, 30, 34, 39, 42, 48, 50)
    rows = rows_of(tmp_path, HEADER, *(f"{e},{t},1,1,0.1\n" for e, t in enumerate(ends, 1)))
    assert (median_epoch_s(rows), median_epoch_s(rows, last=2), median_epoch_s(rows, last=10)) == (4, 4, 4.5)
    assert math.isnan(median_epoch_s(rows[:1])) and median_epoch_s(rows[:1], from_the_start=True) == 10
    assert math.isnan(median_epoch_s(rows[3:4], from_the_start=True)), "the start was not seen"
    assert math.isnan(median_epoch_s([], from_the_start=True))


def test_numbers_beyond_all_bounds_and_ragged_lines_end_no_reader(tmp_path):
    path = tmp_path / "results.csv"
    head = "epoch,time,train/box_loss,metrics/mAP50-95(B)\n"
    odd = "1e999,3,1,0.7\n-inf,3,1,0.6\nnan,3,1,0.8\n9e9,3,1,0.8\n3,4,1\n4,5,1,0.9,7\n"
    path.write_text(f"{head}1,1,1e999,0.5\n2,2,1,0.4\n{odd}")
    for rows in (read_results(path), last_epochs(path)):
        assert [(row.epoch, row.finite) for row in rows] == [(1, False), (2, True)]
    assert read_metric(path) == Metric("mAP50-95", 0.4, 0.5, 1)
    assert trimmed(path.read_text(), 2) == f"{head}1,1,1e999,0.5\n2,2,1,0.4\n"


def test_the_end_of_a_very_wide_file_is_read_too(tmp_path):
    path, names = tmp_path / "results.csv", ",".join(f"train/part{number}_loss" for number in range(1000))
    path.write_text(f"epoch,time,{names}\n" + "".join(f"{n},{n}{',0.12345678' * 1000}\n" for n in (1, 2, 3)))
    assert [row.epoch for row in last_epochs(path)] == [1, 2, 3]


def test_old_releases_padded_their_columns(tmp_path):
    rows = rows_of(tmp_path, "      epoch,  time,  train/box_loss\n", "   1,   2.0,   0.5\n")
    assert rows[0].losses("train") == {"box_loss": 0.5}


@pytest.mark.parametrize("mangled", [lambda text: "\ufeff" + text, lambda text: text.replace("\n", "\r\n")])
def test_what_a_spreadsheet_makes_of_it_is_read_and_trimmed_byte_for_byte(tmp_path, mangled):
    path = tmp_path / "results.csv"
    path.write_bytes(mangled("   epoch,  time, train/box_loss\n1,2.5,0.5\n2,5.0,nan\n").encode())
    results = Results()
    results.feed(LineFollower(path).read().lines)
    for rows in (read_results(path), last_epochs(path), results.rows):
        assert [row.epoch for row in rows] == [1, 2] and not rows[1].finite and rows[0].seconds == 2.5
    before = path.read_bytes().decode()
    assert trimmed(before, 1) == before[: before.index("2,5.0")]


@pytest.mark.parametrize(
    ("text", "unread"), [("epoch;time\n1;2,5\n", True), ("epoch,time\n", False), ("", False)]
)
def test_what_cannot_be_read_is_said(tmp_path, text, unread):
    (tmp_path / "results.csv").write_text(text)
    assert RunRecord(RunLayout(tmp_path)).results_unread is unread


def test_a_file_that_may_not_be_read_is_said_and_one_that_is_not_there_is_not(tmp_path):
    assert not RunRecord(RunLayout(tmp_path)).results_unread
    (tmp_path / "results.csv").mkdir()  # for root, who may read every file
    assert RunRecord(RunLayout(tmp_path)).results_unread


@pytest.mark.parametrize(("limit", "epochs"), [("null", 100), ("0.5", None), ("2", None)])
def test_under_a_time_limit_no_number_of_epochs_is_promised(tmp_path, limit, epochs):
    (tmp_path / "args.yaml").write_text(f"epochs: 100\ntime: {limit}\npatience: 5\n")
    assert epochs_asked(tmp_path / "args.yaml") == epochs
