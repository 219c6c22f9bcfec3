"""`nantui labels`: exit status, JSON, CSV, summary, and the quarantine list."""

from __future__ import annotations

import csv
import io
import json
import time

import pytest

from nantui.cli import main
from nantui.labels.report import progress_line
from nantui.run.events import Note, QuarantineChange, of_kind
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.quarantine import quarantine_add, quarantine_undo, quarantined

GOOD = "0 0.5 0.5 0.2 0.2\n"


@pytest.fixture
def run(tmp_path, data_set):
    data = data_set()
    data.add(GOOD)
    data.add("0 2 0.5 0.2 0.2\n0 0.5 0.5 nan 0.2\n")
    layout = RunLayout(tmp_path / "run")
    layout.run.mkdir()
    layout.args_yaml.write_text(f"data: {data.yaml}\ntask: detect\nimgsz: 320\n")
    return layout


def test_clean_is_0_and_errors_are_1(data_set, capsys):
    data = data_set()
    data.add(GOOD)
    assert main(["labels", str(data.yaml)]) == 0
    assert "nothing wrong" in capsys.readouterr().out
    data.add("0 2 0.5 0.2 0.2\n")
    assert main(["labels", str(data.yaml)]) == 1
    out = capsys.readouterr().out
    assert "outside" in out
    assert "drops 1 image" in out


def test_missing_file_is_2_and_one_line(capsys):
    assert main(["labels", "/nowhere/data.yaml"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_json(run, capsys):
    assert main(["labels", str(run.run), "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["images"], document["labels"], document["boxes"], document["errors"]) == (2, 2, 3, 2)
    assert document["counts"] == {"not_finite": 1, "outside": 1}
    assert {"file", "line", "kind", "text"} <= set(document["issues"][0])


def test_json_without_issues_is_json(data_set, capsys):
    data = data_set()
    data.add(GOOD)
    assert main(["labels", str(data.yaml), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["issues"] == []


def test_csv(run, capsys):
    assert main(["labels", str(run.run), "--csv"]) == 1
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["kind"] for row in rows] == ["outside", "not_finite"]
    assert [row["line"] for row in rows] == ["1", "2"]


def test_only_the_first_twenty_are_shown(data_set, capsys):
    data = data_set()
    for _ in range(30):
        data.add("0 2 0.5 0.2 0.2\n")
    main(["labels", str(data.yaml)])
    assert capsys.readouterr().out.count("outside: x 2") == 20


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--imgsz", "0"], "--imgsz 0"),
        (["--jobs", "-3"], "--jobs -3"),
        (["--csv", "--json"], "choose one"),
        (["--leave-out", "no.jpg", "--yes"], "no such image"),
        (["--split", "nope"], "--split nope"),
        (["--split", "test"], "no 'test:'"),
        (["--task", "nope"], "task 'nope'"),
    ],
)
def test_what_makes_no_sense_is_2_and_changes_nothing(run, capsys, words, said):
    assert main(["labels", str(run.run), *words]) == 2
    out = capsys.readouterr()
    assert said in out.err and out.out == ""
    assert quarantined(run) == []


def test_quarantine_needs_a_run_and_an_answer(run, data_set, capsys):
    data = data_set()
    data.add(GOOD)
    assert main(["labels", str(data.yaml), "--quarantine"]) == 2
    assert main(["labels", str(run.run), "--quarantine", "--dry-run"]) == 1
    assert quarantined(run) == []
    assert main(["labels", str(run.run), "--quarantine", "--yes"]) == 1
    (image,) = quarantined(run)
    assert image.endswith("images/train/00002.jpg")
    assert main(["labels", str(run.run), "--undo-quarantine", "--yes"]) == 0
    assert quarantined(run) == []
    assert main(["labels", str(run.run), "--undo-quarantine", "--yes"]) == 1


def test_quarantine_changes_are_journaled_and_taken_back_one_by_one(tmp_path):
    layout = RunLayout(tmp_path)
    assert quarantine_add(layout, ["/a.jpg", "/b.jpg", "/a.jpg"], "test") == ["/a.jpg", "/b.jpg"]
    assert quarantine_add(layout, ["/b.jpg", "/c.jpg"], "test") == ["/c.jpg"]
    Journal(layout.journal).append("note", text="taken off by hand", quarantine={"removed": ["/a.jpg"]})
    layout.quarantine.write_text("/b.jpg\n/c.jpg\n")
    assert quarantined(layout) == ["/b.jpg", "/c.jpg"]
    assert [note.quarantine for note in of_kind(Journal(layout.journal).events(), Note)] == [
        QuarantineChange(added=("/a.jpg", "/b.jpg")),
        QuarantineChange(added=("/c.jpg",)),
        QuarantineChange(removed=("/a.jpg",)),
    ]
    states = []
    while quarantine_undo(layout):
        states.append(sorted(quarantined(layout)))
    assert states == [["/a.jpg", "/b.jpg", "/c.jpg"], ["/a.jpg", "/b.jpg"], []]


def test_a_quarantine_list_with_odd_names_survives(tmp_path):
    layout = RunLayout(tmp_path)
    odd = [
        "/with space.jpg",
        "/\u4e2d.jpg",
        "/\udcff.jpg",
        "/two\nlines.jpg",
        "/two\r\n\udcff.jpg",
        '/"quoted".jpg',
    ]
    quarantine_add(layout, odd, "test")
    assert quarantined(layout) == odd
    assert quarantine_undo(layout) and quarantined(layout) == []
    (added, undone) = Journal(layout.journal).events()
    assert added.quarantine.added == tuple(odd) and undone.quarantine.undo
    layout.quarantine.write_text('"no JSON\n/a.jpg\n')
    assert quarantined(layout) == ['"no JSON', "/a.jpg"], "what people write by hand stays as it is"


def test_an_image_whose_name_has_a_line_break_is_left_out_and_comes_back(run, capsys):
    image = run.run.parent / "one\nimage.jpg"
    image.write_bytes(b"")
    assert main(["labels", str(run.run), "--leave-out", str(image), "--yes"]) == 0
    assert quarantined(run) == [str(image)]
    assert main(["labels", str(run.run), "--undo-quarantine", "--yes"]) == 0
    assert quarantined(run) == []


def test_a_list_that_cannot_be_read_is_said_and_nothing_on_it_comes_back(run, capsys):
    quarantine_add(run, ["/a.jpg"], "test")
    kept = run.quarantine.rename(run.quarantine.with_name("kept.txt"))
    run.quarantine.mkdir()
    for words in (["--quarantine", "--yes"], ["--undo-quarantine", "--yes"]):
        assert main(["labels", str(run.run), *words]) == 3
        (said,) = [line for line in capsys.readouterr().err.splitlines() if "cannot be read" in line]
        assert (
            str(run.quarantine) in said
            and "make it readable, or move it aside to train on all images" in said
        )
    run.quarantine.rmdir()
    kept.rename(run.quarantine)
    assert quarantined(run) == ["/a.jpg"]


def test_progress_has_rate_and_eta(monkeypatch):
    clock, shown = iter((10.0, 12.0, 14.0)), io.StringIO()
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    show = progress_line(shown)
    assert not show(50, 100) and not show(100, 100)
    lines = shown.getvalue().replace("\x1b[K", "").split("\r")
    assert lines == ["", "50/100 files, 25/s, 2 s left", "100/100 files, 25/s, 0 s left"]


def test_file_names_that_are_not_utf8_can_be_reported(data_set, capfdbinary):
    data = data_set()
    label = data.add("0 2 0.5 0.2 0.2\n")
    image = data.root / "images" / "train" / "00001.jpg"
    label.rename(label.with_name("\udcff.txt"))
    image.rename(image.with_name("\udcff.jpg"))
    for option in ("--json", "--csv"):
        assert main(["labels", str(data.yaml), option]) == 1
        assert b"udcff" in capfdbinary.readouterr().out
    assert main(["labels", str(data.yaml)]) == 1
