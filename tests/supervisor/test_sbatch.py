"""`nantui sbatch`: the job as bash reads it and as it acts, what is refused, how a run begins in it."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nantui.cli import main
from nantui.commands import common, starting
from nantui.run.layout import RunLayout
from nantui.run.spec import read_spec
from tests.waiting import eventually


def written(make_run, name, *words):
    """Return the run that is named, and the job that was written for it."""
    run = make_run(name, start=False)
    assert main(["sbatch", str(run.path), *words]) == 0
    return run, (run.layout.home / starting.JOB).read_text()


@pytest.mark.parametrize("name", ["plain", 'it\'s "50%" $HOME'])
def test_the_job_is_bash_and_names_the_run_whatever_it_is_called(make_run, name):
    run, job = written(
        make_run,
        name,
        "--grace",
        "90",
        "--slurm",
        "time=8:00:00",
        "--slurm",
        "exclusive",
        "--slurm",
        "nodes=3",
    )
    path = run.layout.home / starting.JOB
    assert subprocess.run(["bash", "-n", str(path)], capture_output=True, text=True).stderr == ""
    only = "\n".join(line for line in job.splitlines() if line.startswith(("run=", "nantui=")))
    asked = subprocess.run(
        ["bash", "-c", f'{only}\nprintf "%s\\n" "$run" "${{nantui[0]}}"'], capture_output=True
    )
    assert asked.stdout.decode().splitlines() == [str(run.path), sys.executable]
    options = [line.removeprefix("#SBATCH --") for line in job.splitlines() if line.startswith("#SBATCH")]
    assert options.index("nodes=1") > options.index("nodes=3"), "the last word counts"
    wanted = {"signal=B:USR1@90", "requeue", "open-mode=append", "time=8:00:00", "exclusive"}
    assert wanted < set(options)
    log = next(option for option in options if option.startswith("output="))
    assert shlex.split(log) == [f"output={run.layout.home}/slurm-%j.log".replace("50%", "50%%")]


def test_a_new_run_waits_for_its_job_and_a_resume_begins_it(make_run, capsys):
    run, _ = written(make_run, "new")
    assert f"submit it with: sbatch {run.layout.home}" in capsys.readouterr().err
    assert run.layout.attempt_numbers() == []
    outcome = run.do("resume")
    assert outcome.ok and "attempt 1 started (start)" in outcome.text
    run.await_step()
    assert run.do("stop").ok and "(resume from" in run.do("resume").text


def test_a_job_may_ask_for_devices_that_are_not_here(tmp_path, capsys, torch_python):
    words = ["model=yolov8n.yaml", "data=coco8.yaml", f"project={tmp_path}", "device=6,7", "nnodes=2"]
    words += ["--python", torch_python]
    assert main(["sbatch", *words, "name=one"]) == 0
    layout = RunLayout(tmp_path / "one")
    spec = read_spec(layout.spec)
    assert spec is not None and (spec.train["device"], spec.nnodes) == ([6, 7], 2)
    assert "#SBATCH --nodes=2\n" in (layout.home / starting.JOB).read_text()
    assert main(["sbatch", *words, "name=two", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{layout.run}\n#!/bin/bash\n") and not (tmp_path / "two").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nnodes=65"], "from 1 to 64"),
        (["nnodes=2"], "several nodes: say device="),
        (["--grace", "5"], "--grace 5: give at least 30 s"),
        (["--slurm", "time=1 h"], "expects an option of sbatch"),
        (["--submit"], "sbatch is not on the path here"),
        (["a/run"], "leave the others out"),
    ],
)
def test_what_is_no_job_is_refused_in_one_line_before_anything_is_made(
    tmp_path, monkeypatch, capsys, words, said
):
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    asked = ["model=yolov8n.yaml", "data=coco8.yaml", f"project={tmp_path / 'runs'}", "name=x"]
    assert main(["sbatch", *words, *asked]) in (2, 3)
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not (tmp_path / "runs").exists()


def test_what_sbatch_refuses_is_said_and_how_to_try_again(make_run, tmp_path, monkeypatch, capsys):
    program(tmp_path / "bin/sbatch", 'echo "sbatch: error: invalid partition: $1" >&2; exit 1')
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    run = make_run("refused", start=False)
    assert main(["sbatch", str(run.path), "--submit"]) == 3
    assert f"invalid partition: {run.layout.home / starting.JOB}; the job is" in capsys.readouterr().err


def program(path: Path, text: str) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    return path


LEADER = 'trap "echo USR1 >> {log}; exit {status}" USR1; trap "exit {status}" TERM; echo "$@" >> "{log}"\n'
LEADER += "while :; do sleep 0.05; done"


@pytest.mark.parametrize(
    ("sent", "status", "state", "again"),
    [
        (signal.SIGUSR1, 75, "RUNNING", True),  # its time is nearly over
        (signal.SIGTERM, 75, "RUNNING", True),  # preempted, with a grace time
        (signal.SIGTERM, 75, "COMPLETING", False),  # scancel, scontrol requeue
        (signal.SIGUSR1, 77, "RUNNING", False),  # diverged meanwhile
    ],
)
def test_the_job_passes_signals_on_and_queues_itself_again_where_slurm_does_not(
    tmp_path, sent, status, state, again
):
    log = tmp_path / "log"
    leader = program(tmp_path / "bin/leader", LEADER.format(log=log, status=status))
    program(tmp_path / "bin/squeue", f"echo {state}")
    program(tmp_path / "bin/scontrol", f'echo "$@" >> "{log}"')
    words = {"OPTIONS": "", "RUN": "/the/run", "NANTUI": str(leader)}
    job = program(tmp_path / "bin/job", common.filled(starting.TEMPLATE, words))
    here = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "SLURM_JOB_ID": "7", "SLURM_JOB_NUM_NODES": "1"}
    process = subprocess.Popen([str(job)], env=here)
    eventually(lambda: log.is_file() and log.read_text().count("\n"))
    process.send_signal(sent)
    assert process.wait(30) == status
    lines = log.read_text().splitlines()
    assert lines[0] == "resume /the/run --wait --yes --trust --take-over"
    assert ("requeue 7" in lines) is again and ("USR1" in lines) is (sent == signal.SIGUSR1)
