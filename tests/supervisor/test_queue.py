"""The queue: in order, each run once, whatever kills the process that serves it; devices; bad input."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from nantui import entry_points
from nantui.cli import main
from nantui.commands import queue
from nantui.errors import UserError
from nantui.machine.gpus import SILENT, Gpu
from nantui.run.events import AttemptStarted, of_kind
from nantui.run.journal import Journal
from nantui.supervisor.queue import entries
from nantui.supervisor.queue.devices import look, turns
from nantui.supervisor.queue.entries import GOING, WAITING, Entry, Queue, change, read_queue, wake
from nantui.supervisor.status import read_status
from tests.supervisor.stub_run import PYTHON, StubRun
from tests.waiting import eventually


@pytest.fixture
def process(monkeypatch):
    """Note the queue's processes that `wake` starts; none is left after the test."""
    started = []
    popen = subprocess.Popen

    def noted(argv, **how):
        if entry_points.QUEUE not in argv:
            return popen(argv, **how)
        started.append(popen([PYTHON, *argv[1:]], **how))  # the very process is killed
        return started[-1]

    monkeypatch.setattr(entries.subprocess, "Popen", noted)
    yield started
    for child in started:
        child.kill()
        child.wait()


@pytest.fixture
def queued(make_run):
    """Return a maker of runs that wait in the queue, on the CPU."""

    def add(*names, **how):
        runs = [make_run(name, start=False, **{"epochs": 1, **how}) for name in names]
        new = [Entry(0, str(run.path), os.getcwd(), "cpu") for run in runs]
        change(lambda queue: queue.added(new, dict(os.environ)))
        return runs

    return add


def states():
    return [entry.state for entry in read_queue().entries]


def begun(run: StubRun):
    """Return when each attempt of a run began."""
    return [event.t for event in of_kind(Journal(run.layout.journal).events(), AttemptStarted)]


def test_each_trains_once_in_order_though_one_is_broken_and_the_process_is_killed(queued, process):
    runs = queued("first", "second", "broken", "fourth")
    gone = runs[2].path.rename(runs[2].path.with_name("elsewhere"))
    wake()
    for run in (runs[0], runs[1]):
        eventually(lambda run=run: begun(run) != [], lambda: str(states()))
        process[-1].kill()
        process[-1].wait()
        wake()
    eventually(lambda: not read_queue().busy, lambda: str(states()))
    assert states() == ["finished", "finished", "failed", "finished"]
    assert "not there any more" in read_queue().entries[2].text and not begun(StubRun(gone))
    times = [begun(run) for run in (runs[0], runs[1], runs[3])]
    assert [len(one) for one in times] == [1, 1, 1] and times == sorted(times)
    eventually(lambda: process[-1].poll() == 0)


def test_a_start_that_was_written_down_and_not_asked_for_is_made_up_for_once(queued, process):
    (run,) = queued("only")
    (entry,) = read_queue().entries
    assert entries.update(entry, replace(entry, state=GOING, on=["cpu"]))
    wake()
    eventually(lambda: states() == ["finished"], lambda: str(read_status(run.path)))
    assert len(begun(run)) == 1


def test_a_supervisor_that_ends_brings_the_killed_process_back(queued, process):
    first, second = queued("first", "second")
    wake()
    eventually(lambda: begun(first) != [])
    process[-1].kill()
    process[-1].wait()
    eventually(lambda: begun(second) != [], lambda: str(states()))
    eventually(lambda: states() == ["finished", "finished"])


def test_a_second_process_says_that_there_is_one():
    with entries.served() as held:
        assert held and entries.is_served()
        argv = [sys.executable, "-m", entry_points.QUEUE]
        second = subprocess.run(argv, capture_output=True, text=True, cwd="/", check=False)
    assert second.returncode == 3 and second.stderr.count("\n") == 1 and "another process" in second.stderr
    assert not entries.is_served()


def test_what_waits_shows_its_place_and_can_be_moved_removed_paused(queued, capsys):
    one, two, three = queued("one", "two", "three")
    assert main(["queue", "pause"]) == 0
    assert (read_status(two.path).state, read_status(two.path).place) == ("queued", 2)
    assert "paused" in read_status(two.path).text
    assert main(["queue", "move", "3", "1"]) == 0
    assert [Path(entry.run).name for entry in read_queue().entries] == ["three", "one", "two"]
    assert main(["queue", "remove", "1", "2", "--yes"]) == 0
    assert not one.path.exists() and not two.path.exists() and three.path.exists()
    capsys.readouterr()
    assert main(["queue", "list", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["paused"] and [row["number"] for row in told["runs"]] == [3]


@pytest.mark.parametrize(
    "words",
    [
        ["move", "9", "1"],
        ["move", "1"],
        ["remove", "9"],
        ["remove"],
        ["remove", "x"],
        ["add", "epochs=1"],
        ["add", "lr0=1", "--exec", "python x.py"],
    ],
)
def test_bad_words_are_one_line(words, queued, capsys):
    queued("one")
    main(["queue", "pause"])
    before = read_queue()
    capsys.readouterr()
    assert main(["queue", *words, "--yes"]) == 2
    assert capsys.readouterr().err.count("\n") == 1 and read_queue() == before


def test_a_file_that_is_no_queue_is_never_written_over(queued):
    queued("one")
    entries.queue_file().write_text("{")
    with pytest.raises(UserError, match="mend it"):
        change(lambda queue: queue)
    assert entries.queue_file().read_text() == "{"


def test_nobody_else_may_read_it(queued):
    queued("one")
    assert {stat.S_IMODE(path.stat().st_mode) for path in entries.folder().iterdir()} == {0o600}
    assert stat.S_IMODE(entries.folder().stat().st_mode) == 0o700


def test_thousands_take_room_in_proportion_and_what_has_ended_goes():
    def filled(amount, state=WAITING):
        new = [Entry(0, f"/runs/train{number}", "/", state=state) for number in range(amount)]
        return change(lambda queue: Queue().added(new, {"PATH": "/bin"}))

    filled(1000)
    thousand = entries.queue_file().stat().st_size
    filled(4000)
    assert entries.queue_file().stat().st_size < 4.2 * thousand
    assert len(filled(1000, "finished").entries) == entries.KEPT_ENDED


def test_each_and_a_list_of_runs_are_every_combination(tmp_path, capsys):
    listed = tmp_path / "runs.yaml"
    listed.write_text("- {imgsz: 64}\n- {imgsz: 96, epochs: 1}\n")
    words = [
        "--runs",
        str(listed),
        "model=m.yaml",
        "data=d.yaml",
        "--each",
        "batch=4,8",
        "--each",
        "freeze=[0,1],2",
    ]
    assert main(["queue", "add", "epochs=3", *words, "--dry-run"]) == 0
    told = [line.split() for line in capsys.readouterr().err.splitlines() if line.startswith("would add")]
    assert len(told) == 8 and len({" ".join(line) for line in told}) == 8
    assert {"imgsz=96", "epochs=3", "batch=8", "freeze=[0,", "1]"} <= {*told[-2]}
    listed.write_text("- {imgsz: 64}\n- {imgsze: 96}\n")
    assert main(["queue", "add", *words]) == 2
    assert "run 2: unknown setting 'imgsze'" in (told := capsys.readouterr().err) and told.count("\n") == 1


def gpu(index, used=0.0):
    return Gpu(index, "GPU", 80.0, used, None, None, None, None, ())


def entry(number, device, state=WAITING, on=(), share=False):
    return Entry(number, f"/runs/{number}", "/", device, share, state=state, on=list(on))


def given(queue, gpus, peak=lambda entry: None):
    return {turn.entry.number: (list(turn.on), turn.device) for turn in turns(queue, gpus, peak) if turn.on}


def test_runs_go_in_order_on_devices_that_nobody_before_them_waits_for():
    gpus = (gpu(0, used=40.0), gpu(1), gpu(2), gpu(3))
    waiting = (
        entry(1, "0,1"),
        entry(2, "1"),
        entry(3, "-1"),
        entry(4, "-1,-1"),
        entry(5, "cpu"),
        entry(6, "3"),
    )
    assert given(Queue(waiting), gpus) == {3: (["2"], "2"), 5: (["cpu"], "")}
    reasons = {turn.entry.number: turn.waits_for for turn in turns(Queue(waiting), gpus, lambda entry: None)}
    assert "40.0 of 80.0 GB" in reasons[1] and "#1 (1) waits" in reasons[2]
    assert "2 free, there are 1" in reasons[4] and "#4 (4) waits" in reasons[6]


def test_a_driver_that_does_not_answer_is_not_asked_for_the_cpu_and_refuses_nobody(monkeypatch, capsys):
    silent = SimpleNamespace(asked=0)

    def sample(pids=()):
        silent.asked += 1
        return SimpleNamespace(gpus=(), note=SILENT)

    silent.sample = sample
    turns = look(Queue((entry(1, "cpu"),)), silent, set())
    assert [list(turn.on) for turn in turns] == [["cpu"]] and silent.asked == 0
    look(Queue((entry(1, "cpu"), entry(2, "-1"))), silent, set())
    assert silent.asked == 1
    monkeypatch.setattr(queue, "Sampler", lambda: silent)
    add = ["queue", "add", "model=yolo11n.yaml", "data=coco8.yaml", "device=-1", "--dry-run"]
    assert main(add) == 0 and "would add" in capsys.readouterr().err
    monkeypatch.setattr(queue, "SILENT", "")
    assert main(add) == 2 and "0 are seen here" in capsys.readouterr().err


def test_numbers_are_those_that_the_run_sees():
    queue = Queue(
        (replace(entry(1, "-1"), environment="e"),), environments={"e": {"CUDA_VISIBLE_DEVICES": "3,2"}}
    )
    assert given(queue, (gpu(2, used=80.0), gpu(3))) == {1: (["3"], "0")}


@pytest.mark.parametrize(
    ("share", "peak", "starts"),
    [(True, 30.0, True), (True, 50.0, False), (True, None, False), (False, 1.0, False)],
)
def test_two_share_a_gpu_where_both_may_and_their_peaks_fit(share, peak, starts):
    queue = Queue((entry(1, "0", GOING, ["0"], share=True), entry(2, "0", share=share)))
    assert (2 in given(queue, (gpu(0),), lambda entry: peak)) is starts
