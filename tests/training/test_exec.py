"""A user's own script, unchanged: guarded, resumed with the rebased settings, everything of theirs active."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from nantui.commands import exec as exec_command
from nantui.errors import UserError
from nantui.run.files import write_json
from nantui.run.layout import RunLayout
from nantui.run.spec import Spec, write_spec
from nantui.training.exec_run import refuse_later_calls
from tests.training.runs import Outcome, Trainings, outcome_of, write_request

SCRIPT = """
import sys
from ultralytics import YOLO
from ultralytics.data.dataset import YOLODataset
from ultralytics.models.yolo.detect import DetectionTrainer

PROOF = open(sys.argv[1], "a", buffering=1)

class Brighter:
    def __call__(self, labels):
        PROOF.write("augmentation\\n")
        return labels

class MyDataset(YOLODataset):
    def build_transforms(self, hyp=None):
        transforms = super().build_transforms(hyp)
        transforms.insert(0, Brighter())
        return transforms

class MyTrainer(DetectionTrainer):
    def build_dataset(self, img_path, mode="train", batch=None):
        dataset = super().build_dataset(img_path, mode, batch)
        dataset.__class__ = MyDataset
        dataset.transforms = dataset.build_transforms(dataset_hyp(self))
        PROOF.write("dataset\\n")
        return dataset

    def optimizer_step(self):
        PROOF.write("trainer\\n")
        super().optimizer_step()

def dataset_hyp(trainer):
    from copy import copy
    return copy(trainer.args)

if __name__ == "__main__":
    model = YOLO(sys.argv[2])
    model.add_callback("on_train_epoch_end", lambda trainer: PROOF.write(f"callback {trainer.epoch + 1}\\n"))
    model.train(trainer=MyTrainer, data=sys.argv[3], epochs=3, imgsz=64, batch=8, nbs=8, device="cpu",
                workers=0, plots=False, optimizer="SGD", lr0=0.001, warmup_epochs=0.0, mosaic=0.0,
                project=sys.argv[4], name="mine")
    PROOF.write("after\\n")
"""


class Script:
    """The script with its run directory, started as the supervisor would start it."""

    def __init__(self, trainings: Trainings, place: Path) -> None:
        self.place, self.run, self.proof = place, place / "run", place / "proof.txt"
        script = place / "train.py"
        script.write_text(SCRIPT)
        words = [script, self.proof, trainings.model, trainings.data, place / "asked"]
        argv = [sys.executable, *map(str, words)]
        write_spec(
            RunLayout(self.run).spec, Spec(train={}, kind="exec", exec={"argv": argv, "cwd": str(place)})
        )

    def attempt(self, number: int, **request: Any) -> Outcome:
        self.proof.write_text("")
        write_request(self.run, number, {}, **request)
        root = str(Path(__file__).parents[2])
        environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1", "NANTUI_ATTEMPT": "mark"}
        argv = [sys.executable, "-m", "nantui.training.worker", str(self.run), f"{number:03d}"]
        with (self.place / f"{number}.log").open("wb") as log:
            code = subprocess.call(argv, env=environment, stdout=log, stderr=log, timeout=200)
        return outcome_of(self.run, number, code)

    @property
    def proofs(self) -> list[str]:
        return self.proof.read_text().splitlines()


@pytest.fixture(scope="module")
def attempts(
    trainings: Trainings, tmp_path_factory: pytest.TempPathFactory
) -> list[tuple[Outcome, list[str]]]:
    script = Script(trainings, tmp_path_factory.mktemp("exec"))
    fault = {"fault": "nan_weight", "epoch": 2, "batch": 2}
    first = script.attempt(1, faults=[fault]), script.proofs
    checkpoint = first[0].checkpoint("last.pt")
    assert checkpoint["epoch"] == 0
    checkpoint["train_args"]["lr0"] = 0.0005
    for group in checkpoint["optimizer"]["param_groups"]:
        group["initial_lr"] = 0.0005
    torch.save(checkpoint, script.run / "weights" / "last.pt")
    second = script.attempt(2, mode="resume", checkpoint="weights/last.pt"), script.proofs
    return [first, second]


def test_the_script_diverges_under_the_guard_in_its_run_directory(attempts):
    outcome, proofs = attempts[0]
    assert outcome.code == 77 and outcome.exit.outcome == "diverged"
    assert outcome.incidents[-1]["incident"] == "nan_weight"
    assert "after" not in proofs and not (outcome.run.parent / "asked").exists()


def test_the_resumed_script_keeps_all_that_is_its_own(attempts):
    outcome, proofs = attempts[1]
    assert outcome.code == 0 and outcome.exit.outcome == "finished"
    assert {"trainer", "dataset", "augmentation"} <= set(proofs)
    assert [line for line in proofs if line.startswith("callback")] == ["callback 2", "callback 3"]
    assert proofs[-1] == "after"


def test_rebased_settings_win_over_the_script(attempts):
    values = attempts[1][0].of("in_effect")[0]["values"]
    assert values["lr0"] == 0.0005


def test_a_script_in_its_second_training_is_refused(tmp_path):
    layout = RunLayout(tmp_path)
    layout.attempts.mkdir(parents=True)
    calls = [{"index": 1, "finished": True}, {"index": 2, "finished": False}]
    write_json(layout.attempts / "001.calls.json", {"calls": calls})
    with pytest.raises(UserError, match="only the first can be"):
        refuse_later_calls(layout, 2)
    write_json(layout.attempts / "001.calls.json", {"calls": [{"index": 1, "finished": False}]})
    refuse_later_calls(layout, 2)


def test_the_recorded_environment_has_no_secrets(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "x")
    monkeypatch.setenv("HF_TOKEN", "x")
    monkeypatch.setenv("MY_SETTING", "kept")
    kept = exec_command.kept_environment()
    assert kept["MY_SETTING"] == "kept"
    assert not {"WANDB_API_KEY", "HF_TOKEN"} & set(kept)


def test_a_program_that_is_not_there_is_refused():
    with pytest.raises(UserError, match="no such program"):
        exec_command.resolved(["--", "no-such-program-here", "train.py"])
    assert exec_command.resolved(["--", "sh", "x"])[0].startswith("/")
