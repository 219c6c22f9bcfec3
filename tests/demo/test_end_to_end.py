"""The whole loop, for real: a training, a NaN, the alarm on the screen, R, and a finished run.

Nothing is taken from the cockpit's own say-so except what its screen shows; the rest is read from the
run's files by the same functions that prove the demo.
"""

import os
import signal
import subprocess
import sys
import time

import pytest

from nantui.demo import evidence
from nantui.demo.dataset import write_dataset
from nantui.demo.story import make_story
from nantui.run.layout import RunLayout
from nantui.run.spool import Command
from nantui.supervise.client import carry_out, create_run
from nantui.supervise.status import read_status

pytestmark = pytest.mark.training


@pytest.fixture
def training(tmp_path):
    """A demo run that has just been started; killed afterwards whatever happened."""
    story = make_story(write_dataset(tmp_path / "shapes"), tmp_path / "runs", seconds_per_step=0.3)
    run = create_run(story.train, story.ours, faults=story.faults)
    yield run
    if read_status(run).pids:
        carry_out(run, Command("kill"))


def until(look, layout, seconds=180):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look(layout):
            return found
        time.sleep(0.2)
    raise AssertionError(f"{look.__name__}: not seen; screen of the run: {read_status(layout.run)}")


def test_alarm_recover_and_finish_with_the_cockpit_killed_in_between(training, terminal):
    layout = RunLayout(training)
    first = terminal(training)
    first.wait_for("demo")
    until(evidence.alarm_raised, layout)
    first.wait_for("NaN", seconds=20)
    assert first.kill(signal.SIGHUP) is not None
    assert read_status(training).state == "running", "the training must survive its terminal"

    second = terminal(training, columns=160, lines=45)
    until(evidence.badges_turned, layout)
    second.wait_for("corrupt", "clean", seconds=30)
    second.press("R")
    dialog = second.wait_for("epoch6.pt", "lr0", seconds=60)
    assert "Cancel" in dialog
    second.press("y")
    until(evidence.recovery_asked, layout, 30)
    second.kill(signal.SIGKILL)

    until(evidence.rolled_back, layout)
    third = terminal(training)
    until(evidence.settings_in_effect, layout)
    until(evidence.one_step_lost, layout)
    until(evidence.finished, layout)
    third.wait_for("finished", seconds=20)
    assert third.quit() == 0
    assert read_status(training).pids == ()


def test_headless_demo_proves_itself(tmp_path):
    demo = subprocess.run(
        [sys.executable, "-m", "nantui", "demo", "--headless", "--dir", str(tmp_path / "demo")],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=500,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "act two" in demo.stdout and "FAILED" not in demo.stdout
