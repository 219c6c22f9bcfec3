"""How an attempt ended, where no rank has said it."""

import os
import time
from dataclasses import replace

import pytest

from nantui.machine.process_identity import host_marks, ref_of, this_machine
from nantui.run.atomic_files import write_json
from nantui.run.attempts import Attempt, RankExit, write_attempt, write_exit
from nantui.run.endings import Traces
from nantui.run.journal import Journal
from nantui.run.layout import RunLayout
from nantui.run.telemetry import header
from nantui.supervisor.outcome import ending_of
from nantui.supervisor.state import SupervisorState, write_state
from nantui.supervisor.status import read_status
from tests.recovery import fakes

UNSEEN = "it ended with status 0, but no Ultralytics train() was seen in it"


@pytest.mark.parametrize(
    ("log", "code", "text"),
    [
        (
            "hello\n",
            0,
            f"{UNSEEN}; last words: hello",
        ),
        ("", 0, UNSEEN),
        ("Traceback\nValueError: no such data\n", 1, "ValueError: no such data"),
        ("", 3, "ended without a word (exit status 3)"),
        ("step 7\n", -9, "killed by SIGKILL; last words: step 7"),
    ],
)
def test_the_log_and_the_exit_status_tell(tmp_path, log, code, text):
    layout = RunLayout(tmp_path)
    layout.attempts.mkdir(parents=True)
    layout.attempt_log(1).write_text(log)
    ending = ending_of(layout, 1, Traces(code=code))
    assert (ending.outcome, ending.text) == ("failed", text)


def test_a_training_that_ends_its_own_process_was_seen_to_train(tmp_path):
    layout = RunLayout(tmp_path)
    layout.attempts.mkdir(parents=True)
    columns = header(("box_loss",))
    cells = dict.fromkeys(columns, "1.0") | {"epoch": "3", "step": "5", "steps": "6", "skipped": "0"}
    layout.steps(1).write_text(",".join(columns) + "\n" + ",".join(cells[name] for name in columns) + "\n")
    text = ending_of(layout, 1, Traces(code=0)).text
    assert "in epoch 3, after step 5" in text and UNSEEN not in text


def test_what_an_attempt_left_is_put_together(tmp_path):
    layout = RunLayout(tmp_path)
    (tmp_path / "data.yaml").write_text(f"path: {tmp_path}/set\ntrain: images\nval: images\n")
    marks = {**host_marks(), "job": "17"}
    attempt = Attempt(
        1, "u", 0.0, "start", None, {"data": str(tmp_path / "data.yaml")}, {}, "python", marks=marks
    )
    write_attempt(layout, attempt)
    layout.results_csv.write_text("epoch,time\n1,1\n")
    assert ending_of(layout, 1).cause.kind == "preempted", "its batch job is over"
    write_attempt(layout, replace(attempt, marks={**marks, "boot_id": "an earlier one"}))
    assert ending_of(layout, 1).cause.kind == "rebooted"
    write_attempt(layout, replace(attempt, marks={**marks, "oom_kills": -1, "job": ""}))
    assert ending_of(layout, 1).cause.kind == "host_oom"
    write_attempt(layout, replace(attempt, marks=host_marks()))
    assert ending_of(layout, 1, Traces(code=-9)).cause.kind == "killed"
    layout.attempt_log(1).write_text(f"FileNotFoundError: Image Not Found {tmp_path}/set/images/1.jpg\n")
    assert ending_of(layout, 1, Traces(code=1)).cause.kind == "data_gone"


def test_a_rank_that_another_left_behind_does_not_speak_for_it(tmp_path):
    layout = RunLayout(tmp_path)
    write_attempt(
        layout, Attempt(1, "u", 0.0, "start", None, {}, {}, "python", devices=2, marks=host_marks())
    )
    write_exit(
        layout, 1, RankExit("failed", 0, 1, 1, 0.0, text="RuntimeError: Connection closed", signal="SIGTERM")
    )
    layout.attempt_log(1).write_text("  exitcode  : -9 (pid: 12)\n")
    assert ending_of(layout, 1, Traces(code=1)).cause.kind == "killed"
    write_exit(
        layout, 1, RankExit("failed", 1, 2, 1, 0.0, text="RuntimeError: DataLoader worker", signal="SIGTERM")
    )
    assert ending_of(layout, 1, Traces(code=1)).cause.kind == "preempted", "every rank was told"


def two_ranks(tmp_path, *exits):
    """An attempt of two ranks that have ended so: outcome, text, signal."""
    layout = RunLayout(tmp_path)
    write_attempt(
        layout, Attempt(1, "u", 0.0, "start", None, {}, {}, "python", devices=2, marks=host_marks())
    )
    for rank, (outcome, text, signal) in enumerate(exits):
        write_exit(layout, 1, RankExit(outcome, rank, rank + 1, 1, 0.0, text=text, signal=signal))
    return layout


def test_a_rank_that_only_tells_of_those_that_were_told_was_told_as_well(tmp_path):
    told, echo = ("stopped", "before the first batch", "SIGTERM"), "RuntimeError: Connection closed by peer"
    assert ending_of(two_ranks(tmp_path, ("failed", echo, ""), told), 1).cause.kind == "preempted"
    own = two_ranks(tmp_path, ("failed", "ValueError: a reason of its own", ""), told)
    assert ending_of(own, 1, Traces(code=1)).cause.kind == "exception"


def test_what_finished_needs_no_other_word_though_it_was_told(tmp_path):
    done = ("finished", "", "SIGTERM")
    ending = ending_of(two_ranks(tmp_path, done, done), 1, Traces(signals=["SIGTERM"]))
    assert (ending.outcome, ending.cause.kind) == ("finished", "")


def test_a_signal_of_which_only_the_request_tells_is_remembered(tmp_path):
    stopped = ("stopped", "stopped in epoch 3", "")
    layout = two_ranks(tmp_path, stopped, stopped)
    write_json(layout.stop_request(1), {"id": "1", "by": "me@here", "signal": None})
    assert ending_of(layout, 1).cause.kind == "", "a person asked"
    write_json(layout.stop_request(1), {"id": "1", "by": "SIGTERM", "signal": "SIGTERM"})
    assert ending_of(layout, 1).cause.kind == "preempted"


def test_the_signal_that_ends_what_a_dead_worker_left_is_no_reason(tmp_path):
    """nantui ends torchrun then, which says so in the log."""
    layout = two_ranks(tmp_path)
    layout.attempt_log(1).write_text("SignalException: Process 77 got signal: 15\n")
    assert ending_of(layout, 1, Traces(code=-9)).cause.kind == "killed"
    assert ending_of(layout, 1, Traces(code=1)).cause.kind == "preempted", "torchrun itself was told"


def stepped(layout, number, epochs, epoch):
    """Attempt `number`, which stood in `epoch`."""
    write_attempt(
        layout, Attempt(number, f"u{number}", 1.0, "resume", None, {"epochs": epochs}, {}, "python")
    )
    columns = header(("box_loss",))
    cells = dict.fromkeys(columns, "1.0") | {"epoch": str(epoch), "step": "4", "steps": "4", "skipped": "0"}
    layout.steps(number).write_text("\n".join([",".join(columns), ",".join(cells.values()), ""]))


def test_after_an_undo_the_status_stands_where_the_attempt_before_ended(tmp_path):
    layout = fakes.make_run(tmp_path / "run")
    stepped(layout, 1, 8, 8)
    stepped(layout, 2, 10, 3)
    journal = Journal(layout.journal)
    journal.append("attempt_started", attempt=1, mode="start")
    journal.append("rollback_begun", id="r1", restore_point="weights/epoch1.pt", epoch=2, steps=[])
    journal.append("rollback_done", id="r1", text="")
    journal.append("attempt_started", attempt=2, mode="resume")
    state = SupervisorState(ref_of(os.getpid()), this_machine(), state="stopped", attempt=2)
    write_state(layout.supervisor, replace(state, heartbeat=time.time()))

    def stands():
        status = read_status(layout.run)
        return status.epoch, status.epochs

    assert stands() == (3, 10)
    journal.append("undo_done", id="u1", of="r1")
    assert stands() == (8, 8)
    stepped(layout, 3, 12, 5)
    assert stands() == (5, 12), "what `attach` began is not in the journal"
