"""The whole loop, for real: a training, a NaN, the alarm on the screen, R, and a finished run.

Nothing is taken from the cockpit's own say-so except what its screen shows; the rest is read from the
run's files by the same functions that prove the demo.
"""

import itertools
import os
import signal
import subprocess
from pathlib import Path

import pytest

from benchmarks.demo_environments import read
from nantui.demo import evidence, headless, story
from nantui.demo.story import ACT_ONE
from nantui.errors import FAILED
from nantui.run.commands import Command
from nantui.run.layout import RunLayout
from nantui.supervisor.client import carry_out
from nantui.supervisor.status import read_status

pytestmark = pytest.mark.training


@pytest.fixture
def training(tmp_path, warm_python, monkeypatch):
    """A demo run that has just been started, of half the steps in the same time; killed afterwards."""
    monkeypatch.setattr(story, "IMAGES", story.IMAGES // 2)
    run = story.start(tmp_path, seconds_per_step=0.16, python=warm_python)
    yield run
    if read_status(run).pids:
        carry_out(run, Command("kill"))


def until(look, layout):
    return headless.wait_for(look.__name__, look, layout)


def test_alarm_recover_and_finish_with_the_cockpit_killed_in_between(training, terminal):
    layout = RunLayout(training)
    first = terminal(training)
    first.wait_for("demo")
    until(evidence.alarm_raised, layout)
    first.wait_for("NaN")
    assert first.kill(signal.SIGHUP) is not None
    assert read_status(training).state == "running", "the training must survive its terminal"

    second = terminal(training, columns=160, lines=45)
    until(evidence.badges_turned, layout)
    second.wait_for("corrupt", "clean")
    second.press("R")
    dialog = second.wait_for(f"epoch{ACT_ONE['epoch'] - 2}.pt", "guard", "protect")
    assert "Cancel" in dialog
    second.press("y")
    until(evidence.recovery_asked, layout)
    second.kill(signal.SIGKILL)

    until(evidence.rolled_back, layout)
    third = terminal(training)
    until(evidence.settings_in_effect, layout)
    until(evidence.one_step_lost, layout)
    until(evidence.finished, layout)
    third.wait_for("finished")
    assert third.quit() == 0
    assert read_status(training).pids == ()


def test_headless_demo_proves_itself(tmp_path, warm_python):
    place = str(tmp_path / "demo")
    demo = subprocess.run(
        [warm_python, "-m", "nantui", "demo", "--headless", "--dir", place, "--seed", "7"],
        capture_output=True, text=True, stdin=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert "act two" in demo.stdout and "FAILED" not in demo.stdout
    against = read(Path(place) / "runs" / "demo")[-1]
    assert not against, "a calm training: validation losses fall, and nothing alarms but what was planted"


def test_a_demo_that_fails_ends_its_training_and_names_the_logs(training, monkeypatch, capsys):
    def against_the_story(layout):
        assert read_status(training).pids
        raise evidence.Failed("it is not as planted")

    monkeypatch.setattr(headless, "BEFORE", (headless.BEFORE[0], ("second", against_the_story)))
    assert headless.play(training, headless.Stages()) == FAILED
    assert read_status(training).pids == ()
    layout, said = RunLayout(training), capsys.readouterr().out
    for word in ("it is not as planted", str(layout.attempt_log(1)), str(layout.supervisor_log)):
        assert word in said
    assert layout.attempt_log(1).stat().st_size and layout.supervisor_log.exists()


def test_a_stage_may_take_long_while_the_run_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(headless, "PATIENCE_S", 0.5)
    layout, looks = RunLayout(tmp_path), itertools.count()
    layout.attempts.mkdir(parents=True)

    def look(layout):
        number = next(looks)
        with layout.steps(1).open("a") as steps:
            steps.write("a step\n")
        return "seen" if number == 8 else None

    assert headless.wait_for("slow", look, layout, every_s=0.2) == "seen"
    with pytest.raises(evidence.Failed, match="nothing written"):
        headless.wait_for("silent", lambda layout: None, layout, every_s=0.1)
