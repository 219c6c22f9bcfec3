"""Trainings that nantui did not start: found, shown, and stopped without touching anything around them."""

from __future__ import annotations

import math
import os
import re
import shlex
import subprocess
import sys

import pytest

from nantui.cli import main
from nantui.errors import UserError
from nantui.machine.process_identity import ProcessRef, alive, ref_of
from nantui.machine.process_tree import variables_of
from nantui.run.commands import Command
from nantui.run.layout import RunLayout
from nantui.run.spec import kept_environment, read_spec
from nantui.supervisor.client import carry_out
from nantui.supervisor.foreign import (
    ForeignProcess,
    _is_launcher_of,
    describe,
    find_foreign,
    stop_tree,
)
from nantui.supervisor.status import read_status
from nantui.supervisor.stop import program_of, runs_a_script
from tests.supervisor.foreign.foreign_runs import SCRIPT, below, command_line, kill_tree
from tests.waiting import eventually


@pytest.fixture
def foreign(tmp_path):
    """Start a foreign training with its output in a file; yields (run, process)."""
    with (tmp_path / "train.log").open("wb") as log:
        process = subprocess.Popen(command_line("."), cwd=tmp_path, stdout=log)
    run = tmp_path / "exp"
    eventually((run / "results.csv").is_file)
    yield run, process
    kill_tree(process.pid)
    process.wait()


def test_it_is_found_with_its_tree_user_and_age(foreign):
    run, process = foreign
    found = eventually(lambda: [one for one in find_foreign(run) if len(one.pids) == 3])
    assert [one.ref.pid for one in found] == [process.pid]
    training = found[0]
    assert training.mine and training.user and training.cwd == str(run.parent)
    assert re.search(r", \d+ (second|minute)s? old: .*foreign_train.py train", describe(training))


def test_a_process_elsewhere_is_not_taken_for_it(foreign, tmp_path):
    run, _ = foreign
    other = tmp_path / "other" / "exp"
    other.mkdir(parents=True)
    (other / "args.yaml").write_text("epochs: 3\n")
    os.utime(other / "args.yaml", (1, 1))
    assert find_foreign(other) == []


@pytest.mark.parametrize(
    ("name", "mode", "evidence"),
    [
        ("args.yaml", "r", []),
        ("args.yaml", "a", ["certain"]),
        ("nantui/supervisor.log", "a", []),
        ("nantui/attempts/001.steps.csv", "a", ["certain"]),
    ],
)
def test_who_reads_the_run_or_leaves_a_command_does_not_train_into_it(tmp_path, name, mode, evidence):
    run = tmp_path / "exp"
    (run / "nantui" / "attempts").mkdir(parents=True)
    (run / "args.yaml").write_text("epochs: 3\n")
    path = str(run / name)
    code = f"import time; file = open({path!r}, {mode!r}); print(1, flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        assert [one.evidence for one in find_foreign(run)] == evidence
    finally:
        process.kill()
        process.communicate()


def beside(tmp_path, *names):
    """Folders with nothing but args.yaml, each written a second after the one before."""
    for age, name in enumerate(names):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "args.yaml").write_text("model: m.yaml\ndata: d.yaml\n")
        os.utime(tmp_path / name / "args.yaml", (1000.0 + age, 1000.0 + age))
    return [tmp_path / name for name in names]


def trainer(tmp_path, *argv, created=999.0):
    return ForeignProcess(ProcessRef(4_000_000, created), argv, str(tmp_path), 1, (), "me", True)


@pytest.mark.parametrize("argv", [
    ("yolo", "detect", "train", "data=d.yaml", "model=m.yaml"),
    ("yolo", "train", "name=exp3", "data=empty/d.yaml", "model=empty/weights/best.pt"),
])  # fmt: skip
def test_a_directory_beside_somebodys_training_is_not_its_run(tmp_path, argv):
    (theirs, empty) = beside(tmp_path, "exp", "empty")
    commands = [tmp_path / name for name in ("train", "detect")]
    for folder in commands:
        folder.mkdir()
    one = trainer(tmp_path, *argv)
    assert [found.evidence for found in find_foreign(theirs, [one])] == ["likely"]
    assert not any(find_foreign(folder, [one]) for folder in (empty, *commands))


def test_a_run_that_is_resumed_is_named_by_its_checkpoint(tmp_path):
    (run,) = beside(tmp_path, "exp")
    argv = ("yolo", "train", "resume=True", f"model={run}/weights/last.pt")
    assert [found.evidence for found in find_foreign(run, [trainer(tmp_path, *argv, created=5e9)])] == [
        "certain"
    ]


def test_the_next_run_of_a_process_is_found_once_the_one_before_is_over(tmp_path):
    before, after = beside(tmp_path, "exp", "exp2")
    (before / "results.csv").write_text("epoch\n1\n")
    os.utime(before / "results.csv", (1000.5, 1000.5))
    assert find_foreign(after, [trainer(tmp_path, "yolo", "train")])


LOADS = """
import mmap, sys, time
library = open(sys.argv[2], "rb")
loaded = mmap.mmap(library.fileno(), 0, access=mmap.ACCESS_READ)
print(1, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize(
    ("script", "library", "evidence"),
    [
        ("train.py", "libtorch_cpu.so", ["likely"]),
        ("train.py", "libother.so", []),
        ("watch.py", "libtorch_cpu.so", ["likely"]),
        ("watch.py", "libother.so", []),
    ],
)
def test_a_word_on_a_command_line_does_not_make_a_training(tmp_path, script, library, evidence):
    """A process that says "train", started above the run just before it: only with torch it may train."""
    run = tmp_path / "runs" / "exp"
    run.mkdir(parents=True)
    (tmp_path / script).write_text(LOADS)
    (tmp_path / library).write_bytes(b"a library")
    argv = [sys.executable, script, "training-notes.txt", library]
    process = subprocess.Popen(argv, cwd=tmp_path, stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"1\n"
        (run / "args.yaml").write_text("epochs: 3\n")
        assert [one.evidence for one in find_foreign(run)] == evidence
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("argv", "evidence"),
    [
        ("python plot.py {run}/results.csv", []),
        ("tensorboard --logdir {run}", []),
        ("python fit.py --mode=train {run}", ["certain"]),
        ("python -u my_train.py {run}", ["certain"]),
    ],
)
def test_a_run_in_a_folder_called_train_is_not_trained_by_whoever_names_it(tmp_path, argv, evidence):
    (tmp_path / "detect").mkdir()
    (run,) = beside(tmp_path / "detect", "train")
    words = argv.format(run=run).split()
    assert [one.evidence for one in find_foreign(run, [trainer("/", *words, created=900.0)])] == evidence


def test_status_reads_its_log(foreign):
    run, process = foreign
    status = eventually(lambda: (found := read_status(run)).step and found)
    assert (status.state, status.epoch, status.epochs) == ("foreign", 3, 9)
    assert status.losses["box_loss"] == 1.25
    assert math.isnan(status.losses["cls_loss"]) and math.isinf(status.losses["dfl_loss"])
    assert process.pid in status.pids


def test_a_log_that_is_given_tells_the_batches_too(tmp_path, capsys):
    run = tmp_path / "exp"
    run.mkdir()
    (run / "args.yaml").write_text("epochs: 9\n")
    log = tmp_path / "slurm.out"
    log.write_text("\r\x1b[K   4/9   2.31G   1.25   nan   inf   12   64: 45% 7/30 ")
    assert main(["status", str(run), "--log", str(log)]) == 0
    assert "epoch 4/9" in (said := capsys.readouterr().out) and "step 7/30" in said
    assert main(["status", str(tmp_path), "--log", str(log)]) == 2
    assert main(["status", str(run), "--log", str(tmp_path)]) == 2


def test_stopping_needs_the_word_and_keeps_how_it_was_started(foreign):
    run, process = foreign
    pids = [process.pid, *eventually(lambda: len(found := below(process.pid)) == 2 and found)]
    refused = carry_out(run, Command("stop"))
    assert not refused.ok and "not started by nantui" in refused.text
    assert process.poll() is None
    done = carry_out(run, Command("stop", {"foreign": True}))
    assert done.ok, done.text
    eventually(lambda: process.poll() is not None)
    assert not [pid for pid in pids if alive(ref_of(pid))]
    spec = read_spec(RunLayout(run).spec)
    assert spec.kind == "exec", "it goes on through its own script"
    assert spec.exec["argv"] == command_line(".") and spec.exec["cwd"] == str(run.parent)
    assert spec.train["lr0"] == 0.01


def test_nothing_secret_is_kept(monkeypatch, tmp_path):
    env = {**os.environ, "CUDA_VISIBLE_DEVICES": "1", "WANDB_API_KEY": "hush", "CUDA_TOKEN": "hush"}
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], env=env)
    try:
        kept = kept_environment(eventually(lambda: variables_of(process.pid)))
        assert kept["CUDA_VISIBLE_DEVICES"] == "1"
        assert "hush" not in kept.values()
    finally:
        process.kill()
        process.wait()


def test_somebody_elses_process_is_never_signalled():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        ref = ref_of(process.pid)
        theirs = ForeignProcess(ref, ("python",), "/", 1, (), "eve", mine=False)
        with pytest.raises(UserError, match="eve"):
            stop_tree(theirs)
        assert process.poll() is None
    finally:
        process.kill()
        process.wait()


SCHEDULER = "import shlex, subprocess, sys, time; subprocess.Popen(shlex.split(sys.argv[2])); time.sleep(600)"


def test_a_scheduler_that_was_told_to_train_is_not_part_of_the_training(tmp_path):
    scheduler = subprocess.Popen(
        [sys.executable, "-c", SCHEDULER, "train-nightly", shlex.join(command_line("."))], cwd=tmp_path
    )
    try:
        run = tmp_path / "exp"
        eventually((run / "results.csv").is_file)
        (found,) = find_foreign(run)
        assert found.ref.pid != scheduler.pid and str(SCRIPT) in found.argv
        assert stop_tree(found) == [] and scheduler.poll() is None
    finally:
        kill_tree(scheduler.pid)
        scheduler.wait()


RANK = "python -u _temp_abc.py"
TORCHRUN = "python -m torch.distributed.run --nproc_per_node 2 _temp_abc.py"


@pytest.mark.parametrize(
    ("parent", "child", "expected"),
    [
        (TORCHRUN, RANK, True),
        ("python -u train.py", TORCHRUN, True),
        ("/opt/bin/torchrun train.py", "python -u train.py", True),
        ("python /opt/bin/accelerate launch train.py", "python train.py", True),
        ("python train.py", "python -c multiprocessing.spawn --multiprocessing-fork", True),
        ("python train.py", "python train.py", True),
        ("python nightly.py --then torchrun train.py", "python train.py", False),
        ("python -m pytest tests/worker", "python train.py", False),
    ],
)
def test_what_a_process_runs_tells_whether_it_launched_a_rank(parent, child, expected):
    ref = ProcessRef(1, 1.0)
    one, other = (ForeignProcess(ref, tuple(x.split()), "/", 0, (), "me", True) for x in (parent, child))
    assert _is_launcher_of(one, other) is expected


def test_a_training_started_elsewhere_is_known_by_its_project(tmp_path):
    process = subprocess.Popen(command_line(tmp_path), cwd="/", stdout=subprocess.DEVNULL)
    run = tmp_path / "exp"
    try:
        eventually((run / "results.csv").is_file)
        assert [one.ref.pid for one in find_foreign(run)] == [process.pid]
        copied = tmp_path / "copied"
        copied.mkdir()
        (copied / "args.yaml").write_text("epochs: 3\n")
        assert [one.ref.pid for one in find_foreign(copied)] == [process.pid]
        (copied / "args.yaml").write_text(f"epochs: 3\nsave_dir: {run}\n")
        assert find_foreign(copied) == [], "its own settings say that its training writes elsewhere"
    finally:
        kill_tree(process.pid)
        process.wait()


@pytest.mark.parametrize(
    ("command", "own"),
    [
        ("python train.py --epochs 3", True),
        ("/venv/bin/python3.11 -u lib/train.py", True),
        ("/venv/bin/python /venv/bin/yolo train model=yolov8n.pt", False),
        ("python -m torch.distributed.run --nproc_per_node 2 train.py", False),
        ("python /home/me/.config/Ultralytics/DDP/_temp_7a.py", False),
        ("python -c import.train.py", False),
    ],
)
def test_only_a_script_of_somebodys_own_goes_on_through_itself(command, own):
    assert runs_a_script(command.split()) is own


def test_the_interpreter_is_kept_as_it_was_called(tmp_path):
    link = tmp_path / "venv" / "python-of-mine"
    link.parent.mkdir()
    link.symlink_to(sys.executable)
    variables = {**os.environ, "PATH": f"{link.parent}:{os.environ['PATH']}"}
    process = subprocess.Popen([link.name, "-c", "import time; time.sleep(60)"], env=variables, cwd="/")
    try:
        ref = eventually(lambda: ref_of(process.pid))
        training = ForeignProcess(ref, (link.name, "x.py"), "/", 1, (), "me", mine=True)
        assert eventually(lambda: program_of(training) == str(link))
    finally:
        process.kill()
        process.wait()
