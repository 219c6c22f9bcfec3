"""Real trainings of a real YOLO on drawn shapes: killed, stopped, resumed; nothing is left, they finish."""

from __future__ import annotations

import signal
import sys

import pytest

from nantui import entry_points
from nantui.demo.story import write_dataset
from nantui.machine.process_tree import argv_of, send
from nantui.run.attempts import read_attempt
from nantui.run.results import current, read_results
from nantui.supervisor.client import create_run
from nantui.supervisor.config import Patience
from nantui.supervisor.state import read_state
from tests import waiting
from tests.supervisor.stub_run import StubRun
from tests.waiting import eventually

pytestmark = pytest.mark.training


@pytest.fixture(scope="session")
def shapes(tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("shapes"))


@pytest.fixture
def train(tmp_path, shapes, monkeypatch, own_home, warm_python):
    """Start a real training; yields a function of the arguments that differ."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(waiting, "PATIENCE_S", 180.0)
    patience = f"{{stop_s: 60, tick_s: 0.1, idle_exit_s: 1, other_phase_s: {Patience().other_phase_s}}}"
    (own_home / "config" / "nantui" / "supervise.yaml").write_text(f"patience: {patience}\n")
    made = []

    def start(faults=(), ours=None, python=warm_python, **changes):
        arguments = {
            "model": "yolov8n.yaml", "data": str(shapes), "imgsz": 64, "batch": 8, "epochs": 2,
            "device": "cpu", "workers": 0, "plots": False, "fraction": 0.34,
            "project": str(tmp_path / "runs"), "name": "real",
        }  # fmt: skip
        made.append(StubRun(create_run({**arguments, **changes}, ours, faults=faults, python=python)))
        return made[-1]

    yield start
    for run in made:
        for ref in run.members():
            send(ref, signal.SIGKILL)


def test_killed_with_its_supervisor_it_is_resumed_with_other_settings_and_finishes_every_epoch(train):
    waits_in_epoch_2 = {"fault": "slow_step", "epoch": 2, "attempt": 1, "seconds": 600.0}
    run = train(faults=[waits_in_epoch_2])
    eventually(lambda: run.layout.last.is_file(), lambda: str(run.status()))
    run.kill_supervisor()
    for ref in run.members():
        send(ref, signal.SIGKILL)
    run.await_state("lost")
    assert run.members() == []
    outcome = run.do("resume", set={"lr0": 0.0007})
    assert outcome.ok, outcome.text
    run.await_state("finished")
    rows = current(read_results(run.layout.results_csv))
    assert [row.epoch for row in rows] == [1, 2]
    effect = [entry for entry in run.journal() if entry["kind"] == "in_effect"][-1]
    assert effect["values"]["lr0"] == 0.0007 and effect["differences"] == []


def test_two_ranks_agree_on_one_step_to_go_back_and_to_stop_also_under_a_new_supervisor(train):
    run = train(device="cpu,cpu", epochs=500, ours={"step_points": 0.1}, python=sys.executable)
    run.await_state("running")
    assert len(run.status().pids) == 3, "torchrun and two ranks"
    eventually(lambda: any(run.layout.points.glob("*.json")), lambda: str(run.status()))
    outcome = run.do("rewind")
    assert outcome.ok and "went back in memory to epoch" in outcome.text
    assert run.status().attempt == 1, "nothing was started anew"
    run.kill_supervisor()
    outcome = run.do("stop")
    assert outcome.ok, outcome.text
    assert run.status().state == "stopped" and "killed" not in run.status().text
    exits = [run.layout.exit(1, rank).read_text() for rank in (0, 1)]
    assert all('"stopped"' in text for text in exits)
    assert run.members() == []


def test_what_a_worker_that_was_brought_up_early_trains_is_what_one_that_was_not_trains(train, tmp_path):
    run = train(faults=[{"fault": "slow_step", "epoch": 2, "attempt": 1, "seconds": 600.0}])
    eventually(lambda: run.layout.last.is_file(), lambda: str(run.status()))
    assert run.do("kill").ok
    other = tmp_path / "other-python"
    other.write_text(f'#!/bin/sh\nexec "{read_attempt(run.layout, 1).python}" "$@"\n')
    other.chmod(0o755)
    import torch  # here, not above: `make quick` collects this file in processes that have none

    trained = []
    for number, python in enumerate((None, str(other)), 2):
        outcome = run.do("resume", set={"lr0": 0.0007}, **({"python": python} if python else {}))
        assert outcome.ok, outcome.text
        early = entry_points.WAITING in argv_of(read_state(run.layout.supervisor).worker.pid)
        assert early == (python is None)
        run.await_state("finished")
        log = run.layout.attempt_log(number).read_text()
        assert "begun anew" not in log and "Starting training for 2 epochs" in log
        rows = [row.values for row in current(read_results(run.layout.results_csv))]
        model = torch.load(run.layout.last, weights_only=False)["model"].state_dict()
        trained.append((rows, {name: one.numpy().tobytes() for name, one in model.items()}))
        assert run.do("undo").ok
    assert trained[0] == trained[1], "losses and every weight to the bit"
