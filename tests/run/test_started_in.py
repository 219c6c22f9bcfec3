"""A relative data set is found from any directory, in one order of places."""

from __future__ import annotations

from pathlib import Path

import pytest

from nantui.run.binding import bind
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.record import RunRecord, in_full, is_relative, places_of, started_in
from nantui.run.spec import Spec, to_yaml, write_spec


def run_with(top: Path, save_dir: Path) -> RunRecord:
    run = top / "runs/detect/train"
    run.mkdir(parents=True)
    (run / "args.yaml").write_text(to_yaml({"data": "made-here/d.yaml", "save_dir": str(save_dir)}))
    return RunRecord(RunLayout(run))


def put(place: Path) -> Path:
    (place / "made-here").mkdir(parents=True)
    (place / "made-here/d.yaml").touch()
    return place


def test_each_place_comes_before_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved_to, began_in = tmp_path / "moved", tmp_path / "began"
    record = run_with(moved_to, began_in / "runs/detect/train")
    monkeypatch.chdir(put(tmp_path / "looker"))
    assert started_in(record, "made-here/d.yaml") is None, "whoever looks stands somewhere else"
    assert in_full(record, record.args)["data"] == "made-here/d.yaml"
    assert started_in(record, "made-here/d.yaml") is None
    put(moved_to)
    assert started_in(record, "made-here/d.yaml") == moved_to
    put(began_in)
    assert started_in(record, "made-here/d.yaml") == began_in
    bind(record.run)
    write_spec(record.layout.spec, Spec({}, exec={"argv": ["yolo"], "cwd": str(put(tmp_path / "process"))}))
    again = RunRecord(record.layout)
    assert started_in(again, "made-here/d.yaml") == tmp_path / "process"
    Journal(record.layout.journal).append("created", cwd=str(put(tmp_path / "created")))
    last = RunRecord(record.layout)
    assert started_in(last, "made-here/d.yaml") == tmp_path / "created" == places_of(last)[0]
    assert in_full(last, last.args)["data"] == str(tmp_path / "created/made-here/d.yaml")


@pytest.mark.parametrize(
    ("name", "relative"),
    [
        ("made-here/d.yaml", True),
        ("coco8.yaml", True),
        ("/made-here/d.yaml", False),
        ("https://x/d.zip", False),
        (None, False),
    ],
)
def test_what_hangs_on_a_directory(name: object, relative: bool) -> None:
    assert is_relative(name) is relative
