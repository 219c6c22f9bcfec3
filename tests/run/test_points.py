"""Headers of step points: what counts as a point, in which order, and what a foreign header may say."""

from __future__ import annotations

import hashlib
import json

import pytest

from nantui.errors import UserError
from nantui.run.layout import RunLayout
from nantui.run.points import (
    StepPoint,
    differences,
    in_words,
    is_whole,
    read_point,
    refuse_gone,
    step_points,
    write_header,
)


def leave(layout: RunLayout, name: str, t: float, data: bytes = b"weights") -> StepPoint:
    layout.points.mkdir(parents=True, exist_ok=True)
    layout.point(name).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    training = {"world_size": 1, "batch": 8}
    point = StepPoint(name, 2, 3, 5, 20, 44, t, len(data), digest, training)
    write_header(layout, point)
    return point


def test_points_come_back_as_written_the_newest_first(tmp_path):
    layout = RunLayout(tmp_path)
    assert step_points(layout) == ()
    older, newer = leave(layout, "b", 10.0), leave(layout, "a", 20.0)
    assert step_points(layout) == (newer, older)
    assert newer.path == "nantui/points/a.pt" and layout.run / newer.path == layout.point("a")
    assert newer.epochs_done == 2.25 and is_whole(layout, newer)


def test_a_file_that_is_not_the_headers_is_no_point(tmp_path):
    layout = RunLayout(tmp_path)
    point = leave(layout, "a", 1.0)
    layout.point("a").write_bytes(b"WEIGHTS")
    assert read_point(layout, "a") == point and not is_whole(layout, point)
    layout.point("a").write_bytes(b"torn")
    assert read_point(layout, "a") is None
    layout.point("a").unlink()
    assert read_point(layout, "a") is None and not is_whole(layout, point)


def test_a_header_of_the_wrong_kind_is_none(tmp_path):
    layout = RunLayout(tmp_path)
    leave(layout, "a", 1.0)
    whole = json.loads(layout.point_header("a").read_text())
    for name, odd in (("epoch", "3"), ("epoch", 0), ("t", None), ("training", []), ("digest", 7)):
        layout.point_header("a").write_text(json.dumps({**whole, name: odd}))
        assert read_point(layout, "a") is None, (name, odd)
    layout.point_header("a").write_text(json.dumps({**whole, "of_a_later_version": 1}))
    assert read_point(layout, "a") is not None


def test_what_differs_is_said_in_words():
    there = {"world_size": 2, "batch": 16, "data": "/d.yaml"}
    assert differences(there, there) == []
    assert differences(there, {**there, "world_size": 1}) == ["processes: 2 there, 1 here"]
    assert differences({}, there) == []


def test_a_point_has_a_name_for_commands_and_one_for_people(tmp_path):
    layout = RunLayout(tmp_path)
    assert leave(layout, "a", 1.0).label == "epoch3-step5"
    assert in_words("nantui/points/epoch134-step1240", 133) == "epoch 134 step 1,240"
    assert (
        in_words("epoch3.pt", 4) == "epoch3.pt (epoch 4)"
        and in_words("the beginning", None) == "the beginning"
    )
    for fine in ("epoch3-step5", "epoch3.pt", ""):
        refuse_gone(layout, fine)
    with pytest.raises(UserError, match="a newer step point has taken its place"):
        refuse_gone(layout, "epoch3-step4")
