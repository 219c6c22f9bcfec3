"""Start, stop, kill: on real processes, with nothing left afterwards."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from nantui.cli import main
from nantui.run.commands import Command
from nantui.run.spec import read_spec
from nantui.supervisor.client import submit, wait
from tests.supervisor.stub_run import StubRun
from tests.waiting import eventually


def test_start_stop_leaves_nothing(make_run):
    run = make_run()
    run.await_step()
    outcome = run.do("stop")
    assert outcome.ok, outcome.text
    assert run.members() == []
    assert run.status().state == "stopped"


def test_kill_ends_a_worker_that_ignores_sigterm_with_its_dataloaders(make_run):
    run = make_run(ignore_term=True, deaf=True)
    run.await_step()
    assert len(run.members()) == 3
    outcome = run.do("kill")
    assert outcome.ok, outcome.text
    assert run.members() == []
    assert run.status().state == "stopped"


def test_stop_escalates_when_nobody_agrees(make_run):
    run = make_run(deaf=True, ignore_term=True)
    run.await_step()
    outcome = run.do("stop")
    assert outcome.ok, outcome.text
    assert run.members() == []
    assert "killed by" in run.status().text


def test_the_time_until_it_escalates_is_shown_and_x_may_be_followed_by_X(make_run, own_home, capsys):
    config = own_home / "config" / "nantui" / "supervise.yaml"
    config.write_text(config.read_text().replace("stop_s: 3,", "stop_s: 600,"))
    run = make_run(deaf=True)
    run.await_step()
    stop = submit(run.path, Command("stop"))
    eventually(lambda: "SIGTERM in" in str(run.status().doing))
    assert main(["status", str(run.path)]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"stop: waiting for the agreed step.*; SIGTERM in \d+ s, x or X ends it now", shown)
    assert run.do("kill").ok
    assert wait(run.path, stop).ok
    assert run.members() == []


def test_a_stop_that_waits_names_the_rank_that_hangs_and_stop_now_cuts_it_short(make_run, own_home):
    config = own_home / "config" / "nantui" / "supervise.yaml"
    config.write_text(config.read_text().replace("stop_s: 3,", "stop_s: 600,"))
    run = make_run(devices=2)
    run.await_step()
    os.kill(run.rank_pid(1), signal.SIGSTOP)
    stop = submit(run.path, Command("stop"))
    hangs = r"no step for (\d+) s; rank 1 does not answer, state T\); SIGTERM in \d+ s"
    shown = eventually(lambda: re.search(hangs, str(run.status().doing)), lambda: str(run.status().doing))
    later = lambda: re.search(hangs, str(run.status().doing))[1] != shown[1]  # noqa: E731
    eventually(later, lambda: "for how long is said anew")
    begun = time.monotonic()
    assert main(["stop", str(run.path), "--now", "--yes"]) == 0
    assert wait(run.path, stop).ok and time.monotonic() - begun < 20
    assert run.members() == [] and run.status().state == "stopped"


def test_a_hung_step_is_waited_for_less_long_than_a_validation(make_run):
    run = make_run(deaf=True)
    run.await_step()

    def said(phase):
        with run.layout.events(1, 0).open("a") as file:
            file.write(json.dumps({"t": time.time(), "kind": "phase", "phase": phase}) + "\n")

    said("validating")
    stop = submit(run.path, Command("stop"))
    shown = eventually(lambda: re.search(r"validating to end; SIGTERM in (\d+) s", str(run.status().doing)))
    assert int(shown[1]) > 10
    said("training")
    begun = time.monotonic()
    assert wait(run.path, stop).ok and time.monotonic() - begun < 10
    assert run.members() == []


def test_several_ranks_start_and_stop_together(make_run):
    run = make_run(devices=2)
    run.await_step()
    eventually(lambda: len(run.members()) == 7, lambda: "launcher, two ranks, two dataloaders each")
    outcome = run.do("stop")
    assert outcome.ok and "; kept weights/nantui_stop.pt" in outcome.text
    assert run.members() == []


def test_a_kill_says_that_it_kept_no_stop_point(make_run):
    run = make_run()
    run.await_step()
    assert run.do("kill").text.endswith("; kept no stop point")


def test_failure_before_the_first_step_says_why_in_one_line(make_run):
    run = make_run(fail="CUDA out of memory")
    status = run.await_state("failed")
    assert status.text == "out of GPU memory: RuntimeError: CUDA out of memory"


def test_resume_continues_from_what_the_stop_left(make_run):
    run = make_run()
    run.await_step()
    run.do("stop")
    outcome = run.do("resume")
    assert outcome.ok, outcome.text
    assert "weights/nantui_stop.pt" in outcome.text
    assert run.await_step().attempt == 2


def test_recover_stops_rolls_back_and_continues(make_run):
    run = make_run()
    run.await_step()
    outcome = run.do("recover", set={"lr0": 0.001})
    assert outcome.ok, outcome.text
    assert run.await_step().attempt == 2
    kinds = [entry["kind"] for entry in run.journal()]
    assert kinds.index("attempt_ended") < len(kinds) - 1 - kinds[::-1].index("attempt_started")
    assert [entry["stage"] for entry in run.journal() if entry["kind"] == "stage"][0] == "stop"


def test_recover_into_a_new_run_leaves_the_old_one(make_run, tmp_path):
    run = make_run(steps=2, epochs=100000)
    eventually(run.layout.last.is_file)
    outcome = run.do("recover", into="second")
    assert outcome.ok, outcome.text
    second = StubRun(tmp_path / "runs" / "second")
    try:
        second.await_step()
        assert run.status().attempt == 1 and run.status().state == "stopped"
        assert not run.layout.corrupted_backup.exists()
        assert read_spec(second.layout.spec).train["save_dir"] == str(second.path)
    finally:
        second.do("kill")


@pytest.mark.parametrize("name", ["third", "second"])
def test_a_new_run_goes_on_beside_another_training_or_says_why_not(make_run, tmp_path, name):
    """Its args.yaml is as young as that of a training which has just been started and wrote none yet."""
    run = make_run(steps=2, epochs=100000)
    eventually(run.layout.last.is_file)
    (tmp_path / "train.py").write_text("import time\ntime.sleep(60)\n")
    words = [sys.executable, "train.py", f"project={run.path.parent}", f"name={name}"]
    second = StubRun(run.path.with_name("second"))
    with subprocess.Popen(words, cwd=tmp_path) as other:
        try:
            assert run.do("recover", into="second").ok
            if name == "third":
                second.await_step()
            else:
                assert "still training here: process" in second.await_state("failed").text
        finally:
            other.kill()
            second.do("kill")


def test_a_refused_recovery_leaves_the_state_as_it_was(make_run):
    run = make_run(diverge_at=[1, 3])
    run.await_state("diverged")
    outcome = run.do("recover", set={"act_fail": 1})
    assert not outcome.ok and outcome.text == "nothing clean is left"
    assert run.status().state == "diverged"
    assert run.status().attempt == 1
