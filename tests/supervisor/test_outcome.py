"""How an attempt ended, where no rank has said it."""

import pytest

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
        ("step 7\n", -9, "killed by SIGKILL, perhaps by the kernel for lack of memory; last words: step 7"),
    ],
)
def test_the_log_and_the_exit_status_tell(tmp_path, log, code, text):
    layout = RunLayout(tmp_path)
    layout.attempts.mkdir(parents=True)
    layout.attempt_log(1).write_text(log)
    ending = ending_of(layout, 1, code=code)
    assert (ending.outcome, ending.text) == ("failed", text)


def test_a_training_that_ends_its_own_process_was_seen_to_train(tmp_path):
    layout = RunLayout(tmp_path)
    layout.attempts.mkdir(parents=True)
    columns = header(("box_loss",))
    cells = dict.fromkeys(columns, "1.0") | {"epoch": "3", "step": "5", "steps": "6", "skipped": "0"}
    layout.steps(1).write_text(",".join(columns) + "\n" + ",".join(cells[name] for name in columns) + "\n")
    text = ending_of(layout, 1, code=0).text
    assert "in epoch 3, after step 5" in text and UNSEEN not in text
