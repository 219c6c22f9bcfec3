"""Live files are read in whole lines, a bounded chunk at a time, whatever their writer does."""

import math
import os
from itertools import pairwise

from nantui.run.growing_files import LONGEST_LINE, LineFollower
from nantui.run.telemetry import StepFollower, header, parse_steps, read_steps


def test_a_torn_line_waits_for_its_end(tmp_path):
    path = tmp_path / "log"
    follower = LineFollower(path)
    assert follower.read().lines == []
    path.write_text("one\ntw")
    assert follower.read().lines == ["one"]
    with path.open("a") as file:
        file.write("o\nthree\n")
    assert follower.read().lines == ["two", "three"]


def test_chunks_are_bounded_and_nothing_is_lost(tmp_path):
    path = tmp_path / "log"
    lines = [f"line {number}" for number in range(1000)]
    path.write_text("\n".join(lines) + "\n")
    follower, got, looks = LineFollower(path), [], 0
    while True:
        new = follower.read(100)
        got += new.lines
        looks += 1
        if not new.more:
            break
    assert got == lines
    assert looks > 50


def test_a_replaced_or_shortened_file_is_read_again(tmp_path):
    path = tmp_path / "log"
    path.write_text("a\nb\n")
    follower = LineFollower(path)
    follower.read()
    path.write_text("c\n")
    new = follower.read()
    assert (new.lines, new.restarted) == (["c"], True)
    (tmp_path / "other").write_text("d\nlonger than before\n")
    os.replace(tmp_path / "other", path)
    assert follower.read().lines == ["d", "longer than before"]


def test_a_tail_begins_at_a_line(tmp_path):
    path = tmp_path / "log"
    path.write_text("".join(f"line {number}\n" for number in range(100)))
    assert LineFollower(path, tail_bytes=20).read().lines == ["line 98", "line 99"]


def test_a_line_without_end_does_not_fill_the_memory(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"x" * (LONGEST_LINE * 3))
    follower = LineFollower(path)
    assert sum(len(line) for line in follower.read(1 << 20).lines) == LONGEST_LINE * 3
    assert follower.read().lines == []


def test_steps_are_read_as_they_are_written(tmp_path):
    path = tmp_path / "001.steps.csv"
    names = header(("box_loss", "cls_loss"))
    path.write_text(",".join(names) + "\n")
    follower = StepFollower(path)
    assert follower.read() == ([], False)
    with path.open("a") as file:
        file.write("10.5,1,3,20,1,nan_gradient,nan,2.5,inf,0.01,,0.2,40,1.5,2,1.2,7,64,0.01\n1,2")
    (step,), _ = follower.read()
    assert (step.epoch, step.step, step.steps, step.skipped, step.reason) == (1, 3, 20, True, "nan_gradient")
    assert math.isnan(step.losses["box_loss"]) and step.losses["cls_loss"] == 2.5
    assert step.value("grad_norm") == math.inf and math.isnan(step.value("loss_scale"))
    assert step.value("imgsz") == 64 and step.memory_peak() == (1.2, True)


def test_a_long_attempt_is_read_whole_and_nonsense_left_out(tmp_path):
    path = tmp_path / "001.steps.csv"
    rows = [f"10.5,1,{step},9,0,,2.5,9.0,0.01,,0.2,40,1.5,2,1.2,7,64,0.01\n" for step in range(1, 30_001)]
    path.write_text(",".join(header(("box_loss",))) + "\n" + "".join([*rows[:2], "no,step\n", *rows[2:]]))
    assert path.stat().st_size > 1 << 20, "more than is read at once"
    assert [step.step for step in read_steps(path)] == list(range(1, 30_001))
    assert read_steps(tmp_path / "missing.csv") == []


def test_steps_of_an_older_version_have_only_the_reserved_peak():
    columns = [name for name in header(("box_loss",)) if name != "alloc_peak_gb"]
    row = "10.5,1,3,20,0,,2.5,9.0,0.01,,0.2,40,1.5,2,7,64,0.01"
    (step,), _ = parse_steps([",".join(columns), row], [])
    assert step.memory_peak() == (2.0, False) and step.losses == {"box_loss": 2.5}


def test_a_long_file_is_opened_in_places_and_followed_from_its_end(tmp_path):
    path = tmp_path / "001.steps.csv"
    with path.open("w") as file:
        file.write(",".join(header(("box_loss",))) + "\n")
        for index in range(20_000):
            place = f"{index}.5,{index // 100 + 1},{index % 100 + 1},100"
            file.write(f"{place},0,,2.5,9.0,0.01,,0.2,40,1.5,2,1.2,7,64,0.01\n")
    follower = StepFollower(path, whole_bytes=1 << 20)
    assert not follower.opened and path.stat().st_size > 1 << 20
    steps, more = follower.read()
    times = [step.t for step in steps]
    assert follower.opened and follower.sampled and not more
    assert times == sorted(times) and times[0] < 100 and times[-1] == 19_999.5
    assert max(after - before for before, after in pairwise(times)) < 100, "spread over the whole file"
    assert times[-1000:] == [index + 0.5 for index in range(19_000, 20_000)], "none is left out at its end"
    with path.open("a") as file:
        file.write("20000.5,201,1,100,0,,2.5,9.0,0.01,,0.2,40,1.5,2,1.2,7,64,0.01\n")
    assert [step.epoch for step in follower.read()[0]] == [201]


def test_a_file_that_is_short_when_it_is_opened_is_read_whole(tmp_path):
    path = tmp_path / "001.steps.csv"
    path.write_text(",".join(header(("box_loss",)))[:-4])
    follower = StepFollower(path, whole_bytes=1 << 20)
    assert follower.read() == ([], False) and not follower.opened
    rows = "1.5,1,1,9,0,,2.5,9.0,0.01,,0.2,40,1.5,2,1.2,7,64,0.01\n" * 3
    path.write_text(",".join(header(("box_loss",))) + "\n" + rows)
    assert len(follower.read()[0]) == 3 and follower.opened and not follower.sampled
