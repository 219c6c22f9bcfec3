"""Writes survive a crash, and JSON never holds a literal that is not JSON."""

import json
import math
import os
import stat

import pytest

from nantui.run.atomic_files import read_json, to_json, write_atomic, write_json


def test_write_replaces_the_file_in_one_step(tmp_path):
    path = tmp_path / "state.json"
    write_atomic(path, "old")
    before = path.stat().st_ino
    write_atomic(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_ino != before, "the old bytes were overwritten in place"


def test_failed_write_keeps_the_old_file_and_leaves_nothing_beside(tmp_path, monkeypatch):
    path = tmp_path / "state.json"
    write_atomic(path, "old")

    def full_disk(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["state.json"]


def test_mode_is_the_one_asked_for(tmp_path):
    write_atomic(tmp_path / "secret", "x", mode=0o600)
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


def test_non_finite_numbers_become_their_names():
    text = to_json({"a": math.nan, "b": [math.inf, -math.inf], "c": 1.5})
    assert json.loads(text) == {"a": "nan", "b": ["inf", "-inf"], "c": 1.5}


@pytest.mark.parametrize("content", ["", "{", "[1]", "\xff"])
def test_what_is_no_object_reads_as_none(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_text(content, encoding="latin-1")
    assert read_json(path) is None


def test_round_trip(tmp_path):
    write_json(tmp_path / "x.json", {"a": 1})
    assert read_json(tmp_path / "x.json") == {"a": 1}
    assert read_json(tmp_path / "missing.json") is None


def test_a_pipe_in_the_place_of_a_file_blocks_nobody(tmp_path):
    from nantui.run.attempts import rank_events
    from nantui.run.growing_files import LineFollower
    from nantui.run.journal import Journal
    from nantui.run.results import read_results

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert read_json(pipe) is None
    assert LineFollower(pipe).read().lines == []
    assert read_results(pipe) == [] and rank_events(pipe) == [] and Journal(pipe).events() == []
