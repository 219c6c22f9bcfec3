"""`nantui wait` and `--wait`: a line an epoch, signals passed on, the run's own exit status."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from nantui.cli import main
from nantui.commands.watching import Followed
from nantui.run.atomic_files import write_atomic
from nantui.run.layout import RunLayout
from tests.waiting import eventually


def test_it_waits_for_each_and_returns_the_first_that_did_not_finish(make_run, capsys):
    good = make_run("good", epochs=2)
    bad = make_run("bad", diverge_at=[1, 3])
    assert main(["wait", str(good.path)]) == 0
    assert f"{good.path}: finished" in capsys.readouterr().err
    assert main(["wait", str(good.path), str(bad.path), "--json"]) == 77
    told = json.loads(capsys.readouterr().out)
    assert [one["exit_status"] for one in told["runs"]] == [0, 77] and told["exit_status"] == 77


def test_its_patience_has_an_end(make_run, capsys):
    run = make_run(epochs=100000)
    run.await_step()
    assert main(["wait", str(run.path), "--timeout", "0.2"]) == 124
    assert "not over after 0.2 s" in capsys.readouterr().err and run.status().state != "stopped"


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 70)]
)
def test_a_signal_in_the_foreground_is_passed_on(make_run, number, status):
    run = make_run(epochs=100000)
    run.await_step()
    code = "from pathlib import Path; from nantui.commands.watching import foreground\n"
    code += f"raise SystemExit(foreground(Path({str(run.path)!r})))"
    waiting = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    said = iter(waiting.stderr.readline, "")
    assert any("running" in line for line in said)
    waiting.send_signal(number)
    assert waiting.wait(30) == status
    assert run.status().state == "stopped" and run.layout.stop_point.is_file()
    eventually(lambda: run.members() == [])


def test_epochs_of_before_are_not_told_again_where_a_rollback_has_written_them_anew(tmp_path, capsys):
    layout, head = RunLayout(tmp_path), "epoch,time,train/box_loss\n"
    lines = [f"{epoch},{epoch}.5,0.{epoch}\n" for epoch in range(1, 80_000)]
    layout.results_csv.write_text(head + "".join(lines))
    followed = Followed(layout)
    write_atomic(layout.results_csv, head + "".join(lines[:5]))
    followed.look()
    with layout.results_csv.open("a") as file:
        file.write("6,6.75,0.1\n")
    followed.look()
    told = [line.split("/")[0] for line in capsys.readouterr().err.splitlines() if line.startswith("epoch")]
    assert told == ["epoch 6"]


def test_two_ways_to_stay_are_refused(capsys):
    assert main(["train", "model=a", "data=b", "--wait", "--watch"]) == 2
    assert "choose one" in capsys.readouterr().err
