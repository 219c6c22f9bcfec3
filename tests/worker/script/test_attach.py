"""One line in the user's own script: guard, telemetry and a run that nantui can show."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from nantui.run.spec import kept_environment
from nantui.supervisor.status import read_status
from nantui.worker.script import attach
from nantui.worker.script.script_run import lead_to
from tests.worker.runs import outcome_of

SCRIPT = """
import sys
from ultralytics import YOLO
from nantui.worker.script.attach import attach

for name in ("one", "two"):
    model = attach(YOLO(sys.argv[1]))
    model.train(data=sys.argv[2], project=sys.argv[3], name=name, epochs=1, imgsz=64, batch=8, device="cpu",
                workers=0, plots=False)
"""


def test_every_training_of_an_attached_script_is_guarded_where_it_is(trainings, tmp_path, warm_python):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"}
    argv = [warm_python, str(script), str(trainings.model), str(trainings.data), str(tmp_path / "runs")]
    with (tmp_path / "log").open("wb") as log:
        code = subprocess.call(argv, env=environment, stdout=log, stderr=log, timeout=200)
    assert code == 0, (tmp_path / "log").read_text()[-2000:]
    for name in ("one", "two"):
        outcome = outcome_of(tmp_path / "runs" / name, 1, code)
        assert outcome.exit.outcome == read_status(outcome.run).state == "finished"
        assert outcome.of("in_effect")[0]["guarded"] and len(outcome.steps) == 4


def test_the_hook_waits_for_the_trainer_and_runs_the_users_sitecustomize(tmp_path):
    (tmp_path / "sitecustomize.py").write_text("print('the user own')")
    probe = "import sys; print([f for f in sys.meta_path if 'Trainer' in type(f).__name__] != [])"
    for hook, expected in (("1", "True"), ("", "False")):
        path = os.pathsep.join([str(attach.HOOK_FOLDER), str(tmp_path)])
        environment = {**os.environ, "PYTHONPATH": path, "NANTUI_HOOK": hook}
        said = subprocess.run([sys.executable, "-c", probe], env=environment, capture_output=True, text=True)
        assert said.stdout.split("\n")[:2] == ["the user own", expected], said.stderr


def test_two_copies_of_the_hook_never_run_each_other_in_a_circle(tmp_path):
    copies = [tmp_path / name for name in ("installed", "cached")]
    for folder in copies:
        shutil.copytree(attach.HOOK_FOLDER, folder)
    (tmp_path / "sitecustomize.py").write_text("print('the user own')")
    path = os.pathsep.join(map(str, (attach.HOOK_FOLDER, *copies, tmp_path)))
    environment = {**os.environ, "PYTHONPATH": path, "NANTUI_HOOK": "1"}
    probe = "import sys; print(sum('Trainer' in type(f).__name__ for f in sys.meta_path))"
    said = subprocess.run([sys.executable, "-c", probe], env=environment, capture_output=True, text=True)
    assert (said.stdout.split("\n")[:2], said.stderr) == (["the user own", "1"], "")


def test_the_hook_is_no_part_of_a_command_that_is_kept(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(attach.HOOK_FOLDER), "/mine"]))
    assert kept_environment()["PYTHONPATH"] == "/mine"
    monkeypatch.setenv("PYTHONPATH", str(attach.HOOK_FOLDER))
    assert "PYTHONPATH" not in kept_environment()


@pytest.mark.parametrize("how", ["-", "-c", "file"])
def test_only_a_script_in_a_file_is_recorded_to_be_run_again(tmp_path, how):
    """What comes from standard input, as a notebook's cells do, is gone when it is to be run again."""
    probe = "from nantui.worker.script.script_run import _own_command as own; print(own() is not None)"
    (tmp_path / "script.py").write_text(probe)
    words = {"-": ["-"], "-c": ["-c", probe], "file": [str(tmp_path / "script.py")]}[how]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    said = subprocess.run(
        [sys.executable, *words], input=probe, env=environment, capture_output=True, text=True
    )
    assert said.stdout.strip() == str(how == "file"), said.stderr


def test_the_path_that_a_script_chose_leads_to_its_newest_run(tmp_path):
    first, second, place = (tmp_path / name for name in ("exec/t", "exec/t-2", "out/same"))
    for run in (first, second):
        (run / "nantui").mkdir(parents=True)
    (run_file := first / "kept.txt").write_text("first")
    arguments = SimpleNamespace(project=str(place.parent), name="same", exist_ok=True, task="detect",
                                mode="train", save_dir=None)  # fmt: skip
    for run in (first, second):
        lead_to(run, arguments)
        assert place.resolve() == run
    assert run_file.read_text() == "first"


def test_a_directory_of_the_users_own_is_not_made_a_link(tmp_path, capsys):
    run, place = tmp_path / "exec/t", tmp_path / "out/same"
    run.mkdir(parents=True)
    place.mkdir(parents=True)
    (place / "mine.txt").write_text("mine")
    lead_to(run, SimpleNamespace(project=str(place.parent), name="same", exist_ok=True, save_dir=None))
    assert not place.is_symlink() and (place / "mine.txt").read_text() == "mine"
    assert "does not lead there" in capsys.readouterr().err
