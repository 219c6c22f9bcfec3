"""Signals as docker stop and batch systems send them, to a real training: a point is left, status 75."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from nantui.commands.starting import new_run
from nantui.commands.watching import exit_status
from nantui.machine.process_tree import send
from nantui.run.attempts import read_exits
from nantui.run.commands import Command
from nantui.run.spec import read_spec, write_spec
from nantui.supervisor.client import submit
from tests import waiting
from tests.supervisor.stub_run import StubRun
from tests.waiting import eventually
from tests.worker.runs import draw_data_set, tiny_model

pytestmark = pytest.mark.training
SCRIPT = """
from ultralytics import YOLO

def with_workers(trainer):
    trainer.args.workers = 2  # stock Ultralytics takes none on the CPU

model = YOLO({model!r})
model.add_callback("on_pretrain_routine_start", with_workers)
model.train(data={data!r}, imgsz=64, batch=8, epochs=50, device="cpu", plots=False, project={project!r})
"""


def test_every_process_at_once_and_the_rank_without_loaders_saves_alone(tmp_path, monkeypatch, own_home):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(waiting, "PATIENCE_S", 180.0)
    (own_home / "config/nantui/supervise.yaml").write_text("patience: {idle_exit_s: 1, grace_s: 60}\n")
    run = started(tmp_path)
    eventually(lambda: (run.status().epoch or 0) >= 2, lambda: str(run.status()))
    rank = run.rank_pid(0)
    os.kill(rank, signal.SIGSTOP)  # the workers are gone before it can ask for another batch
    for ref in run.members():
        if ref.pid != rank:
            send(ref, signal.SIGKILL)
    os.kill(rank, signal.SIGTERM)
    os.kill(rank, signal.SIGCONT)
    run.await_state("stopped", "failed", "finished")
    status, (ending,) = run.status(), read_exits(run.layout, 1)
    log = run.layout.attempt_log(1).read_text()[-2000:]
    assert (status.state, status.ending, exit_status(status)) == ("stopped", "preempted", 75), (
        f"{status} {log}"
    )
    assert (ending.code, ending.signal, ending.resumable) == (75, "SIGTERM", True), ending
    assert run.layout.stop_point.is_file()
    eventually(lambda: run.members() == [])


def started(place: Path) -> StubRun:
    data, model = draw_data_set(place / "data"), tiny_model(place)
    script = place / "train.py"
    script.write_text(SCRIPT.format(model=str(model), data=str(data), project=str(place / "stock")))
    layout = new_run(place / "run", [sys.executable, str(script)], auto=False)
    spec = read_spec(layout.spec)
    assert spec is not None
    waits = {"fault": "slow_step", "epoch": 2, "batch": 2, "seconds": 5.0}
    write_spec(layout.spec, replace(spec, faults=[waits]))
    submit(layout.run, Command("start", {"cwd": str(place)}))
    return StubRun(layout.run)
