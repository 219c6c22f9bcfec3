"""One line in the user's own script: guard, telemetry and a run that nantui can show."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from nantui.supervise.status import read_status
from nantui.training import attach
from tests.training.runs import outcome_of

SCRIPT = """
import sys
from ultralytics import YOLO
from nantui.training.attach import attach

for name in ("one", "two"):
    model = attach(YOLO(sys.argv[1]))
    model.train(data=sys.argv[2], project=sys.argv[3], name=name, epochs=1, imgsz=64, batch=8, device="cpu",
                workers=0, plots=False)
"""


def test_every_training_of_an_attached_script_is_guarded_where_it_is(trainings, tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    argv = [sys.executable, str(script), str(trainings.model), str(trainings.data), str(tmp_path / "runs")]
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
