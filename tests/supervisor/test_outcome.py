"""How an attempt ended, where no rank has said it."""

from dataclasses import replace

import pytest

from nantui.machine.process_identity import host_marks
from nantui.run.attempts import Attempt, RankExit, write_attempt, write_exit
from nantui.run.endings import Traces
from nantui.run.layout import RunLayout
from nantui.run.telemetry import header
from nantui.supervisor.outcome import ending_of

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
